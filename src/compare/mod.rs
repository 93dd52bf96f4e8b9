//! The experiment of strategies by data sets: every run of it, and what is known of them, from which the report is drawn.

pub mod config;
#[cfg(test)]
mod example;
mod folder;
mod live;
pub mod results;
mod run;
pub mod stats;
pub mod summary;
mod tune;

pub use config::{CompareConfig, SetConfig, Tune};
pub use run::run;
