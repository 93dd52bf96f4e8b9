//! The bare training step, on random images: what the strategy benches time and a profiler looks at.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::model::Model;
use super::optimizer::{Hyper, Optimizer, Queued};
use super::passes::Passes;
use super::plan::{Load, Planning};
use super::planner::{self, Room};
use super::report::MemoryPlan;
use super::step::StepOptions;
use crate::Result;
use crate::autograd::{Backend, Counting, Grads, LaterNumber};
use crate::config::{Precision, Recompute, Task, TrainConfig};
use crate::cpu::Cpu;
use crate::cuda::Cuda;
use crate::data::Batch;
use crate::gpu::{DType, Device};
use crate::io::{BackboneSpec, load};
use crate::task::criterion::Criterion;
use crate::task::labels::Labels;
use crate::vit::VitConfig;

/// Batches that take turns: a step never sees the images of the one before.
const BATCHES: usize = 3;
/// Too small a rate to learn the noise by heart while it is timed.
const LR: f64 = 1e-6;

/// A model of random weights with its optimiser and batches of noise.
pub struct BareStep<B: Backend> {
    model: Model<B>,
    optimizer: Optimizer<B>,
    grads: Grads<B>,
    options: StepOptions,
    passes: Passes<B>,
    batches: Vec<Batch>,
    taken: usize,
    /// The step that was queued last.
    pending: Option<(LaterNumber, Queued)>,
}

impl<B: Backend> BareStep<B> {
    /// As `config` says (strategy, adapter, batch size, input size, micro-batch, recomputation) for a named size of the model.
    ///
    /// # Errors
    /// Whatever building a model and uploading it can meet.
    pub fn new(backend: B, config: &TrainConfig, size: &str, classes: usize) -> Result<Self> {
        let backbone = load(&BackboneSpec::Random { size: size.to_owned() }, &mut |_| {})?;
        let names: Vec<String> = (0..classes).map(|i| i.to_string()).collect();
        let labels = Labels::new(Task::Multiclass, &names);
        let model = Model::for_training(backend, config, backbone, labels, &mut |_| {})?;
        let hyper = Hyper { grad_clip: config.grad_clip, ..Hyper::new(config.weight_decay) };
        let optimizer = Optimizer::new(&model.params, hyper)?;
        let grads = Grads::with_blocks(&model.params)?;
        let count = config.batch_size;
        let options = StepOptions {
            criterion: Criterion::Classes { smoothing: config.label_smoothing, weights: None },
            micro_batch: config.micro_batch,
            recompute: config.recompute.unwrap_or_default(),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let batches = (0..BATCHES).map(|_| noise(&mut rng, config, classes)).collect();
        Ok(Self {
            model,
            optimizer,
            grads,
            passes: Passes::new(options.clone(), count),
            options,
            batches,
            taken: 0,
            pending: None,
        })
    }

    /// One step, as a run takes it: upload, forward, backward, AdamW. Returns the loss.
    ///
    /// # Errors
    /// As in training.
    pub fn run(&mut self) -> Result<f64> {
        self.queue()?;
        self.finish()
    }

    /// Queues a step, then waits for the one before, as a run does: the device never waits for this side.
    ///
    /// # Errors
    /// As in training.
    pub fn queue(&mut self) -> Result<()> {
        let Self { model, optimizer, grads, passes, batches, taken, .. } = self;
        let batch = &batches[*taken % batches.len()];
        grads.restart();
        passes.run(&model.vit, &model.params, batch, *taken as u64, grads)?;
        let update = optimizer.queue(&mut model.params, grads, LR)?;
        // Behind the update, as a run has it.
        let loss = passes.loss(&model.params)?;
        *taken += 1;
        match self.pending.replace((loss, update)) {
            Some(before) => Self::wait(before).map(drop),
            None => Ok(()),
        }
    }

    /// Waits for the last step that was queued; its loss.
    ///
    /// # Errors
    /// As in training.
    pub fn finish(&mut self) -> Result<f64> {
        self.pending.take().map_or(Ok(f64::NAN), Self::wait)
    }

    fn wait((loss, queued): (LaterNumber, Queued)) -> Result<f64> {
        let loss = loss()?;
        queued.norm().map(|_| loss)
    }

    /// The trained values on the host, by name.
    ///
    /// # Errors
    /// A device fault.
    pub fn trained(&self) -> Result<Vec<(String, Vec<f32>)>> {
        let params = &self.model.params;
        params.trainable().map(|(id, param)| Ok((param.name.clone(), params.download(id)?))).collect()
    }

    /// Values that are trained, and all of the model's.
    pub fn values(&self) -> (usize, usize) {
        (self.model.trainable(), self.model.total())
    }

    /// Images at once (none: all), and what is computed again.
    pub fn walk(&self) -> (Option<usize>, Recompute) {
        (self.options.micro_batch, self.options.recompute)
    }

    /// Passes so far that were replayed from a recording.
    pub fn replayed(&self) -> u64 {
        self.passes.replayed()
    }

    /// Most bytes of the device that were in use at once.
    pub fn peak_bytes(&self) -> u64 {
        self.model.params.backend().peak_bytes()
    }
}

impl BareStep<Cuda> {
    /// On a GPU that was just opened, in the arena of its plan, as a run; `residual` is the residual stream's type where it is not the
    /// precision's own.
    ///
    /// # Errors
    /// As [`BareStep::new`]; when the GPU has not that much memory left.
    pub fn on_gpu(
        device: &Device,
        precision: Precision,
        residual: Option<DType>,
        config: &TrainConfig,
        size: &str,
        classes: usize,
    ) -> Result<(Self, MemoryPlan)> {
        let on = |device: &Device| {
            let backend = Cuda::new(device, precision);
            let own = backend.residual();
            backend.with_residual(residual.unwrap_or(own))
        };
        let vit = VitConfig::named(size)?;
        let mut config = config.clone();
        let free = device.driver_memory()?.map(|(free, _)| free);
        let room = Room::of(&vit, config.input_size, config.batch_size, true, free);
        let load = load_of(&config, classes);
        let planning = Planning::new(on(&device.dry_twin()), &config, &vit, load)?;
        let plan = planner::settle(&mut config, room, |config| planning.plan(config), &mut |_| {})?;
        device.reserve(plan.total())?;
        let step = Self::new(on(device), &config, size, classes)?;
        Ok((step, plan))
    }
}

impl BareStep<Cpu> {
    /// On the CPU, with the plan that a run there has.
    ///
    /// # Errors
    /// As [`BareStep::new`].
    pub fn on_cpu(config: &TrainConfig, size: &str, classes: usize) -> Result<(Self, MemoryPlan)> {
        let (mut config, vit) = (config.clone(), VitConfig::named(size)?);
        let room = Room::of(&vit, config.input_size, config.batch_size, false, None);
        let load = load_of(&config, classes);
        let planning = Planning::new(Counting::new(), &config, &vit, load)?;
        let plan = planner::settle(&mut config, room, |config| planning.plan(config), &mut |_| {})?;
        Ok((Self::new(Cpu::new(None)?, &config, size, classes)?, plan))
    }
}

/// What a step's plan is for: one batch, no validation, squares that are there already.
fn load_of(config: &TrainConfig, classes: usize) -> Load {
    Load { classes, criterion: Criterion::CROSS_ENTROPY, images: (config.batch_size, 0), crops: false }
}

fn noise(rng: &mut ChaCha8Rng, config: &TrainConfig, classes: usize) -> Batch {
    let size = config.batch_size;
    let mut images = vec![0; size * config.input_size * config.input_size * 3];
    rng.fill_bytes(&mut images);
    Batch {
        images,
        sources: None,
        features: None,
        size,
        labels: (0..size).map(|_| rng.random_range(0..classes)).collect(),
        targets: vec![],
        indices: (0..size).collect(),
    }
}
