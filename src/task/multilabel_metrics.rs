//! Measures of a multi-label classifier, exact over a whole set.

use serde::Serialize;

use super::metrics::{mean, ratio};
use super::thresholds::{self, best_f1};

/// Collects (logits, labels) pairs batch by batch. It keeps them all, since average precision needs their order:
/// 5 bytes an image and label. Pairs of which nobody knows whether the image has the label count for nothing.
#[derive(Clone, Debug)]
pub struct LabelCounter {
    labels: usize,
    logits: Vec<f32>,
    truths: Vec<Option<bool>>,
    /// The logit of each label above which an image is given it.
    above: Vec<f64>,
}

/// The counts of one label at its threshold, of the images of which it is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LabelCounts {
    /// Images that have the label.
    pub support: u64,
    /// Images that were given it.
    pub predicted: u64,
    /// Images that have it and were given it.
    pub correct: u64,
    /// Average precision; `None` where no image has the label.
    pub average_precision: Option<f64>,
}

/// Measures over all images seen, each from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelMetrics {
    /// Images seen.
    pub images: u64,
    /// Mean of average precision over the labels that have images.
    pub map_macro: f64,
    /// Average precision over all pairs of image and label at once.
    pub map_micro: f64,
    /// Share of pairs of image and label decided rightly at the thresholds, probability 0.5 if there are none.
    pub binary_accuracy: f64,
    /// Mean F1 at the thresholds over the labels that have images or were predicted.
    pub f1_macro: f64,
    /// F1 at the thresholds over all pairs at once.
    pub f1_micro: f64,
    /// Counts by label.
    pub per_label: Vec<LabelCounts>,
}

impl LabelCounter {
    /// A counter for `labels` labels that has seen nothing. `thresholds` are probabilities, one a label; one half if there are none.
    pub fn new(labels: usize, thresholds: Option<&[f64]>) -> Self {
        let above = (0..labels).map(|label| {
            thresholds.and_then(|all| all.get(label)).map_or(0.0, |&probability| thresholds::logit(probability))
        });
        Self { labels, logits: Vec::new(), truths: Vec::new(), above: above.collect() }
    }

    /// Adds images: `logits` and `rows` are [images, labels], rows of 1, 0 and -1 (unknown). What lies beyond the shorter of the two is not
    /// counted.
    pub fn add(&mut self, logits: &[f32], rows: &[f32]) {
        let whole = logits.len().min(rows.len()) / self.labels.max(1) * self.labels;
        self.logits.extend(&logits[..whole]);
        self.truths.extend(rows[..whole].iter().map(|&truth| (truth >= 0.0).then_some(truth > 0.5)));
    }

    /// The probability of each label from which on its F1 is highest on the images so far.
    pub fn best_thresholds(&self) -> Vec<f64> {
        (0..self.labels).map(|label| best_f1(self.pairs(label))).collect()
    }

    /// (logit, truth) of a label's images of which it is known.
    fn pairs(&self, label: usize) -> Vec<(f32, bool)> {
        let truths = self.truths.iter().skip(label).step_by(self.labels);
        let logits = self.logits.iter().skip(label).step_by(self.labels);
        logits.zip(truths).filter_map(|(&logit, &truth)| Some((logit, truth?))).collect()
    }

    /// The measures so far; all 0 before the first image.
    pub fn metrics(&self) -> LabelMetrics {
        let per_label: Vec<LabelCounts> = (0..self.labels).map(|label| self.counts(label)).collect();
        let sum = |of: fn(&LabelCounts) -> u64| per_label.iter().map(of).sum::<u64>();
        let (support, predicted, correct) = (sum(|c| c.support), sum(|c| c.predicted), sum(|c| c.correct));
        let all: Vec<(f32, bool)> =
            self.logits.iter().zip(&self.truths).filter_map(|(&logit, &truth)| Some((logit, truth?))).collect();
        let pairs = all.len() as u64;
        let seen = per_label.iter().filter(|c| c.support + c.predicted > 0);
        LabelMetrics {
            images: (self.truths.len() / self.labels.max(1)) as u64,
            map_macro: mean(per_label.iter().filter_map(|c| c.average_precision)),
            map_micro: average_precision(all).unwrap_or(0.0),
            // Wrong are the missed and the wrongly given.
            binary_accuracy: ratio(pairs + 2 * correct - support - predicted, pairs),
            f1_macro: mean(seen.map(|c| ratio(2 * c.correct, c.support + c.predicted))),
            f1_micro: ratio(2 * correct, support + predicted),
            per_label,
        }
    }

    fn counts(&self, label: usize) -> LabelCounts {
        let pairs = self.pairs(label);
        let given = |logit: f32| f64::from(logit) > self.above[label];
        let count = |is: &dyn Fn(&(f32, bool)) -> bool| pairs.iter().filter(|pair| is(pair)).count() as u64;
        LabelCounts {
            support: count(&|&(_, truth)| truth),
            predicted: count(&|&(logit, _)| given(logit)),
            correct: count(&|&(logit, truth)| truth && given(logit)),
            average_precision: average_precision(pairs),
        }
    }
}

/// The sum over falling thresholds of precision times the recall gained; equal logits share a threshold. `None` without a
/// true pair.
fn average_precision(mut pairs: Vec<(f32, bool)>) -> Option<f64> {
    let support = pairs.iter().filter(|pair| pair.1).count() as u64;
    if support == 0 {
        return None;
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut taken, mut correct, mut sum) = (0u64, 0u64, 0.0);
    for equals in pairs.chunk_by(|a, b| a.0 == b.0) {
        let gained = equals.iter().filter(|pair| pair.1).count() as u64;
        taken += equals.len() as u64;
        correct += gained;
        sum += gained as f64 * ratio(correct, taken);
    }
    Some(sum / support as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn average_precision_by_hand() {
        // In falling order: true, false, true: (1/1 + 2/3) / 2.
        let ap = average_precision(vec![(0.1, true), (0.9, true), (0.5, false)]).unwrap();
        assert!((ap - (1.0 + 2.0 / 3.0) / 2.0).abs() < 1e-15);
        // All equal: one threshold, precision 1/3.
        assert_eq!(average_precision(vec![(0.5, true), (0.5, false), (0.5, false)]), Some(1.0 / 3.0));
        assert_eq!(average_precision(vec![(0.5, false)]), None);
    }

    #[test]
    fn measures_by_hand() {
        // Three images, two labels. Label 0: logits 2, -1, 1 for true, true, false. Label 1: -1, 3, -2 for false, true, false.
        let mut counter = LabelCounter::new(2, None);
        counter.add(&[2.0, -1.0], &[1.0, 0.0]);
        counter.add(&[-1.0, 3.0, 1.0, -2.0], &[1.0, 1.0, 0.0, 0.0]);
        let metrics = counter.metrics();
        let first = &metrics.per_label[0];
        assert_eq!((first.support, first.predicted, first.correct), (2, 2, 1));
        let ap = (1.0 + 2.0 / 3.0) / 2.0;
        assert!((first.average_precision.unwrap() - ap).abs() < 1e-15);
        assert!((metrics.map_macro - (ap + 1.0) / 2.0).abs() < 1e-15);
        // All pairs, falling: 3 true, 2 true, 1 false, then -1 true and -1 false together: (1 + 1 + 3/5) / 3.
        assert!((metrics.map_micro - 2.6 / 3.0).abs() < 1e-15);
        assert_eq!(metrics.images, 3);
        assert_eq!(metrics.binary_accuracy, 4.0 / 6.0);
        assert_eq!(metrics.f1_micro, 4.0 / 6.0);
        assert_eq!(metrics.f1_macro, (0.5 + 1.0) / 2.0);
    }

    #[test]
    fn labels_without_images() {
        let mut counter = LabelCounter::new(2, None);
        counter.add(&[-1.0, -1.0], &[0.0, 0.0]);
        let metrics = counter.metrics();
        assert_eq!((metrics.map_macro, metrics.map_micro, metrics.f1_macro, metrics.f1_micro), (0.0, 0.0, 0.0, 0.0));
        assert_eq!(metrics.binary_accuracy, 1.0);
        assert_eq!(LabelCounter::new(2, None).metrics().images, 0);
    }

    #[test]
    fn unknown_pairs_count_for_nothing() {
        let mut counter = LabelCounter::new(2, None);
        counter.add(&[2.0, 9.0, -1.0, -1.0], &[1.0, -1.0, 1.0, 0.0]);
        let metrics = counter.metrics();
        assert_eq!((metrics.images, metrics.binary_accuracy), (2, 2.0 / 3.0));
        assert_eq!((metrics.per_label[1].predicted, metrics.per_label[1].average_precision), (0, None));
    }

    #[test]
    fn thresholds_decide_who_is_given_a_label() {
        let mut counter = LabelCounter::new(1, None);
        counter.add(&[-3.0, -2.0, -1.0], &[0.0, 1.0, 1.0]);
        assert_eq!(counter.metrics().f1_micro, 0.0);
        let thresholds = counter.best_thresholds();
        assert!((thresholds::logit(thresholds[0]) + 2.5).abs() < 1e-9, "{thresholds:?}");
        let mut tuned = LabelCounter::new(1, Some(&thresholds));
        tuned.add(&[-3.0, -2.0, -1.0], &[0.0, 1.0, 1.0]);
        assert_eq!(tuned.metrics().f1_micro, 1.0);
    }
}
