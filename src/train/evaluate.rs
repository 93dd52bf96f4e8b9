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
use crate::task::labels::Labels;
use crate::task::metrics::{ClassCounter, ClassMetrics};
use crate::task::multilabel_metrics::{LabelCounter, LabelMetrics};
use crate::task::tree_metrics::{TreeCounter, TreeMetrics};

/// A task's measures.
#[derive(Clone, Debug)]
pub enum Measures {
    /// Multi-class.
    Classes(ClassMetrics),
    /// Multi-label.
    Labels(LabelMetrics),
    /// Hierarchical.
    Tree(TreeMetrics),
}

/// What a set came to.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// Mean loss.
    pub loss: f64,
    /// The task's measures.
    pub measures: Measures,
    /// Multi-label, where asked for: the thresholds that would have served best here.
    pub best_thresholds: Option<Vec<f64>>,
}

impl Evaluation {
    /// What early stopping and the plateau watch, 0 to 1: top-1; multi-label the mean average precision over labels (a set's binary accuracy starts
    /// near 1 where labels are rare, and says little); hierarchical the share of whole paths that are right.
    pub fn accuracy(&self) -> f64 {
        match &self.measures {
            Measures::Classes(m) => m.top1,
            Measures::Labels(m) => m.map_macro,
            Measures::Tree(m) => m.path_accuracy,
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
            Measures::Tree(m) => json!({
                "images": m.images, "path_accuracy": m.path_accuracy, "level_accuracy": m.level_accuracy,
                "mean_accuracy": m.mean_accuracy, "consistency": m.consistency, "macro_f1": m.macro_f1,
            }),
        };
        match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// Multi-label: from which probabilities on an image is given a label.
#[derive(Clone, Copy, Debug)]
pub enum Thresholds<'a> {
    /// These, one half where there are none.
    Given(Option<&'a [f64]>),
    /// One half, and the best are found.
    Find,
}

/// A task's counter.
enum Counter {
    Classes(ClassCounter),
    Labels(LabelCounter),
    Tree(TreeCounter),
}

impl Counter {
    fn new(labels: &Labels, thresholds: Option<&[f64]>) -> Self {
        match (labels.task, &labels.tree) {
            (Task::Hierarchical, Some(tree)) => Self::Tree(TreeCounter::new(tree.clone().into())),
            (Task::Multiclass, _) => Self::Classes(ClassCounter::new(labels.len())),
            _ => Self::Labels(LabelCounter::new(labels.len(), thresholds)),
        }
    }
}

/// Runs every batch once, such as [`crate::data::Loader::epoch`] gives them.
pub fn evaluate<B: Backend>(
    model: &Model<B>,
    batches: impl Iterator<Item = Result<Batch>>,
    options: &StepOptions,
    thresholds: Thresholds<'_>,
    bar: &Bar,
) -> Result<Evaluation> {
    evaluate_each(model, batches, options, thresholds, bar, &mut |_, _| {})
}

/// [`evaluate`]; `each` is shown every batch with its logits \[images, classes\].
pub fn evaluate_each<B: Backend>(
    model: &Model<B>,
    batches: impl Iterator<Item = Result<Batch>>,
    options: &StepOptions,
    thresholds: Thresholds<'_>,
    bar: &Bar,
    each: &mut dyn FnMut(&Batch, &[f32]),
) -> Result<Evaluation> {
    let (mut loss, mut images) = (0.0, 0usize);
    let given = match thresholds {
        Thresholds::Given(given) => given,
        Thresholds::Find => None,
    };
    let mut counter = Counter::new(&model.labels, given);
    for batch in batches {
        interrupt::check()?;
        let batch = batch?;
        let count = batch.indices.len();
        let (logits, batch_loss) = evaluate_batch(&model.vit, &model.params, &batch, options)?;
        loss += batch_loss * count as f64;
        images += count;
        match &mut counter {
            Counter::Classes(counter) => counter.add(&logits, &batch.labels),
            Counter::Labels(counter) => counter.add(&logits, &batch.targets),
            Counter::Tree(counter) => counter.add(&logits, &batch.targets),
        }
        each(&batch, &logits);
        bar.inc(1);
    }
    let (measures, best_thresholds) = match counter {
        Counter::Classes(counter) => (Measures::Classes(counter.metrics()), None),
        Counter::Labels(counter) => {
            let best = matches!(thresholds, Thresholds::Find).then(|| counter.best_thresholds());
            (Measures::Labels(counter.metrics()), best)
        }
        Counter::Tree(counter) => (Measures::Tree(counter.metrics()), None),
    };
    Ok(Evaluation { loss: loss / images.max(1) as f64, measures, best_thresholds })
}
