//! From a wish for memory to a plan: how many images go through the model at once, and what is computed again.
//!
//! There is no BatchNorm, so a batch in micro-batches is exact and computes nothing twice: that comes first. What still does not fit is computed
//! again in the backward pass, the cheapest first.

use super::report::MemoryPlan;
use crate::autograd::GRANULE_IMAGES;
use crate::config::{Memory, Recompute, Strategy, TrainConfig};
use crate::vit::VitConfig;
use crate::{Error, Result};

/// What a process takes on a GPU besides the arena: kernels and what the driver keeps for them. 0.4 to 4 MiB on an H100
/// (benches/results/gpu-memory-h100.jsonl).
const OUTSIDE_ARENA: u64 = 8 << 20;

/// What there is to plan for.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// A GPU, whose kernels are fast at small micro-batches too.
    pub gpu: bool,
    /// Bytes that are free there.
    pub free: Option<u64>,
    /// Images to train on.
    pub images: usize,
    /// Numbers of one image between two operations: tokens times width.
    pub unit: usize,
}

/// A way to walk a batch: images at once (none: all), and what is computed again.
type Walk = (Option<usize>, Recompute);

/// Numbers of one image between two operations of ViT-S/14 at 224 px, 257 tokens of 384: the walks of a GPU are counted in such images, so that
/// larger models take fewer at once and small pictures more.
const UNIT: usize = 257 * 384;

/// The ways from the fastest to the leanest on a GPU, for a budget. Below 64 images the launches, not the kernels, take the time (H100).
const GPU_WALKS: [Walk; 11] = [
    (None, Recompute::Nothing),
    (Some(128), Recompute::Nothing),
    (Some(64), Recompute::Nothing),
    (Some(48), Recompute::Nothing),
    (Some(48), Recompute::Cheap),
    (Some(32), Recompute::Nothing),
    (Some(32), Recompute::Cheap),
    (Some(32), Recompute::Hidden),
    (Some(32), Recompute::Linears),
    (Some(32), Recompute::Blocks),
    (Some(16), Recompute::Blocks),
];

/// The same on the CPU, whose caches want few images, but whose products want many rows.
const CPU_WALKS: [Walk; 5] = [
    (None, Recompute::Nothing),
    (Some(16), Recompute::Nothing),
    (Some(16), Recompute::Cheap),
    (Some(16), Recompute::Hidden),
    (Some(16), Recompute::Blocks),
];

impl Room {
    /// Numbers of one image of this model between two operations.
    pub fn unit_of(vit: &VitConfig, input_size: usize) -> usize {
        (1 + vit.registers + (input_size / vit.patch.max(1)).pow(2)) * vit.hidden
    }

    fn walks(&self) -> Vec<Walk> {
        match self.gpu {
            true => GPU_WALKS.map(|walk| self.scaled(walk)).to_vec(),
            false => CPU_WALKS.to_vec(),
        }
    }

    /// The walk of a mode. `full` keeps more of an image, and has four times the weights to hold beside it.
    fn walk_of(&self, memory: Memory, strategy: Strategy) -> Walk {
        if !self.gpu {
            return match memory {
                Memory::Fast => CPU_WALKS[0],
                Memory::Balanced => CPU_WALKS[1],
                Memory::Lean => CPU_WALKS[4],
            };
        }
        self.scaled(match (memory, strategy) {
            (Memory::Fast, _) => (Some(64), Recompute::Nothing),
            (Memory::Balanced, Strategy::Full) => (Some(32), Recompute::Hidden),
            (Memory::Balanced, _) => (Some(32), Recompute::Cheap),
            (Memory::Lean, _) => (Some(32), Recompute::Blocks),
        })
    }

    /// Whole granules of this model's images instead of [`UNIT`]'s.
    fn scaled(&self, (images, recompute): Walk) -> Walk {
        let own = |images: usize| {
            let granules = images as f64 * UNIT as f64 / self.unit.max(1) as f64 / GRANULE_IMAGES as f64;
            (granules.round() as usize).max(1) * GRANULE_IMAGES
        };
        (images.map(own), recompute)
    }
}

/// Settles batch size, micro-batch and recomputation in `config` where they are open, and gives the plan. `plan` plans settled settings.
///
/// # Errors
/// [`Error::Input`] when the plan, or the budget, can not be had: with the least that would do and the flag for it.
pub fn settle(
    config: &mut TrainConfig,
    room: Room,
    plan: impl Fn(&TrainConfig) -> Result<MemoryPlan>,
    note: &mut dyn FnMut(String),
) -> Result<MemoryPlan> {
    let budget = config.memory_budget.unwrap_or(u64::MAX).min(room.free.unwrap_or(u64::MAX));
    let limit = (budget < u64::MAX).then(|| budget.saturating_sub(if room.gpu { OUTSIDE_ARENA } else { 0 }));
    if config.batch_auto {
        config.batch_size = largest_batch(config, room, limit, &plan)?;
        config.batch_auto = false;
        note(format!("batch size: {} images, the most that fit at once", config.batch_size));
        if config.recompute.is_none() {
            (config.micro_batch, config.recompute) = (None, Some(room.walk_of(config.memory, config.strategy).1));
        }
    }
    let with = |config: &TrainConfig, (images, recompute): Walk| {
        // A micro-batch that was given stands.
        let images = config.micro_batch.or(images).filter(|&images| images < config.batch_size.min(room.images.max(1)));
        TrainConfig { micro_batch: images, recompute: Some(config.recompute.unwrap_or(recompute)), ..config.clone() }
    };
    let walk = room.walk_of(config.memory, config.strategy);
    let tries: Vec<Walk> = match (config.recompute, config.memory_budget) {
        // Settled before: a run that goes on, settings of another run.
        (Some(recompute), None) => vec![(config.micro_batch, recompute)],
        (_, Some(_)) => room.walks(),
        (None, None) => vec![walk],
    };
    let (mut made, mut wanted) = (None, 0);
    for walk in tries {
        let settled = with(config, walk);
        let planned = plan(&settled)?;
        wanted = planned.total();
        if limit.is_none_or(|limit| wanted <= limit) {
            made = Some((settled, planned));
            break;
        }
    }
    let Some((settled, planned)) = made else {
        let open = TrainConfig { micro_batch: None, recompute: None, ..config.clone() };
        let leanest = room.walks().pop().unwrap_or((None, Recompute::Blocks));
        let least = plan(&with(&open, leanest))?.total() + if room.gpu { OUTSIDE_ARENA } else { 0 };
        return Err(too_little(config, limit.unwrap_or(0), wanted, least));
    };
    if let Some(images) = settled.micro_batch {
        let again = match settled.recompute.unwrap_or_default() {
            Recompute::Nothing => "nothing is computed twice".to_owned(),
            what => format!("computed again: {}", words(what)),
        };
        note(format!("memory: {images} images at once, {again}; the step is that of {} images", settled.batch_size));
    } else if let Some(what) = settled.recompute.filter(|&what| what != Recompute::Nothing) {
        note(format!("memory: computed again: {}", words(what)));
    }
    *config = settled;
    Ok(planned)
}

/// The largest batch that goes through the model at once, `config`'s at most.
fn largest_batch(
    config: &TrainConfig,
    room: Room,
    limit: Option<u64>,
    plan: &impl Fn(&TrainConfig) -> Result<MemoryPlan>,
) -> Result<usize> {
    let Some(limit) = limit else {
        return Err(Error::input(
            "--batch-size auto: on the CPU it needs --memory-budget, such as --memory-budget 4GiB",
        ));
    };
    let recompute = config.recompute.unwrap_or(room.walk_of(config.memory, config.strategy).1);
    let fits = |units: usize| -> Result<bool> {
        let batch_size = units * GRANULE_IMAGES;
        let settled = TrainConfig { batch_size, micro_batch: None, recompute: Some(recompute), ..config.clone() };
        Ok(plan(&settled)?.total() <= limit)
    };
    // The last batch of fewer images than there are is the set itself.
    let most = config.batch_size.min(room.images.max(1).next_multiple_of(GRANULE_IMAGES)) / GRANULE_IMAGES;
    if fits(most)? {
        return Ok((most * GRANULE_IMAGES).min(room.images.max(1)));
    }
    let (mut low, mut high) = (0, most);
    while high - low > 1 {
        let middle = low.midpoint(high);
        if fits(middle)? { low = middle } else { high = middle }
    }
    match low {
        0 => Err(Error::input(format!(
            "--batch-size auto: not even {GRANULE_IMAGES} images fit at once into {}; give a number, and --memory lean",
            mib(limit)
        ))),
        units => Ok(units * GRANULE_IMAGES),
    }
}

/// Why nothing fits, and what would: `wanted` bytes are more than `limit`, the run takes `least` at least.
fn too_little(config: &TrainConfig, limit: u64, wanted: u64, least: u64) -> Error {
    if let Some(budget) = config.memory_budget.filter(|&budget| budget < least) {
        return Error::input(format!(
            "--memory-budget: {} are too little: the least that this run takes is {}; give --memory-budget {}MiB",
            mib(budget),
            mib(least),
            least.div_ceil(1 << 20)
        ));
    }
    let mend = if least <= limit {
        format!("give --memory-budget {}MiB, or --memory lean; the least is {}", limit >> 20, mib(least))
    } else {
        format!(
            "the least that this run takes is {}: use a smaller model or --input-size, or free the GPU's memory",
            mib(least)
        )
    };
    Error::input(format!("out of memory: the plan takes {}, {} are there: {mend}", mib(wanted), mib(limit)))
}

fn words(what: Recompute) -> &'static str {
    match what {
        Recompute::Nothing => "nothing",
        Recompute::Cheap => "LayerNorm and GELU",
        Recompute::Hidden => "LayerNorm, GELU and the MLP's first linear",
        Recompute::Linears => "LayerNorm, GELU, the MLP's first linear, query, key and value",
        Recompute::Blocks => "whole blocks",
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 bytes a image at once and 1000 beside them, less for what is computed again.
    fn of(config: &TrainConfig) -> Result<MemoryPlan> {
        let images = config.micro_batch.unwrap_or(config.batch_size) as u64;
        let each = 100 - 15 * config.recompute.unwrap_or_default() as u64;
        Ok(MemoryPlan { parts: vec![("all".into(), (1000 + images * each) << 20)] })
    }

    fn settled(memory: Memory, budget: Option<u64>, free: Option<u64>, batch: usize) -> Result<Walk> {
        let budget = budget.map(|mib| mib << 20);
        let mut config = TrainConfig { memory, memory_budget: budget, batch_size: batch, ..TrainConfig::default() };
        let room = Room { gpu: true, free: free.map(|mib| mib << 20), images: 1000, unit: UNIT };
        settle(&mut config, room, of, &mut |_| {})?;
        Ok((config.micro_batch, config.recompute.unwrap()))
    }

    #[test]
    fn modes_are_points_of_the_plan() {
        let of_mode = |memory| settled(memory, None, None, 256).unwrap();
        assert_eq!(of_mode(Memory::Fast), (Some(64), Recompute::Nothing));
        assert_eq!(of_mode(Memory::Balanced), (Some(32), Recompute::Cheap));
        assert_eq!(of_mode(Memory::Lean), (Some(32), Recompute::Blocks));
        assert_eq!(settled(Memory::Fast, None, None, 8).unwrap(), (None, Recompute::Nothing));
    }

    #[test]
    fn larger_models_take_fewer_images() {
        let images = |unit| Room { gpu: true, free: None, images: 1000, unit }.scaled((Some(48), Recompute::Nothing)).0;
        assert_eq!([UNIT / 15, UNIT, 2 * UNIT, 8 * UNIT].map(images), [Some(720), Some(48), Some(32), Some(16)]);
    }

    #[test]
    fn a_budget_takes_the_fastest_that_fits() {
        let within = |mib| settled(Memory::Fast, Some(mib), None, 256).unwrap();
        assert_eq!(within(100_000), (None, Recompute::Nothing));
        assert_eq!(within(7_500), (Some(64), Recompute::Nothing));
        assert_eq!(within(5_100), (Some(48), Recompute::Cheap));
        assert_eq!(within(4_300), (Some(32), Recompute::Nothing));
        assert_eq!(within(2_400), (Some(32), Recompute::Blocks));
        assert_eq!(within(1_700), (Some(16), Recompute::Blocks));
    }

    #[test]
    fn what_cannot_be_had_says_the_least_that_can() {
        let error = settled(Memory::Fast, Some(1_500), None, 256).unwrap_err().to_string();
        assert!(error.contains("--memory-budget 1648MiB"), "{error}");
        let error = settled(Memory::Fast, None, Some(2_000), 256).unwrap_err().to_string();
        assert!(error.contains("7400 MiB") && error.contains("--memory-budget 1992MiB"), "{error}");
        let error = settled(Memory::Fast, None, Some(1_100), 256).unwrap_err().to_string();
        assert!(error.contains("the least that this run takes is 1648 MiB"), "{error}");
    }

    #[test]
    fn a_budget_does_not_reach_beyond_what_is_free() {
        assert_eq!(settled(Memory::Fast, Some(100_000), Some(4_300), 256).unwrap(), (Some(32), Recompute::Nothing));
        let error = settled(Memory::Fast, Some(100_000), Some(1_100), 256).unwrap_err().to_string();
        assert!(error.contains("1092 MiB are there") && error.contains("the least that this run takes"), "{error}");
    }

    #[test]
    fn auto_takes_the_largest_batch_that_fits_at_once() {
        let batch = |free: u64, images| {
            let mut config = TrainConfig { batch_auto: true, batch_size: 256, ..TrainConfig::default() };
            let room = Room { gpu: true, free: Some(free << 20), images, unit: UNIT };
            settle(&mut config, room, of, &mut |_| {}).map(|_| (config.batch_size, config.micro_batch))
        };
        assert_eq!(batch(100_000, 1000).unwrap(), (256, None));
        assert_eq!(batch(100_000, 50).unwrap(), (50, None));
        assert_eq!(batch(9_100, 1000).unwrap(), (80, None));
        assert!(batch(2_000, 1000).unwrap_err().to_string().contains("not even 16"));
    }
}
