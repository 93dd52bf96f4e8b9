//! The closing table of a run.

use std::fmt;
use std::path::PathBuf;

use super::checkpoint::EpochRecord;
use super::plan::MIB;
use crate::config::Strategy;

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Its folder.
    pub run: PathBuf,
    /// What was trained.
    pub strategy: Strategy,
    /// Values that training changed.
    pub trained: usize,
    /// All values.
    pub total: usize,
    /// Best epoch and its accuracy; none without validation.
    pub best: Option<(usize, f64)>,
    /// All epochs.
    pub history: Vec<EpochRecord>,
    /// Training speed over the run, data included.
    pub images_per_s: f64,
    /// Seconds in all.
    pub wall_s: f64,
    /// Most bytes of the model's arithmetic held at once.
    pub peak_bytes: u64,
    /// What was planned.
    pub planned_bytes: u64,
    /// Accuracy means mean average precision.
    pub multilabel: bool,
    /// Trained on the embedded data.
    pub embedded: bool,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let measure = if self.multilabel { "mAP %" } else { "top-1 %" };
        writeln!(f, "epoch  train loss  val loss  val {measure}        lr")?;
        let shown = |epoch: usize| {
            let last = self.history.len();
            // Long runs: the first, the last, the best and every tenth.
            last <= 12
                || epoch == 1
                || epoch == last
                || epoch % 10 == 0
                || self.best.is_some_and(|(best, _)| best == epoch)
        };
        for e in self.history.iter().filter(|e| shown(e.epoch)) {
            let number = |value: Option<f64>, scale: f64| value.map_or("-".to_owned(), |v| format!("{:.4}", v * scale));
            let accuracy = e.val_accuracy.map_or("-".to_owned(), |a| format!("{:.1}", 100.0 * a));
            let mark = if self.best.is_some_and(|(best, _)| best == e.epoch) { "  best" } else { "" };
            writeln!(
                f,
                "{:>5}  {:>10.4}  {:>8}  {:>11}  {:>8.1e}{mark}",
                e.epoch,
                e.train_loss,
                number(e.val_loss, 1.0),
                accuracy,
                e.lr
            )?;
        }
        writeln!(f)?;
        writeln!(f, "strategy      {}: trained {} of {} values", self.strategy.name(), self.trained, self.total)?;
        writeln!(f, "speed         {:.1} images/s, {:.0} s in all", self.images_per_s, self.wall_s)?;
        writeln!(
            f,
            "memory        {:.0} MiB at most, {:.0} planned",
            self.peak_bytes as f64 / MIB,
            self.planned_bytes as f64 / MIB
        )?;
        let run = self.run.display();
        let result = if self.strategy.has_adapter() { "adapter/" } else { "model.safetensors" };
        writeln!(f, "result        {run}/{result}  (curves: {run}/curves.svg)")?;
        writeln!(f)?;
        writeln!(f, "next: peftk predict --model {run} IMAGE...     what is on an image")?;
        writeln!(f, "      peftk merge --model {run} --out DIR      a plain transformers folder")?;
        if self.embedded {
            write!(f, "      peftk train --data DIR --backbone dinov2-small     your own images")
        } else {
            write!(f, "      peftk eval --model {run} --data DIR      measures on other labelled images")
        }
    }
}
