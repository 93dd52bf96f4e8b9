//! The experiment of strategies by data sets: every run of it, what is known of them, and the report that is drawn from that.

pub mod advice;
pub mod config;
#[doc(hidden)]
pub mod example;
mod folder;
mod live;
pub mod numbers;
pub mod published;
pub mod report;
pub mod results;
mod run;
pub mod stats;
pub mod summary;
mod tune;

pub use config::{CompareConfig, SetConfig, Tune};
pub use run::run;
