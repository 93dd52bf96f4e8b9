//! One epoch of a run: its steps, its validation, what is saved on the way and at its end.

use std::time::Instant;

use super::checkpoint::{self, EpochRecord, Progress};
use super::evaluate::{Evaluation, Thresholds, evaluate};
use super::interrupt;
use super::log::{Line, RunLog, StepLine, ValLine};
use super::model::Model;
use super::optimizer::{Optimizer, Queued};
use super::passes::Passes;
use super::run::Run;
use super::step::StepOptions;
use super::ui::Bar;
use crate::autograd::{Backend, Grads, LaterNumber};
use crate::data::Batch;
use crate::gpu::{EnergyMeter, profile};
use crate::{Error, Result};

/// A step that was queued and is not waited for yet.
struct Step {
    loss: LaterNumber,
    update: Queued,
    images: usize,
    lr: f64,
}

/// What a step is made with.
type Parts<'a, B> = (&'a mut Model<B>, &'a mut Passes<B>, &'a mut Optimizer<B>, &'a mut Grads<B>);

impl Step {
    /// Queues its passes, then the optimiser behind them.
    fn queue<B: Backend>(
        (model, passes, optimizer, grads): Parts<'_, B>,
        batch: &Batch,
        dropout_seed: u64,
        lr: f64,
    ) -> Result<Self> {
        grads.restart();
        passes.run(&model.vit, &model.params, batch, dropout_seed, grads)?;
        let update = optimizer.queue(&mut model.params, grads, lr)?;
        // Behind the update: a copy between two launches would hold up the second.
        let loss = passes.loss(&model.params)?;
        Ok(Self { loss, update, images: batch.indices.len(), lr })
    }
}

impl<B: Backend> Run<'_, B> {
    fn save(&self, progress: &mut Progress, log: &RunLog) -> Result<()> {
        // Values that are no numbers must never take the place of good ones.
        self.check_values(progress.step)?;
        log.sync()?;
        if let Some(joules) = self.meter.as_ref().and_then(EnergyMeter::since) {
            *progress.energy_j.get_or_insert(0.0) += joules;
        }
        progress.log_lines = log.lines();
        let mut stored = progress.clone();
        stored.wall_s += self.start.elapsed().as_secs_f64();
        stored.peak_bytes = stored.peak_bytes.max(self.model.params.backend().peak_bytes());
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

    /// Numbers that are none any more: what happened, the mend, what is left.
    fn diverged(&self, what: &str) -> Error {
        let run = self.dir.path().display();
        let left = if self.dir.last().exists() {
            format!("what was trained before is kept in {run}")
        } else {
            "nothing was saved before".to_owned()
        };
        Error::NonFinite(format!("{what}: start again with a lower --lr, or clip with --grad-clip 1; {left}"))
    }

    /// Refuses to save over a good state what the last update has spoilt: its own loss was computed before it.
    fn check_values(&self, step: u64) -> Result<()> {
        for (_, param) in self.model.params.trainable() {
            let sum = self.model.params.backend().sum_squares(param.value.buffer())?;
            if !sum.is_finite() {
                return Err(self.diverged(&format!("{} is no longer finite after step {step}", param.name)));
            }
        }
        Ok(())
    }

    /// Waits for a step that was queued, and counts it.
    fn finish_step(
        &self,
        queued: Option<Step>,
        begun: &mut Instant,
        progress: &mut Progress,
        log: &mut RunLog,
        bar: &Bar,
    ) -> Result<()> {
        let Some(Step { loss, update, images, lr }) = queued else { return Ok(()) };
        let (loss, updated) = (loss()?, update.norm());
        // The loss first among what can be wrong: it is what the user watches.
        if !loss.is_finite() {
            return Err(self.diverged(&format!("the loss became {loss} at step {}", progress.step + 1)));
        }
        updated.map_err(|error| match error {
            Error::NonFinite(what) => self.diverged(&what),
            other => other,
        })?;
        // From the end of the step before to the end of this one: waiting for data counts.
        let seconds = begun.elapsed().as_secs_f64();
        *begun = Instant::now();
        progress.step += 1;
        progress.batches_done += 1;
        progress.loss_sum += loss * images as f64;
        progress.images += images;
        progress.images_trained += images;
        progress.train_s += seconds;
        let images_per_s = images as f64 / seconds.max(1e-9);
        let (step, epoch) = (progress.step, progress.epoch as u64);
        log.write(&Line::Step(StepLine { step, epoch, loss, lr, images_per_s }))?;
        bar.inc(1);
        bar.set_message(format!("loss {:.4}  {images_per_s:.1} images/s", progress.loss_sum / progress.images as f64));
        Ok(())
    }

    /// The rest of an epoch, its validation, and what follows from it.
    pub(super) fn epoch(&mut self, progress: &mut Progress, log: &mut RunLog) -> Result<()> {
        let (epoch, batches) = (progress.epoch, self.train.per_epoch());
        if progress.batches_done < batches {
            match self.prepare_training() {
                Err(Error::Interrupted) => return Err(self.stop(progress, log)),
                result => result?,
            }
        }
        let bar = self.ui.bar(batches as u64, &format!("epoch {epoch}/{}", self.config.epochs));
        bar.inc(progress.batches_done as u64);
        let (mut saved, mut begun) = (Instant::now(), Instant::now());
        // Where work is queued, a step is waited for when the next is: the device does not wait for this side.
        let queues = self.model.params.backend().queues();
        let mut pending = None;
        for batch in self.train.epoch(epoch, progress.batches_done) {
            if interrupt::requested() {
                self.finish_step(pending.take(), &mut begun, progress, log, &bar)?;
                return Err(self.stop(progress, log));
            }
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    self.finish_step(pending.take(), &mut begun, progress, log, &bar)?;
                    return Err(error);
                }
            };
            let _range = profile::range("step");
            let step = progress.step + u64::from(pending.is_some());
            let lr = progress.schedule.lr(step as usize);
            let seed = step_seed(self.config.seed, step);
            let parts = (&mut self.model, &mut self.passes, &mut self.optimizer, &mut self.grads);
            let queued = match Step::queue(parts, &batch, seed, lr) {
                Ok(queued) => queued,
                Err(error) => {
                    self.finish_step(pending.take(), &mut begun, progress, log, &bar)?;
                    return Err(error);
                }
            };
            self.finish_step(pending.replace(queued), &mut begun, progress, log, &bar)?;
            if !queues {
                self.finish_step(pending.take(), &mut begun, progress, log, &bar)?;
            }
            let done = progress.batches_done + usize::from(pending.is_some());
            if saved.elapsed() >= self.save_every && done < batches {
                self.finish_step(pending.take(), &mut begun, progress, log, &bar)?;
                self.save(progress, log)?;
                saved = Instant::now();
            }
        }
        self.finish_step(pending.take(), &mut begun, progress, log, &bar)?;
        self.check_values(progress.step)?;
        let train_loss = progress.loss_sum / progress.images.max(1) as f64;
        let validation = match self.validate(epoch, progress.step, log) {
            Err(Error::Interrupted) => return Err(self.stop(progress, log)),
            result => result?,
        };
        // Before the schedule hears of the accuracy; the same whether this epoch ran in one piece or not.
        let lr = progress.schedule.lr(progress.step.saturating_sub(1) as usize);
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
            if self.config.tune_thresholds {
                self.model.labels.thresholds = validation.as_ref().and_then(|v| v.best_thresholds.clone());
                self.dir.write_labels(&self.model.labels)?;
            }
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
        let Some(set) = &self.val else { return Ok(None) };
        let quiet = self.ui.hushed();
        let ui = if self.ui.is_terminal { self.ui } else { &quiet };
        // The bar of that pass ends without a line, as the other does: the epoch's is still there.
        set.prepare(&self.model, self.options.micro_batch, |images| ui.bar(images, "validation features"))?;
        let bar = ui.bar(set.per_epoch() as u64, "validation");
        // Losses are compared without the smoothing and the weights that training may use.
        let options = StepOptions { criterion: self.options.criterion.plain(), ..self.options.clone() };
        let thresholds = if self.config.tune_thresholds { Thresholds::Find } else { Thresholds::Given(None) };
        let evaluation = evaluate(&self.model, set.epoch(0, 0), &options, thresholds, &bar)?;
        if !evaluation.loss.is_finite() {
            return Err(self.diverged(&format!("the validation loss became {} in epoch {epoch}", evaluation.loss)));
        }
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
