//! From a wish for memory to a plan: how many images go through the model at once, and what is computed again.
//!
//! There is no BatchNorm, so a batch in micro-batches is exact and computes nothing twice: that comes first. What still does not fit is computed
//! again in the backward pass, what buys the most memory for its time first.

use super::report::MemoryPlan;
use crate::autograd::GRANULE_IMAGES;
use crate::config::{Level, Memory, Recompute, Strategy, TrainConfig};
use crate::vit::VitConfig;
use crate::{Error, Result};

/// What a process takes on a GPU besides the arena: kernels, recordings and what the driver keeps for them. 3 to 8 MiB on an H100
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
    /// Blocks of the model.
    pub blocks: usize,
}

/// A way to walk a batch: images at once (none: all), and what is computed again.
type Walk = (Option<usize>, Recompute);

/// Numbers of one image between two operations of ViT-S/14 at 224 px, 257 tokens of 384: the walks of a GPU are counted in such images, so that
/// larger models take fewer at once and small pictures more.
const UNIT: usize = 257 * 384;
/// Blocks of ViT-S/14.
const BLOCKS: usize = 12;

/// Images at once on a GPU, and how long a step then takes beside one of 64 at once, by `lora` on an H100 (the last
/// lines of benches/results/gpu-memory-h100.jsonl, of a build with slower kernels).
const GPU_IMAGES: [(usize, f64); 6] = [(256, 0.94), (128, 0.97), (64, 1.0), (48, 1.14), (32, 1.105), (16, 1.58)];

/// MiB of ViT-S/14 for all but weights, gradients and moments, in a mode: for a batch of 64 images at most, and for one of 256 and more.
const ROOM: [(Memory, f64, f64); 3] =
    [(Memory::Fast, 1510.0, 1510.0), (Memory::Balanced, 845.0, 943.0), (Memory::Lean, 288.0, 382.0)];

/// Of two walks whose times differ by less, the leaner one is taken: the times are no better known.
const NEAR: f64 = 0.012;

/// What walks depend on besides sizes.
struct Kind {
    /// Its share of [`ROOM`]: of the same wish, who keeps more of an image has more room.
    room: f64,
    /// What computing again adds to a step's time, by level, from the same figures.
    again: [f64; 5],
}

/// Adapters in attention; DoRA's have less, because they hold more for their norms.
const LORA: Kind = Kind { room: 1.0, again: [0.0, 0.05, 0.14, 0.16, 0.42] };
const DORA: Kind = Kind { room: 0.975, ..LORA };
/// Adapters in the MLP too: they keep what they read there.
const MLP: Kind = Kind { room: 1.15, again: [0.0, 0.03, 0.09, 0.15, 0.36] };
/// Every linear reads what it read again, and its weight's sums have parts.
const FULL: Kind = Kind { room: 1.077, again: [0.0, 0.025, 0.075, 0.14, 0.29] };

impl Kind {
    fn of(config: &TrainConfig) -> &'static Self {
        let in_attention = |target: &String| ["q_proj", "k_proj", "v_proj", "o_proj"].contains(&target.as_str());
        match (config.strategy, &config.adapter) {
            (Strategy::Full, _) => &FULL,
            (_, Some(adapter)) if !adapter.targets.iter().all(in_attention) => &MLP,
            (Strategy::Lora, _) => &LORA,
            _ => &DORA,
        }
    }
}

/// The ways from the fastest to the leanest on the CPU, whose caches want few images, but whose products want many rows.
const CPU_WALKS: [Walk; 5] = [
    (None, Recompute::NOTHING),
    (Some(16), Recompute::NOTHING),
    (Some(16), Recompute::HIDDEN),
    (Some(16), Recompute::POINTWISE),
    (Some(16), Recompute::BLOCKS),
];

impl Room {
    /// For a model at this input size.
    pub fn of(vit: &VitConfig, input_size: usize, images: usize, gpu: bool, free: Option<u64>) -> Self {
        let unit = (1 + vit.registers + (input_size / vit.patch.max(1)).pow(2)) * vit.hidden;
        Self { gpu, free, images, unit, blocks: vit.layers }
    }

    /// The walk of a mode where no plan is searched for: on the CPU, for a frozen backbone, for one batch as large as can be.
    fn walk_of(&self, memory: Memory, strategy: Strategy) -> Walk {
        match (self.gpu, memory, strategy) {
            (false, Memory::Fast, _) => CPU_WALKS[0],
            (false, Memory::Balanced, _) => CPU_WALKS[1],
            (false, Memory::Lean, _) => CPU_WALKS[4],
            // Nothing is kept, and there is nothing to compute again.
            (true, Memory::Lean, Strategy::Freeze) => (Some(self.images_at_once(32)), Recompute::NOTHING),
            (true, _, Strategy::Freeze) => (Some(self.images_at_once(64)), Recompute::NOTHING),
            (true, Memory::Fast, _) => (None, Recompute::NOTHING),
            (true, Memory::Balanced, _) => (None, Recompute::QKV),
            (true, Memory::Lean, _) => (None, self.most_again()),
        }
    }

    /// The least that can be had.
    fn leanest(&self) -> Walk {
        if self.gpu { (Some(self.images_at_once(GRANULE_IMAGES)), self.most_again()) } else { CPU_WALKS[4] }
    }

    /// Whole granules of this model's images instead of [`UNIT`]'s.
    fn images_at_once(&self, images: usize) -> usize {
        let granules = images as f64 * UNIT as f64 / self.unit.max(1) as f64 / GRANULE_IMAGES as f64;
        (granules.round() as usize).max(1) * GRANULE_IMAGES
    }

    /// The numbers of images at once that are tried on a GPU, all of them first.
    fn gpu_images(&self) -> impl Iterator<Item = Option<usize>> {
        GPU_IMAGES.into_iter().enumerate().map(|(index, (images, _))| (index > 0).then(|| self.images_at_once(images)))
    }

    /// The time of a step with so many images at once, beside one of 64 of [`UNIT`]'s.
    fn time_of(&self, images: usize) -> f64 {
        // Half a granule less counts as whole.
        let own = (images as f64 + 8.0) * self.unit as f64 / UNIT as f64;
        let known = GPU_IMAGES.into_iter().find(|(count, _)| own >= *count as f64);
        known.map_or(GPU_IMAGES[GPU_IMAGES.len() - 1].1, |(_, time)| time)
    }

    /// Bytes for all but what is held throughout, in a mode on a GPU. It grows with what a model keeps of an image; small ones have more than
    /// their share, and `lean` has no more for large ones.
    fn of_mode(&self, config: &TrainConfig) -> u64 {
        let scale = (self.unit * self.blocks) as f64 / (UNIT * BLOCKS) as f64;
        let scale = if config.memory == Memory::Lean { scale.min(1.0) } else { scale.max(0.2) };
        let large = ((config.batch_size as f64 / 64.0).log2() / 2.0).clamp(0.0, 1.0);
        let of = ROOM.into_iter().find(|(mode, ..)| *mode == config.memory);
        let mib = of.map_or(0.0, |(_, at_64, at_256)| at_64 + large * (at_256 - at_64));
        (mib * scale * Kind::of(config).room * f64::from(1 << 20)) as u64
    }

    /// The most that saves memory: all blocks but the last, which is walked back first. Run again as a whole it would be there as a whole,
    /// beside the inputs of all others.
    fn most_again(&self) -> Recompute {
        match u16::try_from(self.blocks) {
            Ok(blocks) if blocks > 1 => Recompute::in_first(Level::Blocks, blocks - 1),
            _ => Recompute::BLOCKS,
        }
    }

    /// All that can be computed again, from nothing to whole blocks, one block more at a time. Each takes less memory than the one before, but for
    /// a few MiB where the arena's places fall otherwise: halving may then pass over a step that would fit as well.
    fn steps(&self) -> Vec<Recompute> {
        let blocks = u16::try_from(self.blocks).unwrap_or(u16::MAX).max(1);
        let some = |level| {
            (1..=blocks).map(move |first| {
                if first == blocks { Recompute::everywhere(level) } else { Recompute::in_first(level, first) }
            })
        };
        let all = [Recompute::NOTHING].into_iter().chain(Level::ALL.into_iter().skip(1).flat_map(some));
        all.filter(|&step| step != Recompute::BLOCKS || self.most_again() == step).collect()
    }

    /// What computing again adds to a step's time.
    fn again(&self, kind: &Kind, recompute: Recompute) -> f64 {
        let (level, first) = recompute.parts();
        let (here, before) = (kind.again[level as usize], kind.again[(level as usize).saturating_sub(1)]);
        before + first.map_or(1.0, |first| f64::from(first) / self.blocks.max(1) as f64) * (here - before)
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
    let try_walk = |walk: Walk| -> Result<(TrainConfig, MemoryPlan)> {
        let settled = with(config, walk);
        let planned = plan(&settled)?;
        Ok((settled, planned))
    };
    let fits = |total: u64| limit.is_none_or(|limit| total <= limit);
    let (mut made, mut wanted) = (None, 0);
    if room.gpu && config.recompute.is_none() && config.strategy != Strategy::Freeze {
        let least = try_walk(room.leanest())?;
        let mode = least.1.held() + room.of_mode(config);
        let most = if config.memory_budget.is_some() { u64::MAX } else { mode }.min(limit.unwrap_or(u64::MAX));
        // A mode that is too little for this model is as lean as can be.
        let found = fastest(room, Kind::of(config), most, &try_walk)?.unwrap_or(least);
        wanted = found.1.total();
        made = Some(found).filter(|_| fits(wanted));
    } else {
        let tries = match (config.recompute, config.memory_budget) {
            // Settled before: a run that goes on, settings of another run.
            (Some(recompute), None) => vec![(config.micro_batch, recompute)],
            (_, Some(_)) if room.gpu => room.gpu_images().map(|images| (images, Recompute::NOTHING)).collect(),
            (_, Some(_)) => CPU_WALKS.to_vec(),
            (None, None) => vec![room.walk_of(config.memory, config.strategy)],
        };
        for walk in tries {
            let tried = try_walk(walk)?;
            wanted = tried.1.total();
            if fits(wanted) {
                made = Some(tried);
                break;
            }
        }
    }
    let Some((settled, planned)) = made else {
        let open = TrainConfig { micro_batch: None, recompute: None, ..config.clone() };
        let least = plan(&with(&open, room.leanest()))?.total() + if room.gpu { OUTSIDE_ARENA } else { 0 };
        return Err(too_little(config, limit.unwrap_or(0), wanted, least));
    };
    if let Some(images) = settled.micro_batch {
        let again = match settled.recompute.unwrap_or_default() {
            Recompute::NOTHING => "nothing is computed twice".to_owned(),
            what => format!("computed again: {}", words(what)),
        };
        note(format!("memory: {images} images at once, {again}; the step is that of {} images", settled.batch_size));
    } else if let Some(what) = settled.recompute.filter(|&what| what != Recompute::NOTHING) {
        note(format!("memory: computed again: {}", words(what)));
    }
    *config = settled;
    Ok(planned)
}

/// The walk with the least time among those that take at most `most` bytes.
fn fastest(
    room: Room,
    kind: &Kind,
    most: u64,
    try_walk: &impl Fn(Walk) -> Result<(TrainConfig, MemoryPlan)>,
) -> Result<Option<(TrainConfig, MemoryPlan)>> {
    let steps = room.steps();
    let (mut best, mut time, mut seen) = (None, f64::INFINITY, Vec::new());
    for images in room.gpu_images() {
        let mut found = try_walk((images, steps[steps.len() - 1]))?;
        let images = found.0.micro_batch;
        // A micro-batch that was given, or a small batch, makes one walk of several.
        if found.1.total() > most || seen.contains(&images) {
            continue;
        }
        seen.push(images);
        let base = room.time_of(images.unwrap_or(found.0.batch_size.min(room.images)));
        let of = |step: usize| base * (1.0 + room.again(kind, steps[step]));
        // The steps that would still be faster than the best so far, or as fast.
        let near = time * (1.0 + NEAR);
        let Some(last) = (0..steps.len()).take_while(|&step| of(step) < near).count().checked_sub(1) else { continue };
        if last + 1 < steps.len() {
            found = try_walk((images, steps[last]))?;
            if found.1.total() > most {
                continue;
            }
        }
        let (mut low, mut high) = (0, last);
        while low < high {
            let middle = low.midpoint(high);
            let tried = try_walk((images, steps[middle]))?;
            if tried.1.total() <= most {
                (high, found) = (middle, tried);
            } else {
                low = middle + 1;
            }
        }
        let less = best.as_ref().is_none_or(|(_, plan): &(_, MemoryPlan)| found.1.total() < plan.total());
        if of(high) < time || less {
            (time, best) = (of(high), Some(found));
        }
    }
    Ok(best)
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

fn words(what: Recompute) -> String {
    let of = |level| match level {
        Level::Nothing => "nothing",
        Level::Qkv => "query, key and value",
        Level::Hidden => "query, key, value and the MLP's first linear",
        Level::Pointwise => "query, key, value, the MLP's first linear, LayerNorm and GELU",
        Level::Blocks => "whole blocks",
    };
    match what.parts() {
        (level, None) => of(level).to_owned(),
        (level, Some(first)) => {
            let rest = of(what.of_block(usize::MAX));
            format!("in the first {first} blocks {}, in the others {rest}", of(level))
        }
    }
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
#[path = "planner_tests.rs"]
mod tests;
