//! Tests of the planner, on a plan that is a formula.

use super::*;

/// 1000 MiB that are held, and for each image at once 24 MiB less what is computed again: 5, 5, 2 and 9.
fn of(config: &TrainConfig) -> Result<MemoryPlan> {
    let images = config.micro_batch.unwrap_or(config.batch_size) as u64;
    let less = |block| [0, 5, 10, 12, 21][config.recompute.unwrap_or_default().of_block(block) as usize];
    let each: u64 = 24 * BLOCKS as u64 - (0..BLOCKS).map(less).sum::<u64>();
    let parts = [(MemoryPlan::HELD[0], 1000), ("saved", images * each / BLOCKS as u64)];
    Ok(MemoryPlan { parts: parts.map(|(name, mib)| (name.to_owned(), mib << 20)).to_vec() })
}

fn room(free: Option<u64>) -> Room {
    Room { gpu: true, free: free.map(|mib| mib << 20), images: 1000, unit: UNIT, blocks: BLOCKS }
}

fn settled(memory: Memory, budget: Option<u64>, free: Option<u64>, batch: usize) -> Result<Walk> {
    let budget = budget.map(|mib| mib << 20);
    let mut config = TrainConfig { memory, memory_budget: budget, batch_size: batch, ..TrainConfig::default() };
    settle(&mut config, room(free), of, &mut |_| {})?;
    Ok((config.micro_batch, config.recompute.unwrap()))
}

/// Bytes of a walk of 256 images by [`of`], and the time that is expected of it.
fn outcome((images, recompute): Walk) -> (u64, f64) {
    let config =
        TrainConfig { micro_batch: images, recompute: Some(recompute), batch_size: 256, ..TrainConfig::default() };
    let base = room(None).time_of(images.unwrap_or(256));
    (of(&config).unwrap().total(), base * (1.0 + room(None).again(&DORA, recompute)))
}

#[test]
fn modes_are_points_of_the_plan() {
    let settled = |memory, batch| settled(memory, None, None, batch).unwrap();
    let found = Memory::ALL.map(|memory| outcome(settled(memory, 256)));
    let most = Memory::ALL.map(|memory| {
        (1000 << 20) + room(None).of_mode(&TrainConfig { memory, batch_size: 256, ..TrainConfig::default() })
    });
    for ((bytes, _), most) in found.iter().zip(most) {
        assert!(*bytes <= most && *bytes > (1000 << 20) + (most - (1000 << 20)) / 2, "{bytes} of {most}");
    }
    assert!(found.is_sorted_by(|a, b| a.0 > b.0 && a.1 < b.1), "leaner is slower: {found:?}");
    assert_eq!(settled(Memory::Fast, 8), (None, Recompute::NOTHING));
}

#[test]
fn larger_models_take_fewer_images_and_have_more_room() {
    let of = |unit| Room { unit, ..room(None) };
    let images = |unit| of(unit).images_at_once(48);
    assert_eq!([UNIT / 15, UNIT, 2 * UNIT, 8 * UNIT].map(images), [720, 48, 32, 16]);
    let mode = |unit, memory| of(unit).of_mode(&TrainConfig { memory, batch_size: 64, ..TrainConfig::default() });
    for memory in [Memory::Fast, Memory::Balanced] {
        assert_eq!(mode(2 * UNIT, memory), 2 * mode(UNIT, memory));
        assert!(mode(UNIT / 100, memory) > mode(UNIT, memory) / 10);
    }
    assert_eq!(mode(2 * UNIT, Memory::Lean), mode(UNIT, Memory::Lean));
}

#[test]
fn a_budget_takes_the_fastest_that_fits() {
    let steps = room(None).steps();
    assert_eq!(steps.len(), 4 * BLOCKS);
    let whole = room(None);
    let all = whole.gpu_images().flat_map(|images| steps.iter().map(move |&step| (images, step)));
    let all: Vec<_> = all.map(outcome).collect();
    for mib in [1_076, 1_150, 1_300, 1_700, 2_300, 2_600, 4_100, 100_000] {
        let (bytes, time) = outcome(settled(Memory::Lean, Some(mib), None, 256).unwrap());
        let most = (mib << 20) - OUTSIDE_ARENA;
        let best = all.iter().filter(|walk| walk.0 <= most).map(|walk| walk.1).fold(f64::INFINITY, f64::min);
        assert!(bytes <= most && time <= best * (1.0 + NEAR), "{mib} MiB: {time}, {best} can be had");
    }
    let frozen = |mib: u64| {
        let (strategy, adapter) = (Strategy::Freeze, None);
        let budget = Some(mib << 20);
        let mut config =
            TrainConfig { strategy, adapter, memory_budget: budget, batch_size: 256, ..TrainConfig::default() };
        settle(&mut config, room(None), of, &mut |_| {}).map(|_| (config.micro_batch, config.recompute.unwrap()))
    };
    assert_eq!(frozen(2_600).unwrap(), (Some(64), Recompute::NOTHING));
    assert!(frozen(1_200).is_err());
}

#[test]
fn what_cannot_be_had_says_the_least_that_can() {
    let error = settled(Memory::Fast, Some(1_050), None, 256).unwrap_err().to_string();
    assert!(error.contains("--memory-budget 1068MiB"), "{error}");
    let error = settled(Memory::Fast, None, Some(1_040), 256).unwrap_err().to_string();
    assert!(error.contains("the least that this run takes is 1068 MiB"), "{error}");
    let error = settled(Memory::Fast, Some(100_000), Some(1_050), 256).unwrap_err().to_string();
    assert!(error.contains("1042 MiB are there") && error.contains("the least that this run takes"), "{error}");
}

#[test]
fn no_mode_and_no_budget_reaches_beyond_what_is_free() {
    let within = |budget, free| outcome(settled(Memory::Fast, budget, Some(free), 256).unwrap()).0;
    assert!(within(None, 2_300) <= 2_292 << 20 && within(None, 2_300) > 2_000 << 20);
    assert!(within(Some(100_000), 2_600) <= 2_592 << 20 && within(Some(100_000), 2_600) > 2_300 << 20);
}

#[test]
fn auto_takes_the_largest_batch_that_fits_at_once() {
    let batch = |free: u64, images| {
        let mut config = TrainConfig { batch_auto: true, batch_size: 256, ..TrainConfig::default() };
        let room = Room { images, ..room(Some(free)) };
        settle(&mut config, room, of, &mut |_| {}).map(|_| (config.batch_size, config.micro_batch))
    };
    assert_eq!(batch(100_000, 1000).unwrap(), (256, None));
    assert_eq!(batch(100_000, 50).unwrap(), (50, None));
    assert_eq!(batch(3_000, 1000).unwrap(), (80, None));
    assert!(batch(1_100, 1000).unwrap_err().to_string().contains("not even 16"));
}
