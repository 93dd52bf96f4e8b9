//! A training run from its settings to its folder.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::checkpoint::{self, EpochRecord, Progress};
use super::early_stopping::EarlyStopping;
use super::evaluate::{Evaluation, evaluate};
use super::log::{EndLine, Line, RunLine, RunLog, StepLine, ValLine};
use super::model::Model;
use super::optimizer::{Hyper, Optimizer};
use super::plan::plan;
use super::report::{MemoryPlan, Summary};
use super::run_dir::{Labels, RunDir};
use super::schedule::Schedule;
use super::step::{StepOptions, forward_backward};
use super::ui::Ui;
use super::{inputs, interrupt};
use crate::autograd::{Backend, Grads};
use crate::config::{Augment, ScheduleKind, TrainConfig};
use crate::cpu::Cpu;
use crate::data::{Dataset, ImageCache, Loader, LoaderOptions};
use crate::{Error, Result};

/// Within an epoch the state is saved this often.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Trains. With `resume` the run in `config.out` goes on where its last checkpoint is, by the settings it was started with.
///
/// # Errors
/// Whatever is wrong with flags, data, backbone or adapter, before the first step and before the run folder is made; [`Error::NonFinite`] when the loss stops
/// being a number; [`Error::Interrupted`] after Ctrl-C, with the state saved; a full disk, with the last good state kept.
pub fn run(config: &TrainConfig, resume: bool, ui: &Ui) -> Result<Summary> {
    let start = Instant::now();
    let mut config = config.clone();
    let mut dir = None;
    if resume {
        let opened = RunDir::open(&config.out, "--out")?;
        config = opened.read_config()?;
        dir = Some(opened);
    } else {
        RunDir::check_free(&config.out)?;
        inputs::make_paths_absolute(&mut config)?;
    }
    let backend = Cpu::new(None)?;
    ui.note(&format!("device: CPU, {} threads, f32", rayon::current_num_threads()));
    let mut splits = inputs::open_data(&config)?;
    ui.note(&format!("data: {}", splits.description));
    let backbone = inputs::load_backbone(config.backbone.as_deref(), ui)?;
    ui.note(&format!("backbone: {}", backbone.source));
    let (vit, task, labels) = (backbone.config.clone(), splits.train.task, splits.train.classes.clone());
    let mut notes = Vec::new();
    let model = Model::for_training(backend.clone(), &config, backbone, &labels, &mut |note| notes.push(note))?;
    notes.iter().for_each(|note| ui.note(note));
    let plan = plan(&config, &vit, labels.len(), task)?;
    ui.note(&format!(
        "{}: trains {} of {} values; planned memory {:.0} MiB",
        config.strategy.name(),
        model.trainable(),
        model.total(),
        plan.total() as f64 / (1 << 20) as f64
    ));
    let cache = Arc::new(ImageCache::default());
    inputs::verify(&mut splits, config.skip_bad, &cache, ui)?;
    let dir = match dir {
        Some(dir) => dir,
        None => RunDir::create(&config)?,
    };
    dir.write_labels(&Labels { task, labels })?;

    let loader = |set: Dataset, training: bool| {
        let options = LoaderOptions {
            batch_size: config.batch_size,
            input_size: config.input_size,
            resize: config.resize,
            augment: if training { config.augment } else { Augment::None },
            shuffle: training && !config.no_shuffle,
            balanced: training && config.balanced,
            seed: config.seed,
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
    let options = StepOptions {
        task,
        label_smoothing: config.label_smoothing,
        micro_batch: config.micro_batch,
        checkpointing: config.checkpointing,
    };
    let hyper = Hyper {
        decay_matrices_only: config.decay_matrices_only,
        grad_clip: config.grad_clip,
        ..Hyper::new(config.weight_decay)
    };
    let optimizer = Optimizer::new(&model.params, hyper)?;
    Run { config, dir, model, optimizer, train, val, options, plan, ui, start }.go(backend)
}

struct Run<'a, B: Backend> {
    config: TrainConfig,
    dir: RunDir,
    model: Model<B>,
    optimizer: Optimizer<B>,
    train: Loader,
    val: Option<Loader>,
    options: StepOptions,
    plan: MemoryPlan,
    ui: &'a Ui,
    start: Instant,
}

impl<B: Backend> Run<'_, B> {
    fn go(mut self, backend: B) -> Result<Summary> {
        let last = self.dir.last();
        let (mut progress, mut log) = if last.exists() {
            let progress = checkpoint::progress(&last)?;
            checkpoint::load(&last, &mut self.model.params, &mut self.optimizer, &progress)?;
            self.ui.note(&format!("resumed after step {} in epoch {}", progress.step, progress.epoch));
            let log = RunLog::resume(&self.dir, progress.log_lines)?;
            (progress, log)
        } else {
            let mut log = RunLog::start(&self.dir)?;
            log.write(&Line::Run(self.run_line()?))?;
            (self.fresh_progress(), log)
        };
        while !progress.finished {
            self.epoch(&mut progress, &mut log)?;
        }
        let summary = Summary {
            out: self.dir.path().to_owned(),
            strategy: self.config.strategy,
            epochs: progress.history.len(),
            steps: progress.step,
            trained_parameters: self.model.trainable() as u64,
            train_loss: progress.history.last().map_or(f64::NAN, |epoch| epoch.train_loss),
            best: progress.stopping.best(),
            images_per_s: progress.images_trained as f64 / progress.train_s.max(1e-9),
            peak_bytes: backend.peak_bytes(),
            wall_s: progress.wall_s + self.start.elapsed().as_secs_f64(),
            embedded_data: self.config.data.is_none(),
        };
        log.write(&Line::End(EndLine {
            peak_device_bytes: summary.peak_bytes,
            planned_device_bytes: self.plan.total(),
            wall_s: summary.wall_s,
            more: Map::from_iter([("epochs".to_owned(), Value::from(progress.history.len()))]),
        }))?;
        log.write_curves()?;
        Ok(summary)
    }

    fn fresh_progress(&self) -> Progress {
        let total = self.config.epochs * self.train.batches_per_epoch();
        Progress {
            epoch: 1,
            batches_done: 0,
            step: 0,
            loss_sum: 0.0,
            images: 0,
            images_trained: 0,
            train_s: 0.0,
            wall_s: 0.0,
            schedule: Schedule::new(self.config.schedule, self.config.lr, self.config.warmup_steps, total),
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
            device: format!("cpu, {} threads", rayon::current_num_threads()),
            planned_device_bytes: self.plan.total(),
            more: Map::from_iter([
                ("classes".to_owned(), Value::from(self.model.labels.len())),
                ("trained_values".to_owned(), Value::from(self.model.trainable())),
                ("values".to_owned(), Value::from(self.model.total())),
            ]),
        })
    }

    fn save(&self, progress: &mut Progress, log: &RunLog) -> Result<()> {
        log.sync()?;
        progress.log_lines = log.lines();
        let mut stored = progress.clone();
        stored.wall_s += self.start.elapsed().as_secs_f64();
        checkpoint::save(&self.dir.last(), &self.model.params, &self.optimizer, &stored)
    }

    /// Ctrl-C: saves the state; whatever hinders that is the error.
    fn stop(&self, progress: &mut Progress, log: &RunLog) -> Error {
        if let Err(error) = self.save(progress, log) {
            return error;
        }
        let run = self.dir.path().display();
        self.ui.note(&format!("stopped after step {}; go on with: peftk train --out {run} --resume", progress.step));
        Error::Interrupted
    }

    /// The rest of an epoch, its validation, and what follows from it.
    fn epoch(&mut self, progress: &mut Progress, log: &mut RunLog) -> Result<()> {
        let (epoch, batches) = (progress.epoch, self.train.batches_per_epoch());
        let bar = self.ui.bar(batches as u64, &format!("epoch {epoch}/{}", self.config.epochs));
        bar.inc(progress.batches_done as u64);
        let (mut saved, mut lr, mut begun) = (Instant::now(), self.config.lr, Instant::now());
        for batch in self.train.epoch(epoch, progress.batches_done) {
            if interrupt::requested() {
                return Err(self.stop(progress, log));
            }
            let batch = batch?;
            let count = batch.indices.len();
            let mut grads = Grads::new(&self.model.params);
            let seed = step_seed(self.config.seed, progress.step);
            let loss = forward_backward(&self.model.vit, &self.model.params, &batch, self.options, seed, &mut grads)?;
            if !loss.is_finite() {
                return Err(Error::NonFinite(format!(
                    "the loss became {loss} at step {}: lower --lr, or clip with --grad-clip 1; the state before is in {}",
                    progress.step + 1,
                    self.dir.path().display()
                )));
            }
            lr = progress.schedule.lr(progress.step as usize);
            self.optimizer.step(&mut self.model.params, &mut grads, lr)?;
            // From the end of the step before to the end of this one: waiting for data counts.
            let seconds = begun.elapsed().as_secs_f64();
            begun = Instant::now();
            progress.step += 1;
            progress.batches_done += 1;
            progress.loss_sum += loss * count as f64;
            progress.images += count;
            progress.images_trained += count;
            progress.train_s += seconds;
            let images_per_s = count as f64 / seconds.max(1e-9);
            log.write(&Line::Step(StepLine { step: progress.step, epoch: epoch as u64, loss, lr, images_per_s }))?;
            bar.inc(1);
            bar.set_message(format!(
                "loss {:.4}  {images_per_s:.1} images/s",
                progress.loss_sum / progress.images as f64
            ));
            if saved.elapsed() >= SAVE_EVERY && progress.batches_done < batches {
                self.save(progress, log)?;
                saved = Instant::now();
            }
        }
        let train_loss = progress.loss_sum / progress.images.max(1) as f64;
        let validation = match self.validate(epoch, progress.step, log) {
            Err(Error::Interrupted) => return Err(self.stop(progress, log)),
            result => result?,
        };
        let accuracy = validation.as_ref().map(Evaluation::accuracy);
        let (mut best, mut stop) = (true, false);
        if let Some(accuracy) = accuracy {
            progress.schedule.after_validation(accuracy);
            let verdict = progress.stopping.update(epoch, accuracy);
            (best, stop) = (verdict.best, verdict.stop);
        }
        let shown = accuracy
            .map_or(String::new(), |a| format!("  accuracy {:.1} %{}", 100.0 * a, if best { " (best)" } else { "" }));
        bar.set_message(format!("loss {train_loss:.4}{shown}"));
        bar.finish();
        // The result first: a kill between the two writes repeats the epoch and writes the same result again.
        if best {
            self.model.save_result(self.dir.path())?;
        }
        progress.history.push(EpochRecord {
            epoch,
            train_loss,
            val_loss: validation.as_ref().map(|v| v.loss),
            val_accuracy: accuracy,
            lr,
        });
        (progress.epoch, progress.batches_done, progress.loss_sum, progress.images) = (epoch + 1, 0, 0.0, 0);
        progress.finished = stop || epoch >= self.config.epochs;
        self.save(progress, log)?;
        log.write_curves()?;
        if stop {
            self.ui.note(&format!("stopped early: no better epoch in {}", self.config.patience.unwrap_or(0)));
        }
        Ok(())
    }

    fn validate(&self, epoch: usize, step: u64, log: &mut RunLog) -> Result<Option<Evaluation>> {
        let Some(loader) = &self.val else { return Ok(None) };
        let quiet = Ui { quiet: true, ..*self.ui };
        let bar =
            if self.ui.is_terminal { self.ui } else { &quiet }.bar(loader.batches_per_epoch() as u64, "validation");
        // Losses are compared without the smoothing that training may use.
        let options = StepOptions { label_smoothing: 0.0, ..self.options };
        let evaluation = evaluate(&self.model, loader, options, &bar)?;
        log.write(&Line::Val(ValLine {
            epoch: epoch as u64,
            step,
            loss: evaluation.loss,
            accuracy: evaluation.accuracy(),
            more: evaluation.more(),
        }))?;
        Ok(Some(evaluation))
    }
}

/// The seed of a step's dropout masks: of the run's seed and the step alone, so that a resumed step draws the same.
fn step_seed(seed: u64, step: u64) -> u64 {
    (seed ^ 0x5851_f42d_4c95_7f2d).wrapping_add(step.wrapping_mul(0x2545_f491_4f6c_dd1d))
}
