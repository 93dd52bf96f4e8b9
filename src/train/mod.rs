//! Training and the use of what was trained: from validated settings to a run folder, a table, a merged model.

pub mod checkpoint;
mod commands;
pub mod early_stopping;
pub mod evaluate;
mod inputs;
pub mod interrupt;
pub mod loaded;
pub mod log;
pub mod model;
pub mod optimizer;
pub mod plan;
mod predict;
mod run;
pub mod run_dir;
pub mod schedule;
pub mod step;
mod summary;
pub mod ui;

pub use commands::{eval, merge, plan};
pub use predict::predict;
pub use run::run;
pub use summary::Summary;
pub use ui::Ui;
