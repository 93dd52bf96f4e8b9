//! What a run reads before its first step: data, backbone, and a check of every image.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ui::Ui;
use crate::config::TrainConfig;
use crate::data::{self, ImageCache, OpenOptions, Source, Splits};
use crate::io::{Backbone, BackboneSpec};
use crate::{Error, Result};

/// The run's data, or the embedded set.
pub fn open_data(config: &TrainConfig) -> Result<Splits> {
    let options = OpenOptions {
        format: config.format,
        task: config.task,
        val_data: config.val_data.clone(),
        val_fraction: config.val_fraction,
        test_fraction: config.test_fraction,
        seed: config.split_seed.unwrap_or(config.seed),
        shots: config.shots,
    };
    match &config.data {
        Some(dir) => data::open(dir, &options),
        None => data::embedded(&options),
    }
}

/// Images to train on and to validate on.
pub fn counts(splits: &Splits) -> (usize, usize) {
    (splits.train.items.len(), splits.val.as_ref().map_or(0, |set| set.items.len()))
}

/// What a run trains and validates on, in short: file names, labels and their order, by 64-bit FNV-1a. Folders may be moved.
pub fn fingerprint(splits: &Splits) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut mix = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    for set in std::iter::once(&splits.train).chain(&splits.val) {
        set.classes.iter().for_each(|class| mix(class));
        for item in &set.items {
            let name = item.source.name();
            mix(name.rsplit(['/', '\\']).next().unwrap_or(&name));
            mix(&format!("{:?}", item.label.classes()));
        }
        mix("");
    }
    format!("{hash:016x}")
}

/// A backbone as `--backbone` names it; none: the embedded one.
pub fn load_backbone(name: Option<&str>, ui: &Ui) -> Result<Backbone> {
    let spec = name.map_or(Ok(BackboneSpec::Embedded), BackboneSpec::parse)?;
    crate::io::load(&spec, &mut |note| ui.note(note))
}

/// A run's images, opened and read once: for several runs on the same.
#[derive(Clone)]
pub struct Images {
    /// What is trained, validated and tested on.
    pub splits: Splits,
    /// What was decoded, as far as it is kept.
    pub cache: Arc<ImageCache>,
}

impl Images {
    /// Opens what `config` names and decodes every image of it once, those for testing too. Decoded images go into `cache`, which sets may share: the
    /// caller says what it holds.
    ///
    /// # Errors
    /// Whatever is wrong with the data.
    pub fn open(config: &TrainConfig, cache: Arc<ImageCache>, ui: &Ui) -> Result<Self> {
        let mut splits = open_data(config)?;
        read_all(&mut splits, true, config.skip_bad, &cache, ui)?;
        Ok(Self { splits, cache })
    }

    /// Bytes of all images in files of their own: a second fact, beside names and labels, by which others of the same names are told.
    pub fn bytes(&self) -> u64 {
        let parts = [Some(&self.splits.train), self.splits.val.as_ref(), self.splits.test.as_ref()];
        let items = parts.into_iter().flatten().flat_map(|part| &part.items);
        let size = |source: &Source| match source {
            Source::File(path) => std::fs::metadata(path).map_or(0, |file| file.len()),
            Source::Memory { bytes, .. } => bytes.len() as u64,
            Source::Grey { .. } | Source::Packed { .. } => 0,
        };
        items.map(|item| size(&item.source)).sum()
    }

    /// Images of all parts.
    pub fn count(&self) -> usize {
        let parts = [Some(&self.splits.train), self.splits.val.as_ref(), self.splits.test.as_ref()];
        parts.into_iter().flatten().map(|part| part.items.len()).sum()
    }
}

/// Decodes every image for training and validation once and says how many are kept; what cannot be read stops the run or, with --skip-bad, is
/// listed and left out.
pub fn verify(splits: &mut Splits, skip_bad: bool, cache: &ImageCache, ui: &Ui) -> Result<()> {
    let good = read_all(splits, false, skip_bad, cache, ui)?;
    ui.note(&cache.words(good));
    Ok(())
}

/// Decodes every image once (those for testing where they are used), how many could be; what cannot be read stops the run or, with --skip-bad, is listed and left out.
fn read_all(splits: &mut Splits, tests: bool, skip_bad: bool, cache: &ImageCache, ui: &Ui) -> Result<usize> {
    let test = splits.test.as_mut().filter(|_| tests);
    let mut sets: Vec<_> = std::iter::once(&mut splits.train).chain(splits.val.as_mut()).chain(test).collect();
    let total: usize = sets.iter().map(|set| set.items.len()).sum();
    let bar = std::cell::RefCell::new((ui.bar(total as u64, "reading images"), 0));
    let bad = data::verify(&mut sets, skip_bad, cache, &|done, _| {
        let (bar, shown) = &mut *bar.borrow_mut();
        bar.inc((done - *shown) as u64);
        *shown = done;
    })?;
    drop(sets);
    let (bar, _) = bar.into_inner();
    bar.finish();
    let good = total - bad.len();
    for image in bad {
        ui.note(&format!("skipped {}: {}", image.name, image.reason));
    }
    Ok(good)
}

/// A run may be resumed, and its model used, from another folder: its inputs are remembered in full.
pub fn make_paths_absolute(config: &mut TrainConfig) -> Result<()> {
    let absolute =
        |path: &Path| -> Result<PathBuf> { std::path::absolute(path).map_err(|e| Error::io("find", path, e)) };
    for path in
        [&mut config.data, &mut config.val_data, &mut config.init_adapter, &mut config.cache.dir].into_iter().flatten()
    {
        *path = absolute(path)?;
    }
    if let Some(name) = &mut config.backbone
        && matches!(BackboneSpec::parse(name)?, BackboneSpec::Folder(_) | BackboneSpec::File(_))
    {
        *name = absolute(Path::new(name))?
            .into_os_string()
            .into_string()
            .map_err(|_| Error::input(format!("--backbone {name}: the path is not UTF-8")))?;
    }
    Ok(())
}
