//! The experiment of strategies by data sets, and its report.

#[cfg(test)]
mod example;
pub mod results;
pub mod stats;
pub mod summary;
