//! Every image decoded once before the first step, so that a bad one costs no epoch.

use std::collections::HashSet;
use std::sync::mpsc;

use rayon::prelude::*;

use super::{Dataset, ImageCache, Item, plural};
use crate::{Error, Result};

/// An image that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BadImage {
    /// Its path.
    pub name: String,
    /// What is wrong with it, in one line.
    pub reason: String,
}

/// Decodes every image of every data set, in parallel, and keeps what fits in the cache.
///
/// With `skip_bad`, unreadable images are removed from the data sets and returned. The first data set is the one that is
/// trained or evaluated: there no class may lose all its images; the others must keep at least one image each.
/// `progress` is called on the caller's thread with the images done and their total.
///
/// # Errors
/// Without `skip_bad`, one line that lists up to five unreadable images and why.
pub fn verify(
    datasets: &mut [&mut Dataset],
    skip_bad: bool,
    cache: &ImageCache,
    progress: &dyn Fn(usize, usize),
) -> Result<Vec<BadImage>> {
    let mut bad = Vec::new();
    let mut bad_at = Vec::new();
    {
        let items: Vec<(usize, usize, &Item)> = datasets
            .iter()
            .enumerate()
            .flat_map(|(d, set)| set.items.iter().enumerate().map(move |(i, item)| (d, i, item)))
            .collect();
        for (at, reason) in failures(&items, cache, progress) {
            let (dataset, index, item) = items[at];
            bad.push(BadImage { name: item.source.name(), reason });
            bad_at.push((dataset, index));
        }
        if !bad.is_empty() && !skip_bad {
            return Err(Error::input(listing(&bad, items.len())));
        }
    }
    let bad_at: HashSet<(usize, usize)> = bad_at.into_iter().collect();
    for (d, dataset) in datasets.iter_mut().enumerate() {
        remove(dataset, |index| bad_at.contains(&(d, index)), d == 0)?;
    }
    Ok(bad)
}

/// The places in `items` of those that cannot be decoded, in order, each with its reason.
fn failures(
    items: &[(usize, usize, &Item)],
    cache: &ImageCache,
    progress: &dyn Fn(usize, usize),
) -> Vec<(usize, String)> {
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        scope.spawn(move || {
            items.par_iter().enumerate().for_each_with(sender, |sender, (at, (_, _, item))| {
                let failure = cache.get(&item.source).err().map(|e| reason(item, &e));
                // The receiver lives until the last sender is gone.
                let _ = sender.send((at, failure));
            });
        });
        for (done, (at, failure)) in receiver.iter().enumerate() {
            failures.extend(failure.map(|reason| (at, reason)));
            progress(done + 1, items.len());
        }
    });
    failures.sort_unstable();
    failures
}

/// The error's text without the file name in front of it.
fn reason(item: &Item, error: &Error) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", item.source)).unwrap_or(&text).to_owned()
}

fn listing(bad: &[BadImage], total: usize) -> String {
    let shown: Vec<_> = bad.iter().take(5).map(|b| format!("{} ({})", b.name, b.reason)).collect();
    let more = if bad.len() > 5 { format!(" and {} more", bad.len() - 5) } else { String::new() };
    format!(
        "{} of {} cannot be read: {}{more}: replace or remove them, or train with --skip-bad",
        bad.len(),
        plural(total, "image"),
        shown.join(", ")
    )
}

/// Takes the bad images out, unless too little would be left.
fn remove(dataset: &mut Dataset, is_bad: impl Fn(usize) -> bool, keep_every_class: bool) -> Result<()> {
    let before = dataset.class_counts();
    let mut index = 0;
    dataset.items.retain(|_| {
        index += 1;
        !is_bad(index - 1)
    });
    if index > 0 && dataset.items.is_empty() {
        let total = plural(index, "image");
        return Err(Error::input(format!("--skip-bad leaves nothing: none of {total} can be read")));
    }
    let after = dataset.class_counts();
    let lost = (0..before.len()).find(|&c| before[c] > 0 && after[c] == 0);
    if let Some(class) = lost.filter(|_| keep_every_class) {
        return Err(Error::input(format!(
            "--skip-bad leaves class {:?} without images: none of its {} can be read; add readable ones or remove the class",
            dataset.classes[class], before[class]
        )));
    }
    Ok(())
}
