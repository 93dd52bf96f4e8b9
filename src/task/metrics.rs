//! Measures of a multi-class classifier, exact over a whole set: counts are integers, means are f64.

use serde::Serialize;

/// Collects (logits, class) pairs batch by batch.
#[derive(Clone, Debug)]
pub struct ClassCounter {
    classes: usize,
    /// [true class, predicted class], row by row.
    confusion: Vec<u64>,
    in_top5: u64,
}

/// The counts of one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ClassCounts {
    /// Images of the class.
    pub support: u64,
    /// Images taken for the class.
    pub predicted: u64,
    /// Images of the class taken for it.
    pub correct: u64,
}

/// Measures over all images seen, each from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassMetrics {
    /// Images seen.
    pub images: u64,
    /// Share whose highest logit is their class's (of equals the first counts as highest).
    pub top1: f64,
    /// Share whose class is among the five highest.
    pub top5: f64,
    /// Mean recall over the classes that have images.
    pub balanced_accuracy: f64,
    /// Mean F1 over the classes that have images or were predicted.
    pub macro_f1: f64,
    /// Counts by class.
    pub per_class: Vec<ClassCounts>,
    /// Images by [true class][predicted class].
    pub confusion: Vec<Vec<u64>>,
}

impl ClassCounter {
    /// A counter for `classes` classes that has seen nothing.
    pub fn new(classes: usize) -> Self {
        Self { classes, confusion: vec![0; classes * classes], in_top5: 0 }
    }

    /// Adds images: `logits` is [images, classes], `labels` holds each image's class. What lies beyond the shorter of the two
    /// and labels that are no class are not counted: the data's reader has refused them.
    pub fn add(&mut self, logits: &[f32], labels: &[usize]) {
        for (row, &label) in logits.chunks_exact(self.classes.max(1)).zip(labels) {
            if label < self.classes {
                self.confusion[label * self.classes + argmax(row)] += 1;
                self.in_top5 += u64::from(place(row, label) < 5);
            }
        }
    }

    /// The measures so far; all 0 before the first image.
    pub fn metrics(&self) -> ClassMetrics {
        let n = self.classes;
        let confusion: Vec<Vec<u64>> = self.confusion.chunks_exact(n.max(1)).map(<[u64]>::to_vec).collect();
        let per_class: Vec<ClassCounts> = (0..n)
            .map(|c| ClassCounts {
                support: confusion[c].iter().sum(),
                predicted: confusion.iter().map(|row| row[c]).sum(),
                correct: confusion[c][c],
            })
            .collect();
        let images = per_class.iter().map(|c| c.support).sum();
        let correct = per_class.iter().map(|c| c.correct).sum();
        let with_images = per_class.iter().filter(|c| c.support > 0);
        let seen = per_class.iter().filter(|c| c.support + c.predicted > 0);
        ClassMetrics {
            images,
            top1: ratio(correct, images),
            top5: ratio(self.in_top5, images),
            balanced_accuracy: mean(with_images.map(|c| ratio(c.correct, c.support))),
            macro_f1: mean(seen.map(|c| ratio(2 * c.correct, c.support + c.predicted))),
            per_class,
            confusion,
        }
    }
}

/// Index of the highest logit, the first of equals.
pub fn argmax(logits: &[f32]) -> usize {
    logits.iter().enumerate().fold(0, |best, (i, &x)| if x > logits[best] { i } else { best })
}

/// How many logits come before that of `label`: those above it and equals before it.
fn place(logits: &[f32], label: usize) -> usize {
    let own = logits[label];
    logits.iter().enumerate().filter(|&(i, &x)| x > own || (x == own && i < label)).count()
}

/// `part / whole`, 0 of nothing.
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The mean, 0 of nothing.
pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of `classes` logits that are highest at `class`.
    fn one_hot(classes: usize, class: usize) -> Vec<f32> {
        (0..classes).map(|c| f32::from(u8::from(c == class))).collect()
    }

    #[test]
    fn by_hand() {
        // True classes 0 0 0 1 1 2, predicted 0 0 1 1 0 2; a fourth class never occurs.
        let mut counter = ClassCounter::new(4);
        for (truth, predicted) in [(0, 0), (0, 0), (0, 1), (1, 1), (1, 0), (2, 2)] {
            counter.add(&one_hot(4, predicted), &[truth]);
        }
        let metrics = counter.metrics();
        assert_eq!(metrics.images, 6);
        assert_eq!(metrics.top1, 4.0 / 6.0);
        assert_eq!(metrics.top5, 1.0);
        assert!((metrics.balanced_accuracy - (2.0 / 3.0 + 0.5 + 1.0) / 3.0).abs() < 1e-15);
        // F1: 4 / 6, 2 / 4, 2 / 2.
        assert!((metrics.macro_f1 - (2.0 / 3.0 + 0.5 + 1.0) / 3.0).abs() < 1e-15);
        assert_eq!(metrics.per_class[0], ClassCounts { support: 3, predicted: 3, correct: 2 });
        assert_eq!(metrics.per_class[3], ClassCounts { support: 0, predicted: 0, correct: 0 });
        assert_eq!(metrics.confusion, [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]);
    }

    #[test]
    fn a_class_only_predicted_counts_in_f1_alone() {
        let mut counter = ClassCounter::new(2);
        counter.add(&[1.0, 0.0, 0.0, 1.0], &[0, 0]);
        let metrics = counter.metrics();
        assert_eq!(metrics.balanced_accuracy, 0.5);
        assert_eq!(metrics.macro_f1, (2.0 / 3.0 + 0.0) / 2.0);
    }

    #[test]
    fn top5_and_equals() {
        let falling: Vec<f32> = (0..7).map(|i| -(i as f32)).collect();
        for (label, top1, top5) in [(0, 1.0, 1.0), (4, 0.0, 1.0), (5, 0.0, 0.0)] {
            let mut counter = ClassCounter::new(7);
            counter.add(&falling, &[label]);
            assert_eq!((counter.metrics().top1, counter.metrics().top5), (top1, top5));
        }
        // All equal: the first is the prediction and the first five are the top five.
        let mut counter = ClassCounter::new(7);
        counter.add(&[0.0; 14], &[4, 5]);
        assert_eq!((counter.metrics().top1, counter.metrics().top5), (0.0, 0.5));
        assert_eq!(counter.metrics().per_class[0].predicted, 2);
    }

    #[test]
    fn nothing_seen_is_zero() {
        let metrics = ClassCounter::new(3).metrics();
        assert_eq!((metrics.images, metrics.top1, metrics.balanced_accuracy, metrics.macro_f1), (0, 0.0, 0.0, 0.0));
    }
}
