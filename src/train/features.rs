//! What the head of a frozen backbone reads, computed once for each image and kept on the host.
//!
//! With `--strategy freeze` the backbone never changes, so an image that is not augmented has the same pooled feature in every epoch,
//! and since no operation before the head couples images, the same bits in every batch. A run with kept features is therefore the run
//! without, bit for bit: the head goes through the same batches in the same parts.

use std::cell::OnceCell;
use std::ops::Range;
use std::time::Instant;

use super::interrupt;
use super::model::{Model, head_width};
use super::run::Run;
use super::step::pixels;
use super::ui::{Bar, Ui};
use crate::autograd::{Array, Backend, Tape, Tensor};
use crate::config::{Augment, Strategy, TrainConfig};
use crate::data::{Batch, Loader};
use crate::vit::{Mode, Vit};
use crate::{Error, Result};

/// MiB of features that a run may keep, where this is set; 0 keeps none.
const LIMIT: &str = "PEFTK_FEATURE_CACHE";
/// What it is otherwise, in bytes.
const LIMIT_DEFAULT: u64 = 2 << 30;
const MIB: f64 = (1 << 20) as f64;

/// The features of a data set's images.
struct Features {
    width: usize,
    /// \[images, width\] in the data set's order.
    values: Vec<f32>,
}

impl Features {
    /// One pass over all images, `micro` at a time.
    fn compute<B: Backend>(model: &Model<B>, loader: &Loader, micro: Option<usize>, bar: &Bar) -> Result<Self> {
        let width = head_width(&model.vit.config, model.vit.pool);
        let (images, begun) = (loader.images(), Instant::now());
        let mut values = Vec::new();
        values.try_reserve_exact(images * width).map_err(|_| {
            Error::input(format!("there is no memory for the features of {images} images: set {LIMIT}=0 to keep none"))
        })?;
        for batch in loader.every_image() {
            interrupt::check()?;
            let batch = batch?;
            let count = batch.indices.len();
            let micro = micro.unwrap_or(count).clamp(1, count.max(1));
            for first in (0..count).step_by(micro) {
                let part = first..(first + micro).min(count);
                let tape = Tape::inference(&model.params);
                let pooled = model.vit.pooled(&tape, pixels(&batch, &part), part.len(), Mode::default())?;
                values.extend(pooled.array().download(model.params.backend())?);
            }
            bar.inc(count as u64);
            let speed = (values.len() / width) as f64 / begun.elapsed().as_secs_f64().max(1e-9);
            bar.set_message(format!("{speed:.1} images/s"));
        }
        Ok(Self { width, values })
    }

    /// The rows of these images, in their order.
    fn rows(&self, indices: &[usize]) -> Result<Vec<f32>> {
        let mut rows = Vec::with_capacity(indices.len() * self.width);
        for &index in indices {
            let row = self.values.get(index * self.width..(index + 1) * self.width);
            rows.extend_from_slice(row.ok_or_else(|| Error::Internal(format!("image {index} has no features")))?);
        }
        Ok(rows)
    }
}

/// A data set's batches, and its images' features once they are there.
pub(super) struct Batches {
    loader: Loader,
    keeps: bool,
    features: OnceCell<Features>,
}

impl Batches {
    /// Of a loader; with `keeps` its images' features are to be computed once. It must not augment then.
    fn new(loader: Loader, keeps: bool) -> Self {
        Self { loader, keeps, features: OnceCell::new() }
    }

    /// Images of the set.
    pub(super) fn images(&self) -> usize {
        self.loader.images()
    }

    /// Batches an epoch, the short last one included.
    pub(super) fn per_epoch(&self) -> usize {
        self.loader.batches_per_epoch()
    }

    /// Computes the features where they are to be kept and are not there yet. `bar` makes the progress bar over the images; it comes
    /// back after such a pass.
    pub(super) fn prepare<B: Backend>(
        &self,
        model: &Model<B>,
        micro: Option<usize>,
        bar: impl FnOnce(u64) -> Bar,
    ) -> Result<Option<Bar>> {
        if !self.keeps || self.features.get().is_some() {
            return Ok(None);
        }
        let bar = bar(self.loader.images() as u64);
        let features = Features::compute(model, &self.loader, micro, &bar)?;
        self.features.get_or_init(|| features);
        Ok(Some(bar))
    }

    /// One epoch's batches from `first` on: with images, or with features where these are there.
    pub(super) fn epoch(&self, epoch: usize, first: usize) -> impl Iterator<Item = Result<Batch>> + use<'_> {
        let features = self.features.get();
        let batches = match features {
            Some(_) => self.loader.epoch_without_images(epoch, first),
            None => self.loader.epoch(epoch, first),
        };
        batches.map(move |batch| {
            let mut batch = batch?;
            batch.features = features.map(|features| features.rows(&batch.indices)).transpose()?;
            Ok(batch)
        })
    }
}

/// The batches to train and to validate on. Features are kept wherever that is exact and within the limit; `ui` is told.
pub(super) fn batches(
    config: &TrainConfig,
    width: usize,
    train: Loader,
    val: Option<Loader>,
    ui: &Ui,
) -> Result<(Batches, Option<Batches>)> {
    let limit = limit()?;
    let frozen = config.strategy == Strategy::Freeze;
    let size = |loader: &Loader| (loader.images() * width * size_of::<f32>()) as u64;
    let mut left = limit;
    let mut keep = |loader: &Loader, which: &str, then: &str| {
        let bytes = size(loader);
        let images = loader.images();
        let mib = bytes as f64 / MIB;
        let fits = bytes <= left;
        if fits {
            left -= bytes;
            ui.note(&format!("{which}: features of {images} images are computed once and kept ({mib:.1} MiB){then}"));
        } else {
            ui.note(&format!(
                "{which}: features of {images} images would take {mib:.1} MiB of the {:.1} MiB that {LIMIT} leaves: computed in every epoch",
                left as f64 / MIB
            ));
        }
        fits
    };
    let keeps_train = frozen
        && config.augment == Augment::None
        && keep(&train, "freeze without augmentation", "; the head trains on them");
    let keeps_val = frozen && val.as_ref().is_some_and(|val| keep(val, "freeze, validation", ""));
    Ok((Batches::new(train, keeps_train), val.map(|val| Batches::new(val, keeps_val))))
}

impl<B: Backend> Run<'_, B> {
    /// Before the first step of a run or of its continuation: the training images' features, if they are kept.
    pub(super) fn prepare_training(&self) -> Result<()> {
        let bar = |images| self.ui.bar(images, "features");
        if let Some(bar) = self.train.prepare(&self.model, self.options.micro_batch, bar)? {
            bar.finish();
        }
        Ok(())
    }
}

/// Logits of a part of a batch: from its images, or where they are there from their features.
pub(super) fn logits<'m, B: Backend>(
    vit: &'m Vit,
    tape: &Tape<'m, B>,
    batch: &Batch,
    images: &Range<usize>,
    mode: Mode,
) -> Result<Tensor<B>> {
    let Some(features) = &batch.features else {
        return vit.logits(tape, pixels(batch, images), images.len(), mode);
    };
    let width = features.len() / batch.indices.len().max(1);
    let part = &features[images.start * width..images.end * width];
    let pooled = Array::upload(tape.backend(), part, &[images.len(), width])?;
    vit.classify(tape, &Tensor::constant(pooled), mode)
}

/// Bytes of features that a run may keep.
fn limit() -> Result<u64> {
    let Some(text) = std::env::var_os(LIMIT) else { return Ok(LIMIT_DEFAULT) };
    let mib =
        text.to_str().and_then(|text| text.trim().parse().ok()).filter(|mib: &f64| mib.is_finite() && *mib >= 0.0);
    let mib =
        mib.ok_or_else(|| Error::input(format!("{LIMIT}={}: expected a number of MiB of at least 0", text.display())))?;
    Ok((mib * MIB) as u64)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::{Resize, Task};
    use crate::cpu::Cpu;
    use crate::data::{Dataset, ImageCache, Item, Label, LoaderOptions, Source};
    use crate::io::{BackboneSpec, load};
    use crate::task::labels::Labels;

    const IMAGES: usize = 11;

    /// Two classes of files in `dir`, in shuffled and balanced batches of 4.
    fn loader(dir: &Path) -> Loader {
        let item = |number: usize| {
            let path = dir.join(format!("{number}.png"));
            let pixel = |x, y| image::Rgb([(x * 9) as u8, (y * 5) as u8, (number * 20) as u8]);
            image::RgbImage::from_fn(28, 28, pixel).save(&path).unwrap();
            Item { source: Source::File(path), label: Label::Class(usize::from(number > 7)) }
        };
        let classes = ["a", "b"].map(str::to_owned).to_vec();
        let set = Dataset { classes, items: (0..IMAGES).map(item).collect(), tree: None, task: Task::Multiclass };
        let options = LoaderOptions {
            batch_size: 4,
            input_size: 28,
            resize: Resize::Squash,
            augment: Augment::None,
            shuffle: true,
            balanced: true,
            seed: 3,
            on_device: false,
        };
        // No image is kept: who wants one again has to read its file.
        Loader::new(Arc::new(set), options, Arc::new(ImageCache::new(0))).unwrap()
    }

    #[test]
    fn once_the_features_are_there_no_image_is_read_again() {
        let config =
            TrainConfig { strategy: Strategy::Freeze, adapter: None, input_size: 28, ..TrainConfig::default() };
        let backbone = load(&BackboneSpec::Embedded, &mut |_| {}).unwrap();
        let labels = Labels::new(Task::Multiclass, &["a", "b"].map(str::to_owned));
        let cpu = Cpu::new(Some(1)).unwrap();
        let model = Model::for_training(cpu, &config, backbone, labels, &mut |_| {}).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let bar = |images| Ui::silent().bar(images, "features");
        let (kept, plain) = (Batches::new(loader(dir.path()), true), Batches::new(loader(dir.path()), false));
        assert!(kept.prepare(&model, Some(3), bar).unwrap().is_some());
        assert!(
            kept.prepare(&model, Some(3), bar).unwrap().is_none()
                && plain.prepare(&model, None, bar).unwrap().is_none()
        );

        let logits = |batch: &Batch| {
            let tape = Tape::inference(&model.params);
            let made = logits(&model.vit, &tape, batch, &(0..batch.size), Mode::default()).unwrap();
            made.array().download(model.params.backend()).unwrap()
        };
        let epochs = |batches: &Batches| {
            let all = (1..4).flat_map(|epoch| batches.epoch(epoch, epoch % 2).collect::<Vec<_>>());
            all.collect::<Result<Vec<Batch>>>()
        };
        let expected: Vec<_> = epochs(&plain).unwrap().iter().map(|b| (b.indices.clone(), logits(b))).collect();
        for number in 0..IMAGES {
            std::fs::remove_file(dir.path().join(format!("{number}.png"))).unwrap();
        }
        assert!(epochs(&plain).is_err());
        let found: Vec<_> = epochs(&kept).unwrap().iter().map(|b| (b.indices.clone(), logits(b))).collect();
        assert_eq!(found, expected);
        assert_eq!(found.iter().map(|(indices, _)| indices.len()).collect::<Vec<_>>(), [4, 3, 4, 4, 3, 4, 3]);
    }
}
