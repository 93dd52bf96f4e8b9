//! From settings as given to a run's configuration: defaults filled in, every value and every pair of values checked.

use std::fmt::Display;

use super::settings::{AdapterFlags, BatchSize, Settings, TaskWord};
use super::{check_input_size, check_precision, words};
use crate::config::*;
use crate::train::check_loss;
use crate::{Error, Result};

/// Most a count may be: a product of two stays far below overflow, and no run comes near.
const LARGEST_COUNT: usize = 1_000_000;

/// The largest batch that `--batch-size auto` looks for.
const MOST_AUTO_BATCH: usize = 256;

/// Makes a configuration of `flags` over `file`. `out` stays empty.
///
/// # Errors
/// [`Error::Input`] naming the flag.
pub fn resolve(flags: &Settings, file: &Settings) -> Result<TrainConfig> {
    let MemorySettings { memory, budget, micro_batch, recompute } = memory(flags, file)?;
    // A file's adapter table belongs to its strategy: `--strategy full` over a file of a DoRA run leaves it aside.
    let mut base = file.clone();
    let strategy = flags.strategy.or(file.strategy).unwrap_or(Strategy::Dora);
    if flags.strategy.is_some_and(|s| !s.has_adapter()) && file.strategy.unwrap_or(Strategy::Dora).has_adapter() {
        base.adapter = AdapterFlags::default();
        base.init_adapter = None;
    }
    let s = flags.clone().over(base);
    let given = given(&s)?;
    if s.data.is_none() && !matches!(s.format.unwrap_or_default(), Format::Auto | Format::Folder) {
        return Err(wrong("--format", "it says how --data is laid out, and none is given; add --data DIR"));
    }
    let is_micro = s.backbone.as_deref().is_none_or(|b| matches!(b, "embedded" | "random:micro" | "random:micro-reg"));
    let (epochs, batch) =
        if s.data.is_none() { (EMBEDDED_EPOCHS, EMBEDDED_BATCH) } else { (DEFAULT_EPOCHS, DEFAULT_BATCH) };
    let config = TrainConfig {
        adapter: adapter(&s, strategy, &given)?,
        data: s.data,
        val_data: s.val_data,
        val_fraction: share("--val-fraction", s.val_fraction.unwrap_or(0.2))?,
        test_fraction: share("--test-fraction", s.test_fraction.unwrap_or(0.0))?,
        split_seed: s.split_seed.map(|n| seed("--split-seed", n)).transpose()?,
        task: s.task.and_then(TaskWord::task),
        format: s.format.unwrap_or_default(),
        skip_bad: s.skip_bad.unwrap_or(false),
        shots: s.shots.map(|n| count("--shots", n)).transpose()?,
        backbone: s.backbone,
        strategy,
        init_adapter: s.init_adapter,
        epochs: count("--epochs", s.epochs.unwrap_or(epochs))?,
        batch_size: match s.batch_size {
            Some(BatchSize::Number(n)) => count("--batch-size", n)?,
            Some(BatchSize::Auto) => MOST_AUTO_BATCH,
            None => batch,
        },
        batch_auto: s.batch_size == Some(BatchSize::Auto),
        memory,
        memory_budget: budget,
        lr: positive("--lr", s.lr.unwrap_or(strategy.default_lr(is_micro)))?,
        weight_decay: not_negative("--weight-decay", s.weight_decay.unwrap_or(0.05))?,
        decay_matrices_only: s.decay_matrices_only.unwrap_or(false),
        schedule: s.schedule.unwrap_or(ScheduleKind::Cosine),
        warmup_steps: s.warmup_steps,
        patience: s.patience.map(|n| count("--patience", n)).transpose()?,
        grad_clip: s.grad_clip.map(|x| positive("--grad-clip", x)).transpose()?,
        label_smoothing: share("--label-smoothing", s.label_smoothing.unwrap_or(0.0))?,
        loss: s.loss,
        asymmetric: s.asymmetric.map(asymmetric).transpose()?,
        class_weights: s.class_weights.map(class_weights).transpose()?,
        tune_thresholds: s.tune_thresholds.unwrap_or(false),
        seed: seed("--seed", s.seed.unwrap_or(0))?,
        input_size: check_input_size(s.input_size.unwrap_or(if is_micro {
            MICRO_INPUT_SIZE
        } else {
            DEFAULT_INPUT_SIZE
        }))?,
        resize: s.resize.unwrap_or(Resize::Squash),
        augment: s.augment.unwrap_or(Augment::Standard),
        no_shuffle: s.no_shuffle.unwrap_or(false),
        balanced: s.balanced.unwrap_or(false),
        pool: s.pool.unwrap_or(Pool::ClsMean),
        micro_batch: micro_batch.map(|n| count("--micro-batch", n)).transpose()?,
        recompute,
        cache: s.cache.unwrap_or_default(),
        device: s.device.unwrap_or_default(),
        precision: s.precision,
        out: Default::default(),
        given,
    };
    check_pairs(&config)?;
    Ok(config)
}

/// How memory is to be had.
struct MemorySettings {
    memory: Memory,
    budget: Option<u64>,
    micro_batch: Option<usize>,
    recompute: Option<Recompute>,
}

/// A flag that asks for a plan goes before the plan that a file holds; a micro-batch that is given stands in any plan.
fn memory(flags: &Settings, file: &Settings) -> Result<MemorySettings> {
    let asks = |s: &Settings| s.memory.is_some() || s.memory_budget.is_some() || s.batch_size == Some(BatchSize::Auto);
    let planned = if asks(flags) { &Settings::default() } else { file };
    let budget = flags.memory_budget.as_ref().or(planned.memory_budget.as_ref());
    let legacy = |s: &Settings| (s.checkpointing == Some(true)).then_some(Recompute::BLOCKS);
    let given = |s: &Settings| s.recompute.or(legacy(s));
    // A number of images alone says what is wanted: nothing else is planned around it.
    let asked = asks(flags) || asks(planned);
    let bare = |s: &Settings| (s.micro_batch.is_some() && !asked).then_some(Recompute::NOTHING);
    Ok(MemorySettings {
        memory: flags.memory.or(planned.memory).unwrap_or_default(),
        budget: budget.map(|text| words::bytes(text).map_err(|e| wrong("--memory-budget", e))).transpose()?,
        micro_batch: flags.micro_batch.or(planned.micro_batch),
        recompute: given(flags).or_else(|| given(planned)).or_else(|| bare(flags)).or_else(|| bare(planned)),
    })
}

/// What was asked for among the settings that an adapter folder fixes too.
fn given(s: &Settings) -> Result<Given> {
    let targets = s.adapter.targets.as_ref();
    Ok(Given {
        strategy: s.strategy,
        targets: targets.map(|t| words::targets(t)).transpose().map_err(|e| wrong("--targets", e))?,
        rank: s.adapter.rank,
        alpha: s.adapter.alpha,
        rslora: s.adapter.rslora,
        dropout: s.adapter.dropout,
        rank_pattern: s.adapter.rank_pattern.clone(),
        alpha_pattern: s.adapter.alpha_pattern.clone(),
        layers: s.adapter.layers.clone(),
        pool: s.pool,
    })
}

/// The adapter's settings for lora and dora; for full and freeze none may be given.
fn adapter(s: &Settings, strategy: Strategy, given: &Given) -> Result<Option<AdapterSettings>> {
    let a = &s.adapter;
    if !strategy.has_adapter() {
        let flag = first_adapter_flag(a).or(s.init_adapter.is_some().then_some("--init-adapter"));
        return match flag {
            Some(flag) => Err(wrong(flag, format!("--strategy {} has no adapter; use lora or dora", strategy.name()))),
            None => Ok(None),
        };
    }
    let defaults = AdapterSettings::default();
    let rank = count("--rank", a.rank.unwrap_or(defaults.rank))?;
    let settings = AdapterSettings {
        targets: given.targets.clone().unwrap_or(defaults.targets),
        rank,
        alpha: positive("--alpha", a.alpha.unwrap_or(rank as f64))?,
        rslora: a.rslora.unwrap_or(false),
        dropout: share("--lora-dropout", a.dropout.unwrap_or(0.0))?,
        dora_norm_grad: a.dora_norm_grad.unwrap_or(false),
        init: a.init.unwrap_or(AdapterInit::Default),
        rank_pattern: a.rank_pattern.clone().unwrap_or_default(),
        alpha_pattern: a.alpha_pattern.clone().unwrap_or_default(),
        layers: a.layers.clone().unwrap_or_default(),
    };
    if settings.dora_norm_grad && strategy == Strategy::Lora {
        return Err(wrong("--dora-norm-grad", "--strategy lora has no row norm; use --strategy dora"));
    }
    for (pattern, rank) in &settings.rank_pattern {
        check_pattern("--rank-pattern", pattern)?;
        count("--rank-pattern", *rank)?;
    }
    for (pattern, alpha) in &settings.alpha_pattern {
        check_pattern("--alpha-pattern", pattern)?;
        positive("--alpha-pattern", *alpha)?;
    }
    Ok(Some(settings))
}

/// The first of the adapter's flags that was given, switches that are off not counted.
fn first_adapter_flag(a: &AdapterFlags) -> Option<&'static str> {
    let flags = [
        ("--targets", a.targets.is_some()),
        ("--rank", a.rank.is_some()),
        ("--alpha", a.alpha.is_some()),
        ("--rslora", a.rslora == Some(true)),
        ("--lora-dropout", a.dropout.is_some()),
        ("--dora-norm-grad", a.dora_norm_grad == Some(true)),
        ("--init", a.init.is_some()),
        ("--rank-pattern", a.rank_pattern.is_some()),
        ("--alpha-pattern", a.alpha_pattern.is_some()),
        ("--layers", a.layers.is_some()),
    ];
    flags.into_iter().find(|flag| flag.1).map(|flag| flag.0)
}

/// Settings that are right alone and wrong together.
fn check_pairs(config: &TrainConfig) -> Result<()> {
    check_precision(config.device, config.precision)?;
    if config.schedule == ScheduleKind::Plateau && !config.validates() {
        return Err(wrong(
            "--schedule plateau",
            "it follows the validation accuracy, and --val-fraction 0 leaves none",
        ));
    }
    if config.no_shuffle && config.balanced {
        return Err(wrong("--balanced", "it draws images at random, which --no-shuffle forbids; leave one out"));
    }
    if config.asymmetric.is_some() && config.loss == Some(LabelLoss::Bce) {
        return Err(wrong("--asymmetric", "--loss bce has no such constants; leave one out"));
    }
    if let Some(task) = config.task {
        check_loss(config, task)?;
    }
    if config.tune_thresholds && !config.validates() {
        return Err(wrong("--tune-thresholds", "it needs validation images, and --val-fraction 0 leaves none"));
    }
    if config.init_adapter.is_some() && config.adapter.as_ref().is_some_and(|a| a.init != AdapterInit::Default) {
        return Err(wrong("--init", "--init-adapter already gives the starting values; leave one out"));
    }
    Ok(())
}

/// Constants of the asymmetric loss that are ones.
fn asymmetric(settings: AsymmetricSettings) -> Result<AsymmetricSettings> {
    let AsymmetricSettings { gamma_pos, gamma_neg, k, clip } = settings;
    not_negative("--asymmetric gamma_pos", gamma_pos)?;
    not_negative("--asymmetric gamma_neg", gamma_neg)?;
    positive("--asymmetric k", k)?;
    share("--asymmetric clip", clip)?;
    Ok(settings)
}

fn class_weights(weights: ClassWeights) -> Result<ClassWeights> {
    if let ClassWeights::List(list) = &weights {
        list.iter().try_for_each(|&weight| not_negative("--class-weights", weight).map(drop))?;
        if list.iter().all(|&weight| weight == 0.0) {
            return Err(wrong("--class-weights", "all are 0; nothing would be learned"));
        }
    }
    Ok(weights)
}

fn wrong(flag: &str, message: impl Display) -> Error {
    Error::input(format!("{flag}: {message}"))
}

/// A number of things, at least one.
///
/// # Errors
/// [`Error::Input`] naming the flag.
pub fn count(flag: &str, value: usize) -> Result<usize> {
    let fits = (1..=LARGEST_COUNT).contains(&value);
    fits.then_some(value)
        .ok_or_else(|| wrong(flag, format!("expected a number from 1 to {LARGEST_COUNT}, found {value}")))
}

fn positive(flag: &str, value: f64) -> Result<f64> {
    let fits = value.is_finite() && value > 0.0;
    fits.then_some(value).ok_or_else(|| wrong(flag, format!("expected a finite number above 0, found {value}")))
}

fn not_negative(flag: &str, value: f64) -> Result<f64> {
    let fits = value.is_finite() && value >= 0.0;
    fits.then_some(value).ok_or_else(|| wrong(flag, format!("expected a finite number of at least 0, found {value}")))
}

fn share(flag: &str, value: f64) -> Result<f64> {
    let fits = (0.0..1.0).contains(&value);
    fits.then_some(value).ok_or_else(|| wrong(flag, format!("expected a number from 0 to below 1, found {value}")))
}

/// TOML's integers have a sign, and `config.toml` must hold the seed.
fn seed(flag: &str, value: u64) -> Result<u64> {
    let fits = i64::try_from(value).is_ok();
    fits.then_some(value).ok_or_else(|| wrong(flag, format!("expected at most {}, found {value}", i64::MAX)))
}

fn check_pattern(flag: &str, pattern: &str) -> Result<()> {
    match regex_lite::Regex::new(pattern) {
        Ok(_) if !pattern.is_empty() => Ok(()),
        _ => Err(wrong(flag, format!("expected a regular expression, found '{pattern}'"))),
    }
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
