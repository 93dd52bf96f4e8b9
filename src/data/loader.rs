//! Batches, prepared ahead on a background thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::sampler::{self, Draw};
use super::sources::{MAX_SOURCE_BYTES, MAX_SOURCE_SIDE};
use super::transform::{self, CropBox};
use super::{Dataset, Epoch, ImageCache, Label, RgbImage, Sources};
use crate::config::{Augment, Resize, Task};
use crate::{Error, Result};

/// How a data set becomes batches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoaderOptions {
    /// Images a batch; the last of an epoch may be smaller.
    pub batch_size: usize,
    /// Side S of the square, pixels.
    pub input_size: usize,
    /// The evaluation resize, used where nothing is augmented.
    pub resize: Resize,
    /// What is done to an image.
    pub augment: Augment,
    /// Each epoch in an order of its own; else the data set's.
    pub shuffle: bool,
    /// Every class equally often, with as many images an epoch as there are.
    pub balanced: bool,
    /// Seed of order and augmentation.
    pub seed: u64,
    /// Batches with [`Sources`] for a device that crops, resizes and flips by itself; the random draws are the same.
    pub on_device: bool,
}

/// B images and their labels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[B, S, S, 3]`, u8, before normalisation; empty while there are `sources`.
    pub images: Vec<u8>,
    /// The images before their transform, when the loader leaves that to the device.
    pub sources: Option<Sources>,
    /// `[B, width]`, what the head reads, where that is known already; there are no images then.
    pub features: Option<Vec<f32>>,
    /// B.
    pub size: usize,
    /// Class indices `[B]`; empty for multi-label.
    pub labels: Vec<usize>,
    /// 0/1 rows `[B, classes]`; empty for multi-class.
    pub targets: Vec<f32>,
    /// Each image's index in the data set's items, `[B]`.
    pub indices: Vec<usize>,
}

/// Hands out a data set's batches, epoch by epoch.
pub struct Loader {
    shared: Arc<Shared>,
}

/// What the background threads need.
struct Shared {
    dataset: Arc<Dataset>,
    options: LoaderOptions,
    cache: Arc<ImageCache>,
    // Threads of its own: on rayon's global pool, a matrix product that waits for its parts could pick up a decode and
    // finish late; and a consumer inside a pool of one thread would wait for ever.
    pool: ThreadPool,
}

impl Loader {
    /// A loader with as many decoding threads as rayon's global pool has.
    ///
    /// # Errors
    /// A batch or input size of 0, a data set without images, `balanced` with multi-label data or without `shuffle`.
    pub fn new(dataset: Arc<Dataset>, options: LoaderOptions, cache: Arc<ImageCache>) -> Result<Self> {
        Self::with_threads(dataset, options, cache, rayon::current_num_threads())
    }

    /// A loader with a number of decoding threads of its own; batches do not depend on it.
    ///
    /// # Errors
    /// As [`Loader::new`].
    pub fn with_threads(
        dataset: Arc<Dataset>,
        options: LoaderOptions,
        cache: Arc<ImageCache>,
        threads: usize,
    ) -> Result<Self> {
        if options.batch_size == 0 {
            return Err(Error::input("--batch-size must be at least 1, found 0"));
        }
        if options.input_size == 0 {
            return Err(Error::input("--input-size must be at least 1 pixel, found 0"));
        }
        if dataset.items.is_empty() {
            return Err(Error::input("the data set has no images"));
        }
        if options.balanced && dataset.task == Task::Multilabel {
            return Err(Error::input("--balanced needs one class an image; the data is multi-label: leave it out"));
        }
        if options.balanced && !options.shuffle {
            return Err(Error::input("--balanced draws at random, which --no-shuffle forbids: leave one out"));
        }
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("peftk-data-{i}"))
            .build()
            .map_err(|e| Error::Internal(format!("cannot start the decoding threads: {e}")))?;
        Ok(Self { shared: Arc::new(Shared { dataset, options, cache, pool }) })
    }

    /// Batches an epoch, the short last one included.
    pub fn batches_per_epoch(&self) -> usize {
        self.shared.dataset.items.len().div_ceil(self.shared.options.batch_size)
    }

    /// Threads that decode.
    pub fn threads(&self) -> usize {
        self.shared.pool.current_num_threads()
    }

    /// Images of the data set.
    pub fn images(&self) -> usize {
        self.shared.dataset.items.len()
    }

    /// One epoch's batches from `first_batch` (0 is the first) on. After an error the iterator ends.
    ///
    /// A batch depends on the seed, the epoch and its place alone: an epoch entered in the middle goes on as it would have.
    pub fn epoch(&self, epoch: usize, first_batch: usize) -> Epoch {
        self.walk(Walk { epoch, in_order: false, images: true }, first_batch)
    }

    /// The batches of [`Loader::epoch`] without their images, of which none is read.
    pub fn epoch_without_images(&self, epoch: usize, first_batch: usize) -> Epoch {
        self.walk(Walk { epoch, in_order: false, images: false }, first_batch)
    }

    /// Every image once, in the data set's order whatever an epoch's is.
    pub fn every_image(&self) -> Epoch {
        self.walk(Walk { epoch: 0, in_order: true, images: true }, 0)
    }

    fn walk(&self, walk: Walk, first_batch: usize) -> Epoch {
        let shared = self.shared.clone();
        Epoch::new(self.batches_per_epoch().saturating_sub(first_batch), move |sender, stopped| {
            for draws in shared.order(walk).chunks(shared.options.batch_size).skip(first_batch) {
                let Some(batch) = shared.batch(walk, draws, stopped).transpose() else { return };
                let failed = batch.is_err();
                // Sending fails when the consumer has gone.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        })
    }
}

/// A way through the data set.
#[derive(Clone, Copy)]
struct Walk {
    /// Decides order and augmentation.
    epoch: usize,
    /// The data set's order instead of the epoch's.
    in_order: bool,
    /// Whether batches hold their images.
    images: bool,
}

impl Shared {
    fn order(&self, walk: Walk) -> Vec<Draw> {
        let options = &self.options;
        if options.balanced && !walk.in_order {
            sampler::balanced(&self.dataset, options.seed, walk.epoch)
        } else {
            let shuffle = options.shuffle && !walk.in_order;
            sampler::every_image(self.dataset.items.len(), shuffle, options.seed, walk.epoch)
        }
    }

    /// One batch; `None` if told to stop on the way.
    fn batch(&self, walk: Walk, draws: &[Draw], stop: &AtomicBool) -> Result<Option<Batch>> {
        let epoch = walk.epoch;
        let (images, sources) = if !walk.images {
            (Vec::new(), None)
        } else if self.options.on_device {
            let Some(sources) = self.sources(epoch, draws, stop)? else { return Ok(None) };
            (Vec::new(), Some(sources))
        } else {
            let Some(images) = self.squares(epoch, draws, stop)? else { return Ok(None) };
            (images, None)
        };
        let mut batch = Batch {
            images,
            sources,
            features: None,
            size: draws.len(),
            labels: Vec::new(),
            targets: Vec::new(),
            indices: draws.iter().map(|d| d.index).collect(),
        };
        for &index in &batch.indices {
            match &self.dataset.items[index].label {
                Label::Class(class) => batch.labels.push(*class),
                Label::Multi(row) => batch.targets.extend_from_slice(row),
            }
        }
        Ok(Some(batch))
    }

    /// Finished squares.
    fn squares(&self, epoch: usize, draws: &[Draw], stop: &AtomicBool) -> Result<Option<Vec<u8>>> {
        let size = self.options.input_size;
        let bytes = size * size * 3;
        let mut images = vec![0; draws.len() * bytes];
        let one = |(out, draw): (&mut [u8], &Draw)| {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let (image, part, flip) = self.image(epoch, *draw)?;
            transform::crop_resize_flip(&image, part, flip, size, out)
        };
        // The first failure in the batch's order, whichever thread meets one first.
        let made: Vec<Result<()>> =
            self.pool.install(|| images.par_chunks_exact_mut(bytes).zip(draws).map(one).collect());
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        made.into_iter().collect::<Result<()>>()?;
        Ok(Some(images))
    }

    /// The images and what to make of each.
    fn sources(&self, epoch: usize, draws: &[Draw], stop: &AtomicBool) -> Result<Option<Sources>> {
        let one = |draw: &Draw| {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            self.source(epoch, *draw).map(Some)
        };
        // The first failure in the batch's order, whichever thread meets one first.
        let read: Vec<Result<_>> = self.pool.install(|| draws.par_iter().map(one).collect());
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let mut sources = Sources { images: Vec::new(), boxes: Vec::new(), flips: Vec::new() };
        for (image, part, flip) in read.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            sources.images.push(image);
            sources.boxes.push(part);
            sources.flips.push(flip);
        }
        Ok(Some(sources))
    }

    /// One image for the device; one that is too long or large for it is done here, and the device copies it.
    fn source(&self, epoch: usize, draw: Draw) -> Result<(Arc<RgbImage>, CropBox, bool)> {
        let (image, part, flip) = self.image(epoch, draw)?;
        if image.width.max(image.height) <= MAX_SOURCE_SIDE && image.pixels.len() <= MAX_SOURCE_BYTES {
            return Ok((image, part, flip));
        }
        let size = self.options.input_size;
        let mut pixels = vec![0; size * size * 3];
        transform::crop_resize_flip(&image, part, flip, size, &mut pixels)?;
        let square = RgbImage { width: size, height: size, pixels };
        Ok((Arc::new(square), CropBox::whole(size, size), false))
    }

    /// One image, the part of it that is wanted, and whether to flip that.
    fn image(&self, epoch: usize, draw: Draw) -> Result<(Arc<RgbImage>, CropBox, bool)> {
        let LoaderOptions { input_size, resize, augment, seed, .. } = self.options;
        let image = self.cache.get(&self.dataset.items[draw.index].source)?;
        let (part, flip) = match augment {
            Augment::None => (transform::eval_crop(image.width, image.height, input_size, resize), false),
            Augment::Standard => {
                let mut rng = sampler::augment_rng(seed, epoch, draw);
                transform::train_crop(image.width, image.height, &mut rng)
            }
        };
        Ok((image, part, flip))
    }
}
