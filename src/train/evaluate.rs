//! A model over a whole labelled set.

use serde_json::{Map, Value, json};

use super::interrupt;
use super::model::Model;
use super::step::{StepOptions, evaluate_batch};
use super::ui::Bar;
use crate::Result;
use crate::autograd::Backend;
use crate::config::Task;
use crate::data::Batch;
use crate::task::metrics::{ClassCounter, ClassMetrics};
use crate::task::multilabel_metrics::{LabelCounter, LabelMetrics};

/// A task's measures.
#[derive(Clone, Debug)]
pub enum Measures {
    /// Multi-class.
    Classes(ClassMetrics),
    /// Multi-label.
    Labels(LabelMetrics),
}

/// What a set came to.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Mean loss.
    pub loss: f64,
    /// The task's measures.
    pub measures: Measures,
}

impl Evaluation {
    /// What early stopping and the plateau watch: top-1, or the mean average precision over labels, 0 to 1. (A multi-label set's binary accuracy starts near
    /// 1 where labels are rare, and says little.)
    pub fn accuracy(&self) -> f64 {
        match &self.measures {
            Measures::Classes(m) => m.top1,
            Measures::Labels(m) => m.map_macro,
        }
    }

    /// The task's other measures by name.
    pub fn more(&self) -> Map<String, Value> {
        let value = match &self.measures {
            Measures::Classes(m) => json!({
                "images": m.images, "top1": m.top1, "top5": m.top5, "balanced_accuracy": m.balanced_accuracy, "macro_f1": m.macro_f1,
            }),
            Measures::Labels(m) => json!({
                "images": m.images, "map_macro": m.map_macro, "map_micro": m.map_micro, "binary_accuracy": m.binary_accuracy,
                "f1_macro": m.f1_macro, "f1_micro": m.f1_micro,
            }),
        };
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// Runs every batch once, such as [`crate::data::Loader::epoch`] gives them.
pub fn evaluate<B: Backend>(
    model: &Model<B>,
    batches: impl Iterator<Item = Result<Batch>>,
    options: StepOptions,
    bar: &Bar,
) -> Result<Evaluation> {
    let classes = model.labels.len();
    let (mut loss, mut images) = (0.0, 0usize);
    let (mut by_class, mut by_label) = (ClassCounter::new(classes), LabelCounter::new(classes));
    for batch in batches {
        interrupt::check()?;
        let batch = batch?;
        let count = batch.indices.len();
        let (logits, batch_loss) = evaluate_batch(&model.vit, &model.params, &batch, options)?;
        loss += batch_loss * count as f64;
        images += count;
        match options.task {
            Task::Multiclass => by_class.add(&logits, &batch.labels),
            Task::Multilabel => by_label.add(&logits, &batch.targets.iter().map(|&t| t > 0.5).collect::<Vec<_>>()),
        }
        bar.inc(1);
    }
    let measures = match options.task {
        Task::Multiclass => Measures::Classes(by_class.metrics()),
        Task::Multilabel => Measures::Labels(by_label.metrics()),
    };
    Ok(Evaluation { loss: loss / images.max(1) as f64, measures })
}
