//! Measures of a classifier by a tree of labels, exact over a whole set.

use std::sync::Arc;

use serde::Serialize;

use super::metrics::{ClassCounts, mean, ratio};
use super::tree::Tree;

/// Collects (logits, rows) pairs batch by batch.
#[derive(Clone, Debug)]
pub struct TreeCounter {
    tree: Arc<Tree>,
    images: u64,
    /// Images whose whole path is right.
    paths: u64,
    /// Images whose heads and labels fit together before anything is made to fit.
    agreeing: u64,
    /// (asked, right) by level.
    levels: Vec<(u64, u64)>,
    /// (asked, right) of each head by itself, then of each label by itself.
    own: Vec<(u64, u64)>,
    per_label: Vec<ClassCounts>,
}

/// Measures over all images seen, each from 0 to 1.
///
/// An image is asked about a head if it has a label in it, and about a label by itself if it is known whether it has it, and has its parent.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TreeMetrics {
    /// Images seen.
    pub images: u64,
    /// Share whose predicted labels are right wherever they are asked about.
    pub path_accuracy: f64,
    /// Share of right answers at each level, the roots' first.
    pub level_accuracy: Vec<f64>,
    /// Mean over heads and labels by themselves of the share that each gets right on its own, as in OTX, class 0 included. Only those that
    /// were asked about.
    pub mean_accuracy: f64,
    /// Share of images on which parents and children agree before a path is made of them ([`Tree::agrees`]).
    pub consistency: f64,
    /// Mean F1 over the labels that have images or were predicted.
    pub macro_f1: f64,
    /// Counts by label.
    pub per_label: Vec<ClassCounts>,
}

impl TreeCounter {
    /// A counter for a tree that has seen nothing.
    pub fn new(tree: Arc<Tree>) -> Self {
        let labels = tree.labels();
        let own = tree.heads().count() + tree.single().len();
        Self {
            images: 0,
            paths: 0,
            agreeing: 0,
            levels: vec![(0, 0); tree.levels()],
            own: vec![(0, 0); own],
            per_label: vec![ClassCounts { support: 0, predicted: 0, correct: 0 }; labels],
            tree,
        }
    }

    /// Adds images: `logits` and `rows` are \[images, labels\], rows as [`Tree::row`] makes them.
    pub fn add(&mut self, logits: &[f32], rows: &[f32]) {
        let labels = self.tree.labels().max(1);
        for (logits, row) in logits.chunks_exact(labels).zip(rows.chunks_exact(labels)) {
            self.add_one(logits, row);
        }
    }

    fn add_one(&mut self, logits: &[f32], row: &[f32]) {
        let tree = self.tree.clone();
        let predicted = tree.predict(logits);
        let mut all_right = true;
        let count = |place: &mut (u64, u64), right: bool| {
            place.0 += 1;
            place.1 += u64::from(right);
        };
        for (number, head) in tree.heads().enumerate() {
            let Some(truth) = head.clone().find(|&label| row[label] > 0.5) else { continue };
            let right = predicted.contains(&truth);
            all_right &= right;
            count(&mut self.levels[tree.depth(truth)], right);
            let highest = head.clone().reduce(|best, label| if logits[label] > logits[best] { label } else { best });
            count(&mut self.own[number], highest == Some(truth));
            self.per_label[truth].support += 1;
            for label in head.filter(|label| predicted.contains(label)) {
                self.per_label[label].predicted += 1;
                self.per_label[label].correct += u64::from(label == truth);
            }
        }
        let heads = tree.heads().count();
        for (number, label) in tree.single().enumerate() {
            if row[label] < 0.0 {
                continue;
            }
            let (truth, taken) = (row[label] > 0.5, predicted.contains(&label));
            count(&mut self.own[heads + number], truth == (logits[label] > 0.0));
            if tree.parent(label).is_some_and(|parent| row[parent] < 0.5) {
                continue;
            }
            all_right &= truth == taken;
            count(&mut self.levels[tree.depth(label)], truth == taken);
            let counts = &mut self.per_label[label];
            counts.support += u64::from(truth);
            counts.predicted += u64::from(taken);
            counts.correct += u64::from(truth && taken);
        }
        self.images += 1;
        self.paths += u64::from(all_right);
        self.agreeing += u64::from(tree.agrees(logits, &predicted));
    }

    /// The measures so far; all 0 before the first image.
    pub fn metrics(&self) -> TreeMetrics {
        let asked = self.own.iter().filter(|own| own.0 > 0);
        let seen = self.per_label.iter().filter(|c| c.support + c.predicted > 0);
        TreeMetrics {
            images: self.images,
            path_accuracy: ratio(self.paths, self.images),
            level_accuracy: self.levels.iter().map(|&(asked, right)| ratio(right, asked)).collect(),
            mean_accuracy: mean(asked.map(|&(asked, right)| ratio(right, asked))),
            consistency: ratio(self.agreeing, self.images),
            macro_f1: mean(seen.map(|c| ratio(2 * c.correct, c.support + c.predicted))),
            per_label: self.per_label.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // {a, b}; {a1, a2} under a; s by itself.
        let names: Vec<String> = ["a", "b", "a1", "a2", "s"].map(str::to_owned).to_vec();
        let parents = [None, None, Some(0), Some(0), None];
        let (tree, _) = Tree::new(&names, &parents, &[vec![0, 1], vec![2, 3]]).unwrap();
        let mut counter = TreeCounter::new(Arc::new(tree.clone()));
        let row = |labels: &[usize], unknown: &[usize]| tree.row(labels, unknown).unwrap();
        // a > a2 with s, right; a > a1, taken for a > a2; b with s unknown, taken for a; an image that is a and no more is known.
        counter.add(&[2.0, 1.0, 0.0, 1.0, 1.0], &row(&[3, 4], &[]));
        counter.add(&[2.0, 1.0, 0.0, 1.0, -1.0], &row(&[2], &[]));
        counter.add(&[2.0, 1.0, 0.0, 1.0, 5.0], &row(&[1], &[4]));
        counter.add(&[2.0, 1.0, 0.0, 1.0, -1.0], &row(&[0], &[]));
        let metrics = counter.metrics();
        assert_eq!((metrics.images, metrics.path_accuracy, metrics.consistency), (4, 0.5, 1.0));
        // Roots: 3 of 4 in the head, 3 of 3 by itself; below: 1 of 2.
        assert_eq!(metrics.level_accuracy, [6.0 / 7.0, 0.5]);
        assert_eq!(metrics.mean_accuracy, (0.75 + 0.5 + 1.0) / 3.0);
        let counts = |label: usize| {
            let ClassCounts { support, predicted, correct } = metrics.per_label[label];
            (support, predicted, correct)
        };
        assert_eq!((counts(0), counts(1), counts(2)), ((3, 4, 3), (1, 0, 0), (1, 0, 0)));
        assert_eq!((counts(3), counts(4)), ((1, 2, 1), (1, 1, 1)));
        assert_eq!(TreeCounter::new(Arc::new(tree)).metrics().path_accuracy, 0.0);
    }
}
