//! `peftk bench`: the bare training step, timed, with the device memory that it took.

use std::time::Instant;

use serde::Serialize;

use super::bare_step::BareStep;
use super::place::Place;
use super::report::MemoryPlan;
use super::ui::Ui;
use crate::autograd::Backend;
use crate::config::TrainConfig;
use crate::gpu::{DType, Device};
use crate::{Error, Result};

/// The commit that this program was built from; "unknown" where the build could not tell.
pub const COMMIT: &str = env!("PEFTK_BUILT_FROM");

/// One configuration to measure.
#[derive(Clone, Debug)]
pub struct Case {
    /// Strategy, adapter, batch, input size, micro-batch, device and precision; the rest plays no part.
    pub config: TrainConfig,
    /// Named size of the model, as [`crate::vit::VitConfig::named`] takes it.
    pub size: String,
    /// Classes of the head.
    pub classes: usize,
    /// `--memory`, for the line alone: what is behind it stands in `config`.
    pub memory: String,
    /// `--targets` as given, for the line alone.
    pub targets: String,
    /// Steps before the counted ones.
    pub warmup: usize,
    /// Counted steps, at least one.
    pub steps: usize,
    /// The type of a GPU's residual stream where it is not the precision's own.
    pub residual: Option<DType>,
    /// Marks the counted steps on a GPU for a profiler that waits for it.
    pub profile: bool,
}

/// What became of a case. Serialised it is a line of `bench --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The case.
    #[serde(flatten)]
    pub what: What,
    /// The figures, or why there are none.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// A case in a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct What {
    /// What was trained.
    pub strategy: &'static str,
    /// Size of the model.
    pub size: String,
    /// Images a step.
    pub batch: usize,
    /// `--memory`.
    pub memory: String,
    /// Linears with an adapter; none where the strategy has no adapter.
    pub targets: Option<String>,
    /// Their rank.
    pub rank: Option<usize>,
}

/// The figures of a case, or why there are none.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Outcome {
    /// It ran.
    Measured(Measured),
    /// It could not: too little memory, an adapter that the model has no place for.
    Failed {
        /// Why, in one line.
        error: String,
        /// [`COMMIT`].
        commit: &'static str,
    },
}

/// Speed and memory of the counted steps. A MiB is 2^20 bytes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Wall time, the upload of the images included.
    pub images_per_s: f64,
    /// The same by step.
    pub ms_per_step: f64,
    /// What the driver has less of than before the model, so without the empty context and with the kernels' code; none on the CPU.
    pub device_mib: Option<f64>,
    /// What the plan says.
    pub planned_mib: f64,
    /// The device's name.
    pub device: String,
    /// [`COMMIT`].
    pub commit: &'static str,
    /// Images that go through the model at once; none: the whole batch.
    pub micro_batch: Option<usize>,
    /// What the backward pass computes again.
    pub recompute: String,
    /// In which numbers.
    pub precision: &'static str,
    /// Most bytes in use at once, as this program counts them.
    pub peak_mib: f64,
    /// The kernels' architecture; none on the CPU.
    pub kernels: Option<String>,
    /// Loss of the last step: two builds that compute the same show the same.
    pub loss: f64,
}

/// Measures one case after the other, each on a device opened for it, and hands each line out as soon as it is there.
///
/// # Errors
/// When the device cannot be had, before the first case; what `each` returns; [`Error::Input`] when every case failed. A case that fails
/// beside others that do not is a line, and no error.
pub fn bench(cases: &[Case], ui: &Ui, each: &mut dyn FnMut(&Line) -> Result<()>) -> Result<()> {
    let choose = |case: &Case| Place::choose(case.config.device, case.config.precision);
    // All cases name one device: without it there is nothing to say about any of them.
    let mut first = cases.first().map(choose).transpose()?;
    if let Some(place) = &first {
        ui.note(&format!("device: {}", place.words()));
    }
    let (mut failed, mut last) = (0, None);
    for case in cases {
        // A device that an earlier case used would hold the kernels' code already, and a reservation is made once.
        let place = first.take().map_or_else(|| choose(case), Ok);
        let outcome = match place.and_then(|place| measure(&place, case, ui)) {
            Ok(measured) => Outcome::Measured(measured),
            Err(error) => {
                failed += 1;
                Outcome::Failed { error: last.insert(error.to_string()).clone(), commit: COMMIT }
            }
        };
        each(&Line { what: case.what(), outcome })?;
    }
    match last {
        Some(error) if cases.len() == 1 => Err(Error::input(error)),
        Some(error) if failed == cases.len() => {
            Err(Error::input(format!("none of {failed} configurations could be measured; the last: {error}")))
        }
        _ => Ok(()),
    }
}

impl Case {
    /// What a line says of it before the figures.
    pub fn what(&self) -> What {
        let Self { config, size, memory, targets, .. } = self;
        let adapter = config.adapter.as_ref();
        What {
            strategy: config.strategy.name(),
            size: size.clone(),
            batch: config.batch_size,
            memory: memory.clone(),
            targets: adapter.map(|_| targets.clone()),
            rank: adapter.map(|adapter| adapter.rank),
        }
    }

    /// Which case it is, for the log.
    fn words(&self) -> String {
        format!("{}, batch {}, memory {}", self.config.strategy.name(), self.config.batch_size, self.memory)
    }
}

fn measure(place: &Place, case: &Case, ui: &Ui) -> Result<Measured> {
    let Case { config, size, classes, residual, .. } = case;
    match place {
        Place::Cpu => {
            let (mut step, plan) = BareStep::on_cpu(config, size, *classes)?;
            run(&mut step, &plan, None, place, case, ui)
        }
        Place::Cuda(device, precision) => {
            let free = || Ok::<_, Error>(device.driver_memory()?.map(|(free, _)| free));
            let before = free()?;
            let (mut step, plan) = BareStep::on_gpu(device, *precision, *residual, config, size, *classes)?;
            let measured = run(&mut step, &plan, Some(device), place, case, ui)?;
            let device_mib = before.zip(free()?).map(|(before, after)| mib(before.saturating_sub(after)));
            Ok(Measured { device_mib, ..measured })
        }
    }
}

/// Warms up, then times the counted steps between two waits for the device.
fn run<B: Backend>(
    step: &mut BareStep<B>,
    plan: &MemoryPlan,
    gpu: Option<&Device>,
    place: &Place,
    case: &Case,
    ui: &Ui,
) -> Result<Measured> {
    let (trained, all) = step.values();
    let planned = mib(plan.total());
    ui.note(&format!("{}: trains {trained} of {all} values; planned memory {planned:.0} MiB", case.words()));
    let bar = ui.bar((case.warmup + case.steps) as u64, &case.words());
    let mut loss = f64::NAN;
    let mut steps = |count: usize| -> Result<()> {
        for _ in 0..count {
            step.queue()?;
            bar.inc(1);
        }
        loss = step.finish()?;
        Ok(())
    };
    let wait = || gpu.map_or(Ok(()), Device::synchronize);
    steps(case.warmup)?;
    let mut counted = || {
        wait()?;
        let start = Instant::now();
        steps(case.steps)?;
        wait()?;
        Ok(start.elapsed().as_secs_f64() / case.steps.max(1) as f64)
    };
    let seconds = match gpu {
        Some(device) if case.profile => device.profiled(counted)?,
        _ => counted()?,
    };
    bar.set_message(format!("loss {loss:.4}"));
    bar.finish();
    Ok(Measured {
        images_per_s: case.config.batch_size as f64 / seconds,
        ms_per_step: seconds * 1e3,
        device_mib: None,
        planned_mib: planned,
        device: place.name(),
        commit: COMMIT,
        micro_batch: step.walk().0,
        recompute: step.walk().1.to_string(),
        precision: place.precision().name(),
        peak_mib: mib(step.peak_bytes()),
        kernels: gpu.map(|device| device.arch().to_string()),
        loss,
    })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
