//! Training and the use of what was trained: from validated settings to a run folder, a table, a merged model.

pub mod bare_step;
pub mod bench;
pub mod checkpoint;
mod commands;
pub mod early_stopping;
mod epoch;
pub mod errors_sheet;
mod eval_files;
pub mod evaluate;
mod explain;
mod features;
mod init_adapter;
mod inputs;
pub mod interrupt;
pub mod loaded;
pub mod log;
mod loss;
pub mod model;
pub mod optimizer;
pub mod passes;
mod place;
pub mod plan;
pub mod planner;
mod predict;
pub mod report;
mod run;
pub mod run_dir;
pub mod schedule;
pub mod step;
pub mod ui;

pub(crate) use commands::eval_set;
pub use commands::{eval, merge, plan};
pub(crate) use errors_sheet::LINE_HEIGHT as ERRORS_LINE;
pub use explain::explain;
pub use inputs::{Images, fingerprint, load_backbone, make_paths_absolute};
pub use loss::{check_loss, criterion};
pub use place::Place;
pub use predict::predict;
pub use report::{
    EvalReport, ExplainedLabel, Explanation, MemoryPlan, Planned, PredictedLabel, Prediction, Probability, Summary,
};
pub use run::{run, run_on};
pub use ui::{Bar, Ui};
