//! `peftk compare`, validated.

use std::path::PathBuf;

use super::published::Published;
use super::results::Variant;
use crate::config::TrainConfig;

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct CompareConfig {
    /// The data sets, in the order given; at least one.
    pub sets: Vec<SetConfig>,
    /// What is compared, in the order given; at least one.
    pub variants: Vec<Variant>,
    /// Seeds of the runs of each variant on each set; at least one, each once.
    pub seeds: Vec<u64>,
    /// Where learning rates are searched.
    pub tune: Tune,
    /// Strategies whose learning rates were given, for the report's words.
    pub rates_given: Vec<String>,
    /// What the reader must know of backbone or data.
    pub note: Option<String>,
    /// Runs that failed before are to be run again.
    pub retry: bool,
    /// A published table to show beside.
    pub against: Option<&'static Published>,
    /// The report's folder.
    pub out: PathBuf,
}

/// A data set and how its runs are made.
#[derive(Clone, Debug, PartialEq)]
pub struct SetConfig {
    /// What tables and folders call it.
    pub name: String,
    /// A run's settings, one a variant; seed and folder are filled in.
    pub runs: Vec<TrainConfig>,
}

/// Where learning rates are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tune {
    /// Nowhere.
    No,
    /// On each data set for itself.
    Each,
    /// On one, by its index, for all.
    On(usize),
}
