//! What the outputs of a classifier stand for: `labels.json`.

use serde::{Deserialize, Serialize};

use super::metrics::argmax;
use super::thresholds::logit;
use super::tree::Tree;
use crate::config::Task;

/// Names of a head's outputs and how they are read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Labels {
    /// How the outputs are read.
    pub task: Task,
    /// Names in index order.
    #[serde(rename = "labels")]
    pub names: Vec<String>,
    /// Hierarchical: the tree of the labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
    /// Multi-label: the probability of each label from which on an image is given it; one half where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<Vec<f64>>,
}

impl Labels {
    /// Classes, or labels without a tree.
    pub fn new(task: Task, names: &[String]) -> Self {
        Self { task, names: names.to_vec(), tree: None, thresholds: None }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Whether a transformers folder says all of it: names and one class an image, or any number of labels.
    pub fn is_plain(&self) -> bool {
        self.tree.is_none() && self.thresholds.is_none()
    }

    /// What is wrong with them, such as a file may have it.
    pub fn fault(&self) -> Option<String> {
        let count = self.len();
        match (&self.tree, self.task) {
            (None, Task::Hierarchical) => return Some("task hierarchical, but there is no tree".into()),
            (Some(_), Task::Multiclass | Task::Multilabel) => {
                return Some(format!("task {}, but there is a tree", self.task.name()));
            }
            (Some(tree), Task::Hierarchical) if !tree.fits(count) => {
                return Some(format!("its tree is none of {count} labels"));
            }
            _ => {}
        }
        let thresholds = self.thresholds.as_ref()?;
        let fit = thresholds.len() == count && thresholds.iter().all(|p| (0.0..=1.0).contains(p));
        (!fit).then(|| format!("thresholds are not {count} numbers from 0 to 1"))
    }

    /// Multi-label: the labels whose probability is above their threshold.
    pub fn given(&self, logits: &[f32]) -> Vec<usize> {
        let above = |label: usize| self.thresholds.as_ref().map_or(0.0, |all| logit(all[label]));
        (0..self.len()).filter(|&label| f64::from(logits[label]) > above(label)).collect()
    }

    /// What an image shows by its logits: one class; the labels that it is given, perhaps none; in a tree a way from the root.
    pub fn answer(&self, logits: &[f32]) -> Vec<usize> {
        match (self.task, &self.tree) {
            (Task::Hierarchical, Some(tree)) => tree.predict(logits),
            (Task::Multiclass, _) => vec![argmax(logits)],
            _ => self.given(logits),
        }
    }

    /// The probabilities of an image's logits: a softmax over the classes (in a tree: of each head), else a sigmoid a label. In f64.
    pub fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        let begins = match (self.task, &self.tree) {
            (Task::Hierarchical, Some(tree)) => tree.begins(),
            (Task::Multiclass, _) => vec![0, logits.len()],
            _ => vec![0],
        };
        let mut probs: Vec<f32> = logits.iter().map(|&x| (1.0 / (1.0 + (-f64::from(x)).exp())) as f32).collect();
        for head in begins.windows(2).map(|ends| ends[0]..ends[1]) {
            let wide = || logits[head.clone()].iter().map(|&x| f64::from(x));
            let most = wide().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = wide().map(|x| (x - most).exp()).sum();
            probs[head.clone()].iter_mut().zip(wide()).for_each(|(p, x)| *p = ((x - most).exp() / sum) as f32);
        }
        probs
    }

    /// A label's name behind those of its ancestors, with slashes between; the name alone without a tree. A name that begins so already, because
    /// another label is called the same, is left as it is.
    pub fn full_name(&self, label: usize) -> String {
        let Some(parent) = self.tree.as_ref().and_then(|tree| tree.parent(label)) else {
            return self.names[label].clone();
        };
        let front = format!("{}/", self.full_name(parent));
        let name = &self.names[label];
        if name.starts_with(&front) { name.clone() } else { front + name }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_holds_what_there_is() {
        let names = ["a".to_owned(), "b".into()];
        let plain = Labels::new(Task::Multilabel, &names);
        assert_eq!(serde_json::to_string(&plain).unwrap(), r#"{"task":"multilabel","labels":["a","b"]}"#);
        let (tree, _) = Tree::new(&names, &[None, Some(0)], &[]).unwrap();
        let labels = Labels { task: Task::Hierarchical, tree: Some(tree), ..plain };
        let text = serde_json::to_string(&labels).unwrap();
        let read: Labels = serde_json::from_str(&text).unwrap();
        assert_eq!((read.fault(), &read), (None, &labels));
        assert_eq!(labels.full_name(1), "a/b");
        for bad in [
            r#"{"task":"hierarchical","labels":["a","b"]}"#,
            r#"{"task":"hierarchical","labels":["a","b"],"tree":{"parents":[1,0],"heads":[]}}"#,
            r#"{"task":"hierarchical","labels":["a","b"],"tree":{"parents":[null,9],"heads":[]}}"#,
            r#"{"task":"hierarchical","labels":["a","b"],"tree":{"parents":[null,null],"heads":[3]}}"#,
            r#"{"task":"multilabel","labels":["a","b"],"thresholds":[0.5]}"#,
            r#"{"task":"multiclass","labels":["a","b"],"tree":{"parents":[1,0],"heads":[]}}"#,
            r#"{"task":"multilabel","labels":["a"],"tree":{"parents":[1],"heads":[]}}"#,
            r#"{"task":"hierarchical","labels":["a"],"tree":{"parents":[0],"heads":[]}}"#,
            r#"{"task":"hierarchical","labels":["a","b"],"tree":{"parents":[null,null],"heads":[18446744073709551615,2]}}"#,
            r#"{"task":"hierarchical","labels":["a","b"],"tree":{"parents":[null,null],"heads":[2,0]}}"#,
            r#"{"task":"hierarchical","labels":["a","b"],"tree":{"parents":[null,null],"heads":[1]}}"#,
        ] {
            assert!(serde_json::from_str::<Labels>(bad).unwrap().fault().is_some(), "{bad}");
        }
    }

    #[test]
    fn labels_are_given_above_their_thresholds() {
        let mut labels = Labels::new(Task::Multilabel, &["a".to_owned(), "b".into()]);
        assert_eq!(labels.given(&[0.0, f32::MIN_POSITIVE]), [1]);
        labels.thresholds = Some(vec![0.2, 0.9]);
        assert_eq!(labels.given(&[-1.0, 2.0]), [0]);
    }
}
