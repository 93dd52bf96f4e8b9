//! The passes over a batch's micro-batches, and their recordings.

use std::hash::{DefaultHasher, Hasher};
use std::ops::Range;

use super::features;
use super::step::{StepOptions, classes_of, pixels, stage_labels, staged};
use crate::Result;
use crate::autograd::{Array, Backend, Derived, Grads, Images, LaterNumber, LinearAdapters, Params, SumTo, Tape};
use crate::data::Batch;
use crate::gpu::profile;
use crate::vit::{Mode, Vit};

/// The passes over a batch's micro-batches, step after step, and what of them stays on the device: the loss and, where passes are recorded
/// ([`Backend::record`]), one micro-batch's images and labels.
///
/// A micro-batch of the usual size in a batch of the usual size is recorded when it comes again in another step, and replayed from then on, so
/// long as all that it reads and writes lies where it lay. Dropout is never recorded: its seed is not in memory.
pub struct Passes<B: Backend> {
    options: StepOptions,
    loss: Option<Array<B>>,
    /// What the loss reads besides logits and labels.
    constants: Option<B::Buffer>,
    staged: Staged<B>,
    /// The adapters as products read them.
    prepared: Option<B::Prepared>,
    /// Images of the staged micro-batch and of its whole batch.
    usual: (usize, usize),
    /// Of a batch's first micro-batch, whose sums are written, and of the others, which add to them.
    recorded: [State<B>; 2],
    steps: u64,
    replayed: u64,
}

/// A micro-batch on the device.
struct Staged<B: Backend> {
    squares: Option<B::Buffer>,
    /// Class indices, or the targets of each.
    labels: Option<B::Buffer>,
}

/// What is there of a pass.
enum State<B: Backend> {
    New,
    /// It ran, in this step for the first time: what it needs (kernels, copies of weights) is there.
    Ran(u64),
    Recorded(Recorded<B>),
}

struct Recorded<B: Backend> {
    recording: B::Recording,
    /// Where all lay that it reads and writes.
    places: u64,
    /// The gradients that it leaves.
    reached: Vec<bool>,
}

impl<B: Backend> Passes<B> {
    /// For steps of one model over batches of `count` images, but for short ones.
    pub fn new(options: StepOptions, count: usize) -> Self {
        let staged = Staged { squares: None, labels: None };
        let usual = (options.micro(count), count);
        let recorded = [State::New, State::New];
        Self { options, loss: None, constants: None, staged, prepared: None, usual, recorded, steps: 0, replayed: 0 }
    }

    /// Walks a batch; its gradients are added to `grads`, its mean loss is [`Passes::loss`]. Every micro-batch's loss is divided by the whole
    /// batch's count, so that their gradients add up to the batch's own: there is no BatchNorm, nothing else couples images.
    pub fn run(
        &mut self,
        vit: &Vit,
        params: &Params<B>,
        batch: &Batch,
        dropout_seed: u64,
        grads: &mut Grads<B>,
    ) -> Result<()> {
        let count = batch.indices.len();
        let micro = self.options.micro(count);
        // What follows from the values alone is made once, and its gradient flows back once.
        let shared = Tape::new(params);
        let derived = vit.derive(&shared)?;
        grads.reserve_derived(&derived)?;
        self.steps += 1;
        if self.loss.is_none() {
            // Before the first pass: what stays is not to lie among what goes.
            self.loss = Some(Array::upload(params.backend(), &[0.0], &[1])?);
            self.constants = self.options.criterion.constants(params.backend())?;
        }
        {
            let (ready, _until) =
                Ready::new(params.backend(), &vit.all_adapters(params, &derived), &mut self.prepared)?;
            for first in (0..count).step_by(micro) {
                let images = first..(first + micro).min(count);
                self.pass(&Pass { vit, params, derived: &derived, ready, batch, images, dropout_seed }, grads)?;
            }
        }
        let _range = profile::range("backward");
        let reached = derived.with_grads(grads);
        if !reached.is_empty() {
            shared.backward_with_all(reached, grads)?;
        }
        Ok(())
    }

    /// The last batch's mean loss, once what is queued so far is done; to be asked for before the next batch.
    pub fn loss(&self, params: &Params<B>) -> Result<LaterNumber> {
        match &self.loss {
            Some(loss) => params.backend().download_later(loss.buffer()),
            None => Ok(Box::new(|| Ok(0.0))),
        }
    }

    /// Passes so far that were replayed.
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Bytes of staged images and labels, and of adapters as products read them, which stay between steps.
    pub(super) fn staying_bytes(&self, backend: &B) -> (usize, usize) {
        let staged = [&self.staged.squares, &self.staged.labels, &self.constants];
        (
            staged.into_iter().flatten().map(|block| backend.bytes(block)).sum(),
            self.prepared.as_ref().map_or(0, |prepared| backend.prepared_bytes(prepared)),
        )
    }

    fn pass(&mut self, pass: &Pass<'_, B>, grads: &mut Grads<B>) -> Result<()> {
        let backend = pass.params.backend();
        let first = pass.images.start == 0;
        let to = self.loss.take().map(|block| SumTo { block, add: !first });
        if !backend.records() || pass.batch.features.is_some() {
            self.loss = Some(pass.run(&self.options, None, self.constants.as_ref(), to, grads)?);
            return Ok(());
        }
        let size = (pass.images.len(), pass.batch.indices.len());
        if size.0 != self.usual.0 {
            self.loss = Some(pass.run(&self.options, None, self.constants.as_ref(), to, grads)?);
            return Ok(());
        }
        pass.stage(&self.options, &mut self.staged)?;
        let state = &mut self.recorded[usize::from(!first)];
        let again = size == self.usual && !pass.vit.drops_out();
        let ran = match state {
            State::New => None,
            State::Ran(step) => Some(*step < self.steps),
            State::Recorded(_) => Some(true),
        };
        if !again || ran != Some(true) {
            self.loss = Some(pass.run(&self.options, Some(&self.staged), self.constants.as_ref(), to, grads)?);
            if again && ran.is_none() {
                *state = State::Ran(self.steps);
            }
            return Ok(());
        }
        let places = pass.places(&self.staged, self.constants.as_ref(), to.as_ref(), grads);
        if let State::Recorded(recorded) = state
            && recorded.places == places
            && backend.replay(&recorded.recording)?
        {
            grads.mark_reached(&recorded.reached);
            self.replayed += 1;
            self.loss = to.map(|to| to.block);
            return Ok(());
        }
        // What was recorded before goes first: it holds memory of the device.
        *state = State::Ran(self.steps);
        let (mut to, mut loss) = (to, None);
        let recording = backend.record(&mut || {
            let staged = Some(&self.staged);
            loss = Some(pass.run(&self.options, staged, self.constants.as_ref(), to.take(), grads)?);
            Ok(())
        })?;
        self.loss = loss;
        if let Some(recording) = recording {
            *state = State::Recorded(Recorded { recording, places, reached: grads.reached() });
        }
        Ok(())
    }
}

/// Until it goes, the backend may count on the adapters' values as they are.
struct Ready<'a, B: Backend>(&'a B);

impl<'a, B: Backend> Ready<'a, B> {
    /// With where lies what was prepared.
    fn new(
        backend: &'a B,
        adapters: &[LinearAdapters<'_, B::Buffer>],
        prepared: &mut Option<B::Prepared>,
    ) -> Result<(u64, Self)> {
        Ok((backend.prepare_adapters(adapters, prepared)?, Self(backend)))
    }
}

impl<B: Backend> Drop for Ready<'_, B> {
    fn drop(&mut self) {
        self.0.release_adapters();
    }
}

/// One micro-batch.
struct Pass<'a, B: Backend> {
    vit: &'a Vit,
    params: &'a Params<B>,
    derived: &'a Derived<B>,
    /// Where lies what was prepared.
    ready: u64,
    batch: &'a Batch,
    images: Range<usize>,
    dropout_seed: u64,
}

impl<B: Backend> Pass<'_, B> {
    /// Brings images and labels to the device.
    fn stage(&self, options: &StepOptions, to: &mut Staged<B>) -> Result<()> {
        let backend = self.params.backend();
        backend.stage_images(&pixels(self.batch, &self.images), self.vit.input_size, &mut to.squares)?;
        let classes = self.params.get(self.vit.head.bias).value.elements();
        stage_labels(backend, self.batch, &self.images, options, classes, &mut to.labels)
    }

    /// Forward and backward, from what is staged or from the batch; the loss so far goes on from `to`.
    fn run(
        &self,
        options: &StepOptions,
        from: Option<&Staged<B>>,
        constants: Option<&B::Buffer>,
        to: Option<SumTo<Array<B>>>,
        grads: &mut Grads<B>,
    ) -> Result<Array<B>> {
        let (images, count) = (self.images.len(), self.batch.indices.len());
        let mode = Mode {
            dropout_seed: Some(self.dropout_seed),
            first_image: self.images.start,
            images,
            recompute: options.recompute,
        };
        let tape = Tape::new(self.params).over_images(images).with_derived(self.derived);
        let so_far = {
            let _range = profile::range("forward");
            if let Some(Staged { squares: Some(squares), labels: Some(labels) }) = from {
                let logits = self.vit.logits(&tape, Images::Staged(squares), images, mode)?;
                options.criterion.loss(&tape, &logits, labels, constants, count, to)?
            } else {
                let logits = features::logits(self.vit, &tape, self.batch, &self.images, mode)?;
                let (mut labels, classes) = (None, classes_of(&logits));
                let backend = self.params.backend();
                stage_labels(backend, self.batch, &self.images, options, classes, &mut labels)?;
                options.criterion.loss(&tape, &logits, &staged(labels)?, constants, count, to)?
            }
        };
        let _range = profile::range("backward");
        tape.backward(&so_far, grads)?;
        Ok(so_far.into_array())
    }

    /// One number of where all lies that this pass reads and writes, and of which gradients hold something.
    fn places(
        &self,
        staged: &Staged<B>,
        constants: Option<&B::Buffer>,
        loss: Option<&SumTo<Array<B>>>,
        grads: &Grads<B>,
    ) -> u64 {
        let backend = self.params.backend();
        let mut hasher = DefaultHasher::new();
        let mut tell = |place| hasher.write_u64(place);
        tell(self.ready);
        self.params.iter().for_each(|(_, param)| tell(backend.place(param.value.buffer())));
        self.derived.places(backend, &mut tell);
        grads.places(&mut tell);
        let blocks = [staged.squares.as_ref(), staged.labels.as_ref(), constants, loss.map(|to| to.block.buffer())];
        blocks.into_iter().for_each(|block| tell(block.map_or(0, |block| backend.place(block))));
        hasher.finish()
    }
}
