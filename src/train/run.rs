//! A training run from its settings to its folder.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::checkpoint::{self, Progress};
use super::early_stopping::EarlyStopping;
use super::features::{self, Batches};
use super::inputs::Images;
use super::log::{EndLine, Line, RunLine, RunLog};
use super::loss;
use super::model::{Model, head_width};
use super::optimizer::{Hyper, Optimizer};
use super::passes::Passes;
use super::place::Place;
use super::plan::{Load, Planning};
use super::planner::{self, Room};
use super::report::{MemoryPlan, Summary};
use super::run_dir::RunDir;
use super::schedule::Schedule;
use super::step::StepOptions;
use super::ui::Ui;
use super::{init_adapter, inputs, interrupt};
use crate::autograd::{Backend, Counting, Grads};
use crate::config::{Augment, ScheduleKind, TrainConfig};
use crate::cpu::Cpu;
use crate::cuda::Cuda;
use crate::data::{Dataset, ImageCache, Loader, LoaderOptions, Splits};
use crate::gpu::EnergyMeter;
use crate::io::Backbone;
use crate::vit::VitConfig;
use crate::{Error, Result};

/// Seconds between two saves within an epoch, where this is set: for machines that may be taken away at any moment.
const SAVE_EVERY: &str = "PEFTK_SAVE_EVERY_S";
/// What it is otherwise.
const SAVE_EVERY_DEFAULT: Duration = Duration::from_secs(60);

/// Trains. With `resume` the run in `config.out` goes on where its last checkpoint is, by the settings it was started with.
///
/// # Errors
/// Whatever is wrong with flags, data, backbone or adapter, before the first step and before the run folder is made; [`Error::NonFinite`] when the loss stops
/// being a number; [`Error::Interrupted`] after Ctrl-C, with the state saved; a full disk, with the last good state kept.
pub fn run(config: &TrainConfig, resume: bool, ui: &Ui) -> Result<Summary> {
    run_on(config, resume, None, ui)
}

/// Trains on `images`, which are those that `config` names, read before; none: reads them.
///
/// # Errors
/// As [`run`].
pub fn run_on(config: &TrainConfig, resume: bool, images: Option<&Images>, ui: &Ui) -> Result<Summary> {
    let start = Instant::now();
    let mut config = config.clone();
    let mut dir = None;
    let save_every = save_every()?;
    if resume {
        let opened = RunDir::open(&config.out, "--out")?;
        let TrainConfig { cache, device, memory, memory_budget, micro_batch, recompute, .. } = config;
        config = TrainConfig { cache, device, memory, memory_budget, micro_batch, recompute, ..opened.read_config()? };
        dir = Some(opened);
    } else {
        RunDir::check_free(&config.out)?;
        inputs::make_paths_absolute(&mut config)?;
    }
    let place = Place::choose(config.device, config.precision)?;
    if !resume {
        (config.device, config.precision) = place.settings(config.device);
    }
    ui.note(&format!("device: {}", place.words()));
    let mut splits = images.map_or_else(|| inputs::open_data(&config), |images| Ok(images.splits.clone()))?;
    ui.note(&format!("data: {}", splits.description));
    let backbone = inputs::load_backbone(config.backbone.as_deref(), ui)?;
    ui.note(&format!("backbone: {}", backbone.source));
    init_adapter::settle(&mut config, &backbone.config)?;
    let cache = match images {
        Some(images) => images.cache.clone(),
        None => {
            let cache = Arc::new(ImageCache::open(&config.cache)?);
            // Before the plan: images that are left out make other batches.
            inputs::verify(&mut splits, config.skip_bad, &cache, ui)?;
            cache
        }
    };
    let plan = settle(&place, &mut config, &backbone.config, &splits, ui)?;
    let device = place.words();
    let prepared = Prepared { config, dir, splits, cache, backbone, plan, save_every, device, ui, start };
    match place {
        Place::Cpu => prepared.train(Cpu::new(None)?, None),
        Place::Cuda(device, precision) => {
            // The plan's arena, made once: the steps live in it.
            device.reserve(prepared.plan.total())?;
            let meter = device.pci_bus_id().and_then(|id| EnergyMeter::open(&id));
            let summary = prepared.train(Cuda::new(&device, precision), meter)?;
            // In guard mode: what the run's last blocks had broken, which no wait came after.
            device.check_guards()?;
            Ok(summary)
        }
    }
}

/// Settles how the run gets by with the memory there is, and plans it.
pub(super) fn settle(
    place: &Place,
    config: &mut TrainConfig,
    vit: &VitConfig,
    splits: &Splits,
    ui: &Ui,
) -> Result<MemoryPlan> {
    let images = inputs::counts(splits);
    let labels = splits.train.labels();
    let criterion = loss::criterion(config, &labels, &splits.train.class_counts())?;
    let load = Load { classes: labels.len(), criterion, images, crops: true };
    let free = match place {
        Place::Cpu => None,
        Place::Cuda(device, _) => device.driver_memory()?.map(|(free, _)| free),
    };
    let room = Room::of(vit, config.input_size, images.0, matches!(place, Place::Cuda(..)), free);
    let mut note = |text: String| ui.note(&text);
    match place {
        Place::Cpu => {
            let planning = Planning::new(Counting::new(), config, vit, load)?;
            planner::settle(config, room, |config| planning.plan(config), &mut note)
        }
        Place::Cuda(device, precision) => {
            let planning = Planning::new(Cuda::new(&device.dry_twin(), *precision), config, vit, load)?;
            planner::settle(config, room, |config| planning.plan(config), &mut note)
        }
    }
}

/// What is known before the device is used.
struct Prepared<'a> {
    config: TrainConfig,
    dir: Option<RunDir>,
    splits: Splits,
    cache: Arc<ImageCache>,
    backbone: Backbone,
    plan: MemoryPlan,
    save_every: Duration,
    device: String,
    ui: &'a Ui,
    start: Instant,
}

impl Prepared<'_> {
    fn train<B: Backend>(self, backend: B, meter: Option<EnergyMeter>) -> Result<Summary> {
        let Self { mut config, dir, splits, cache, backbone, plan, save_every, device, ui, start } = self;
        let labels = splits.train.labels();
        let criterion = loss::criterion(&config, &labels, &splits.train.class_counts())?;
        let mut notes = Vec::new();
        let model = Model::for_training(backend.clone(), &config, backbone, labels, &mut |note| notes.push(note))?;
        notes.iter().for_each(|note| ui.note(note));
        let head = notes.into_iter().find(|note| note.starts_with("head:")).unwrap_or_default();
        ui.note(&format!(
            "{}: trains {} of {} values; planned memory {:.0} MiB",
            config.strategy.name(),
            model.trainable(),
            model.total(),
            plan.total() as f64 / (1 << 20) as f64
        ));
        let data = inputs::fingerprint(&splits);
        let loader = |set: Dataset, training: bool| {
            let options = LoaderOptions {
                batch_size: config.batch_size,
                input_size: config.input_size,
                resize: config.resize,
                augment: if training { config.augment } else { Augment::None },
                shuffle: training && !config.no_shuffle,
                balanced: training && config.balanced,
                seed: config.seed,
                on_device: backend.crops(),
            };
            Loader::new(Arc::new(set), options, cache.clone())
        };
        let train = loader(splits.train, true)?;
        let val = splits.val.map(|set| loader(set, false)).transpose()?;
        if val.is_none() && config.schedule == ScheduleKind::Plateau {
            return Err(Error::input(
                "--schedule plateau: there is no validation data to watch: give --val-fraction or --val-data",
            ));
        }
        if val.is_none() && config.tune_thresholds {
            return Err(Error::input(
                "--tune-thresholds: there are no validation images: give --val-fraction or --val-data",
            ));
        }
        let width = head_width(&model.vit.config, config.pool);
        let (train, val) = features::batches(&config, width, train, val, ui)?;
        let steps = config.epochs * train.per_epoch();
        let warmup = config.warmup_steps.unwrap_or_else(|| config.strategy.default_warmup(config.schedule, steps));
        config.warmup_steps = Some(warmup);
        if warmup >= steps {
            ui.note(&format!("note: --warmup-steps {warmup} never ends: the run has {steps} steps"));
        }
        // From here on there is something to save.
        interrupt::defer();
        let dir = match dir {
            Some(dir) => dir,
            None => RunDir::create(&config)?,
        };
        let lock = dir.lock()?;
        dir.recover()?;

        let options =
            StepOptions { criterion, micro_batch: config.micro_batch, recompute: config.recompute.unwrap_or_default() };
        let hyper = Hyper {
            decay_matrices_only: config.decay_matrices_only,
            grad_clip: config.grad_clip,
            ..Hyper::new(config.weight_decay)
        };
        let optimizer = Optimizer::new(&model.params, hyper)?;
        let grads = Grads::with_blocks(&model.params)?;
        let passes = Passes::new(options.clone(), config.batch_size.min(train.images()));
        Run {
            config,
            dir,
            _lock: lock,
            data,
            model,
            optimizer,
            grads,
            passes,
            train,
            val,
            options,
            plan,
            save_every,
            device,
            ui,
            start,
            meter,
            head,
        }
        .go(backend)
    }
}

/// A run under way.
pub(super) struct Run<'a, B: Backend> {
    pub(super) config: TrainConfig,
    pub(super) dir: RunDir,
    /// Held for as long as the run trains.
    _lock: File,
    /// What the data is, in short.
    data: String,
    pub(super) model: Model<B>,
    pub(super) optimizer: Optimizer<B>,
    pub(super) grads: Grads<B>,
    pub(super) passes: Passes<B>,
    pub(super) train: Batches,
    pub(super) val: Option<Batches>,
    pub(super) options: StepOptions,
    plan: MemoryPlan,
    pub(super) save_every: Duration,
    /// Device and numbers in words.
    device: String,
    pub(super) ui: &'a Ui,
    pub(super) start: Instant,
    /// What the GPU takes, where that can be told.
    pub(super) meter: Option<EnergyMeter>,
    /// Where the head came from.
    head: String,
}

impl<B: Backend> Run<'_, B> {
    fn go(mut self, backend: B) -> Result<Summary> {
        let last = self.dir.last();
        let (mut progress, mut log) = if last.exists() {
            let progress = checkpoint::progress(&last)?;
            if progress.data != self.data {
                return Err(Error::input(format!(
                    "--resume {}: its images or classes are not those that the run began with: put them back, or start a new run",
                    self.dir.path().display()
                )));
            }
            checkpoint::load(&last, &mut self.model.params, &mut self.optimizer, &progress)?;
            self.ui.note(&format!("resumed after step {} in epoch {}", progress.step, progress.epoch));
            let log = RunLog::resume(&self.dir, progress.log_lines)?;
            (progress, log)
        } else {
            self.dir.write_labels(&self.model.labels)?;
            let mut log = RunLog::start(&self.dir)?;
            log.write(&Line::Run(self.run_line()?))?;
            (self.fresh_progress(), log)
        };
        while !progress.finished {
            self.epoch(&mut progress, &mut log)?;
        }
        let summary = Summary {
            out: self.dir.path().to_owned(),
            device: self.device.clone(),
            head: self.head.clone(),
            strategy: self.config.strategy,
            epochs: progress.history.len(),
            steps: progress.step,
            trained_parameters: self.model.trainable() as u64,
            parameters: self.model.total() as u64,
            train_loss: progress.history.last().map_or(f64::NAN, |epoch| epoch.train_loss),
            best: progress.stopping.best(),
            images_per_s: progress.images_trained as f64 / progress.train_s.max(1e-9),
            train_s: progress.train_s,
            energy_j: progress.energy_j,
            history: std::mem::take(&mut progress.history),
            peak_bytes: progress.peak_bytes.max(backend.peak_bytes()),
            planned_bytes: self.plan.total(),
            wall_s: progress.wall_s + self.start.elapsed().as_secs_f64(),
            embedded_data: self.config.data.is_none(),
        };
        log.write(&Line::End(EndLine {
            peak_device_bytes: summary.peak_bytes,
            planned_device_bytes: summary.planned_bytes,
            wall_s: summary.wall_s,
            more: Map::from_iter([("epochs".to_owned(), Value::from(summary.epochs))]),
        }))?;
        log.write_curves()?;
        Ok(summary)
    }

    fn fresh_progress(&self) -> Progress {
        let total = self.config.epochs * self.train.per_epoch();
        Progress {
            data: self.data.clone(),
            epoch: 1,
            batches_done: 0,
            step: 0,
            loss_sum: 0.0,
            images: 0,
            images_trained: 0,
            train_s: 0.0,
            wall_s: 0.0,
            peak_bytes: 0,
            energy_j: None,
            schedule: Schedule::new(self.config.schedule, self.config.lr, self.config.warmup_steps.unwrap_or(0), total),
            stopping: EarlyStopping::new(self.config.patience),
            log_lines: 0,
            history: Vec::new(),
            finished: false,
        }
    }

    fn run_line(&self) -> Result<RunLine> {
        let settings = serde_json::to_value(&self.config).map_err(|e| Error::Internal(format!("settings: {e}")))?;
        Ok(RunLine {
            version: env!("CARGO_PKG_VERSION").into(),
            settings,
            device: self.device.clone(),
            planned_device_bytes: self.plan.total(),
            more: Map::from_iter([
                ("classes".to_owned(), Value::from(self.model.labels.len())),
                ("trained_values".to_owned(), Value::from(self.model.trainable())),
                ("values".to_owned(), Value::from(self.model.total())),
                ("images".to_owned(), Value::from(self.data.as_str())),
            ]),
        })
    }
}

/// Within an epoch the state is saved this often.
fn save_every() -> Result<Duration> {
    let Some(text) = std::env::var_os(SAVE_EVERY) else { return Ok(SAVE_EVERY_DEFAULT) };
    let seconds =
        text.to_str().and_then(|text| text.trim().parse().ok()).and_then(|s| Duration::try_from_secs_f64(s).ok());
    seconds.ok_or_else(|| {
        Error::input(format!("{SAVE_EVERY}={}: expected a number of seconds of at least 0", text.display()))
    })
}
