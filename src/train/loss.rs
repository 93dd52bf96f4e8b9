//! From settings and data to the loss that is minimised.

use std::sync::Arc;

use crate::autograd::Asymmetric;
use crate::config::{AsymmetricSettings, ClassWeights, LabelLoss, Task, TrainConfig};
use crate::task::criterion::Criterion;
use crate::task::labels::Labels;
use crate::{Error, Result};

/// Refuses settings of a loss that data of this task does not have.
///
/// # Errors
/// [`Error::Input`] naming the flag.
pub fn check_loss(config: &TrainConfig, task: Task) -> Result<()> {
    let is = match task {
        Task::Multiclass => "multi-class",
        Task::Multilabel => "multi-label",
        Task::Hierarchical => "hierarchical",
    };
    let only = |flag: &str, why: &str| Err(Error::input(format!("{flag}: the data is {is}, and {why}; leave it out")));
    match task {
        Task::Multiclass if config.loss.is_some() => only("--loss", "one class an image has its softmax cross-entropy"),
        Task::Multiclass if config.asymmetric.is_some() => only("--asymmetric", "it is for labels that are yes or no"),
        Task::Multilabel if config.label_smoothing > 0.0 => only("--label-smoothing", "it is for one class an image"),
        Task::Multilabel if config.asymmetric.is_some() && config.loss != Some(LabelLoss::Asymmetric) => {
            Err(Error::input("--asymmetric: multi-label data has binary cross-entropy; add --loss asymmetric"))
        }
        Task::Multilabel | Task::Hierarchical if config.class_weights.is_some() => {
            only("--class-weights", "they are for one class an image")
        }
        Task::Multiclass | Task::Hierarchical if config.tune_thresholds => {
            only("--tune-thresholds", "thresholds are for labels of their own")
        }
        _ => Ok(()),
    }
}

/// The loss of a run on data with these labels, of which `counts` are the training images of each.
///
/// # Errors
/// As [`check_loss`]; a number of class weights that is not that of the classes.
pub fn criterion(config: &TrainConfig, labels: &Labels, counts: &[usize]) -> Result<Criterion> {
    check_loss(config, labels.task)?;
    let smoothing = config.label_smoothing;
    Ok(match (labels.task, &labels.tree) {
        (Task::Multiclass, _) => {
            let weights = config.class_weights.as_ref().map(|weights| by_class(weights, counts)).transpose()?;
            Criterion::Classes { smoothing, weights }
        }
        (Task::Multilabel, _) if config.loss != Some(LabelLoss::Asymmetric) => Criterion::Binary,
        (Task::Multilabel, _) => Criterion::Labels { begins: [0].into(), smoothing: 0.0, single: single(config) },
        (Task::Hierarchical, Some(tree)) => {
            Criterion::Labels { begins: tree.begins().into(), smoothing, single: single(config) }
        }
        (Task::Hierarchical, None) => return Err(Error::Internal("hierarchical data without a tree".into())),
    })
}

/// The loss of labels that are yes or no, as the asymmetric one.
fn single(config: &TrainConfig) -> Asymmetric {
    if config.loss == Some(LabelLoss::Bce) {
        return Asymmetric { gamma_positive: 0.0, gamma_negative: 0.0, clip: 0.0, positive_weight: 1.0 };
    }
    let AsymmetricSettings { gamma_pos, gamma_neg, k, clip } = config.asymmetric.unwrap_or_default();
    Asymmetric { gamma_positive: gamma_pos, gamma_negative: gamma_neg, clip, positive_weight: k }
}

fn by_class(weights: &ClassWeights, counts: &[usize]) -> Result<Arc<[f32]>> {
    match weights {
        ClassWeights::Balanced => {
            let images: usize = counts.iter().sum();
            let share = images as f64 / counts.len().max(1) as f64;
            // A class without images, in a plan at most, weighs as if it had one.
            Ok(counts.iter().map(|&count| (share / count.max(1) as f64) as f32).collect())
        }
        ClassWeights::List(list) if list.len() == counts.len() => {
            Ok(list.iter().map(|&weight| weight as f32).collect())
        }
        ClassWeights::List(list) => {
            let (given, classes) = (list.len(), counts.len());
            Err(Error::input(format!(
                "--class-weights: {given} numbers for {classes} classes; give one a class, in byte order of their names"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::tree::Tree;

    fn labels(task: Task) -> Labels {
        let names = ["a", "b", "c"].map(str::to_owned);
        let tree = Tree::new(&names, &[None; 3], &[vec![0, 1]]).unwrap().0;
        Labels { tree: (task == Task::Hierarchical).then_some(tree), ..Labels::new(task, &names) }
    }

    #[test]
    fn each_task_has_its_loss() {
        let config = TrainConfig { label_smoothing: 0.1, ..TrainConfig::default() };
        let of = |config: &TrainConfig, task| criterion(config, &labels(task), &[1, 2, 3]);
        assert_eq!(of(&config, Task::Multiclass).unwrap(), Criterion::Classes { smoothing: 0.1, weights: None });
        let default = Asymmetric { gamma_positive: 0.0, gamma_negative: 1.0, clip: 0.05, positive_weight: 0.8 };
        let tree = Criterion::Labels { begins: [0, 2].into(), smoothing: 0.1, single: default };
        assert_eq!(of(&config, Task::Hierarchical).unwrap(), tree);
        assert!(of(&config, Task::Multilabel).unwrap_err().to_string().starts_with("--label-smoothing"));
        let config = TrainConfig { loss: Some(LabelLoss::Asymmetric), ..TrainConfig::default() };
        let alone = Criterion::Labels { begins: [0].into(), smoothing: 0.0, single: default };
        assert_eq!(of(&config, Task::Multilabel).unwrap(), alone);
        assert!(of(&config, Task::Multiclass).unwrap_err().to_string().starts_with("--loss"));
        assert_eq!(of(&TrainConfig::default(), Task::Multilabel).unwrap(), Criterion::Binary);
    }

    #[test]
    fn balanced_weights_are_one_on_average() {
        let config = TrainConfig { class_weights: Some(ClassWeights::Balanced), ..TrainConfig::default() };
        let Criterion::Classes { weights: Some(weights), .. } =
            criterion(&config, &labels(Task::Multiclass), &[1, 2, 3]).unwrap()
        else {
            panic!("no weights")
        };
        assert_eq!(weights.to_vec(), [2.0, 1.0, 2.0 / 3.0]);
        let config = TrainConfig { class_weights: Some(ClassWeights::List(vec![1.0; 2])), ..config };
        let error = criterion(&config, &labels(Task::Multiclass), &[1, 2, 3]).unwrap_err().to_string();
        assert!(error.contains("2 numbers for 3 classes"), "{error}");
    }
}
