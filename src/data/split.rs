//! Holding images back for validation, and few-shot subsets; both by seed, whatever the file system's order.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Dataset, Item, Label};
use crate::config::Task;
use crate::{Error, Result};

/// A share of images to hold back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// The flag that asked for it.
    flag: &'static str,
    /// From 0 (none) to under 1.
    fraction: f64,
}

impl Share {
    /// An error unless it is from 0 to under 1.
    pub(super) fn of(flag: &'static str, fraction: f64) -> Result<Self> {
        if (0.0..1.0).contains(&fraction) {
            return Ok(Self { flag, fraction });
        }
        Err(Error::input(format!("{flag} must be at least 0 and less than 1, found {fraction}")))
    }

    /// Numbers drawn for one purpose say nothing of those for another.
    fn purpose(self) -> u64 {
        if self.flag == "--test-fraction" { 4 } else { 1 }
    }

    /// The other ways to have such images.
    fn mend(self) -> &'static str {
        if self.flag == "--test-fraction" {
            "add a test folder, or use 0 for no test images"
        } else {
            "give --val-data, or use 0 for no validation"
        }
    }
}

/// Holds back a share of the images for validation or testing; both parts keep the data set's order.
///
/// Multi-class: of each class the nearest whole number; in a tree of each deepest label. Multi-label: of all images, but never the last training image of
/// a label, so the share may come out smaller.
///
/// # Errors
/// A class would have no training image left, or nothing would be held back.
pub(super) fn hold_back(dataset: Dataset, asked: Share, seed: u64) -> Result<(Dataset, Dataset)> {
    let Share { flag, fraction } = asked;
    let share = |count: usize| (count as f64 * fraction).round() as usize;
    let order = shuffled(dataset.items.len(), seed, asked.purpose());
    let counts = dataset.class_counts();
    let mut left = counts.clone();
    let strata = (dataset.task != Task::Multilabel).then(|| {
        let mut strata = vec![0; counts.len()];
        dataset.items.iter().filter_map(|item| dataset.stratum(item)).for_each(|class| strata[class] += 1);
        strata
    });
    let mut taken = vec![0; counts.len()];
    let mut held = vec![false; dataset.items.len()];
    let mut total = 0;
    for &i in &order {
        let item = &dataset.items[i];
        match (dataset.stratum(item), &strata) {
            (Some(class), Some(strata)) => {
                let labels = item.label.classes();
                // A label that few images have beside others keeps one to train on.
                let spares = dataset.tree.is_none() || labels.iter().all(|&c| left[c] > 1);
                held[i] = taken[class] < share(strata[class]) && spares;
                taken[class] += usize::from(held[i]);
                labels.iter().for_each(|&c| left[c] -= usize::from(held[i]));
            }
            _ => {
                let labels = item.label.classes();
                held[i] = total < share(order.len()) && labels.iter().all(|&c| left[c] > 1);
                labels.iter().for_each(|&c| left[c] -= usize::from(held[i]));
            }
        }
        total += usize::from(held[i]);
    }
    if let Some(class) = (0..counts.len()).find(|&c| counts[c] > 0 && left[c] == 0) {
        return Err(Error::input(format!(
            "{flag} {fraction} takes all {} images of class {:?}, leaving none to train on; lower it or add images",
            counts[class], dataset.classes[class]
        )));
    }
    if total == 0 {
        return Err(Error::input(format!(
            "{flag} {fraction} of {} images rounds to none a class; raise it, {}",
            order.len(),
            asked.mend()
        )));
    }
    let part = |out: bool| Dataset {
        classes: dataset.classes.clone(),
        items: dataset.items.iter().zip(&held).filter(|(_, h)| **h == out).map(|(i, _)| i.clone()).collect(),
        task: dataset.task,
        tree: dataset.tree.clone(),
    };
    Ok((part(false), part(true)))
}

/// Seed of splits that are to be the same for everybody.
const FIXED: u64 = 0;

/// 60, 20 and 20 % of each class (of a multi-label set: of all), whole groups at a time; each part keeps the order.
pub(super) fn three_ways(items: Vec<Item>, group: impl Fn(&Item) -> String) -> [Vec<Item>; 3] {
    // A group is counted where its first image is.
    let class = |item: &Item| if let Label::Class(class) = item.label { class } else { 0 };
    let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        groups.entry(group(item)).or_default().push(index);
    }
    let groups: Vec<Vec<usize>> = groups.into_values().collect();
    let mut total: BTreeMap<usize, usize> = BTreeMap::new();
    groups.iter().for_each(|group| *total.entry(class(&items[group[0]])).or_default() += group.len());
    let mut taken: BTreeMap<usize, [usize; 3]> = BTreeMap::new();
    let mut part_of = vec![0; items.len()];
    for index in shuffled(groups.len(), FIXED, 3) {
        let (class, group) = (class(&items[groups[index][0]]), &groups[index]);
        let (taken, total) = (taken.entry(class).or_default(), total[&class]);
        // The part that is furthest behind its share.
        let lacks = |part: usize| [0.6, 0.2, 0.2][part] * total as f64 - taken[part] as f64;
        let part = (0..3).max_by(|&a, &b| lacks(a).total_cmp(&lacks(b)).then(b.cmp(&a))).unwrap_or(0);
        taken[part] += group.len();
        group.iter().for_each(|&item| part_of[item] = part);
    }
    let mut parts = [Vec::new(), Vec::new(), Vec::new()];
    items.into_iter().zip(part_of).for_each(|(item, part)| parts[part].push(item));
    parts
}

/// Keeps at most `shots` images a class, in a tree of each deepest label, in the data set's order. A multi-label image is kept if one of its labels still
/// has fewer (an image without labels: if fewer of those are kept), so a label that comes with rarer ones may have more.
///
/// # Errors
/// `shots` is 0.
pub(super) fn few_shot(dataset: &mut Dataset, shots: usize, seed: u64) -> Result<()> {
    if shots == 0 {
        return Err(Error::input("--shots must be at least 1, found 0"));
    }
    let classes = dataset.classes.len();
    let mut kept = vec![0; classes + 1];
    let mut keep = vec![false; dataset.items.len()];
    for i in shuffled(dataset.items.len(), seed, 2) {
        let item = &dataset.items[i];
        let mut labels = match dataset.stratum(item) {
            Some(class) => vec![class],
            None => item.label.classes(),
        };
        if labels.is_empty() {
            labels.push(classes);
        }
        keep[i] = labels.iter().any(|&c| kept[c] < shots);
        labels.iter().for_each(|&c| kept[c] += usize::from(keep[i]));
    }
    let mut keep = keep.into_iter();
    dataset.items.retain(|_| keep.next() == Some(true));
    Ok(())
}

/// The numbers below `count` in an order of their own for each (seed, purpose).
fn shuffled(count: usize, seed: u64, purpose: u64) -> Vec<usize> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(purpose);
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut rng);
    order
}
