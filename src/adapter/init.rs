//! Fresh adapters: which linears get one, and how A, B and the magnitude start.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::svd::top_singular;
use super::{AdapterConfig, AdapterFile, AdapterModule, Targets};
use crate::config::{AdapterInit, AdapterSettings};
use crate::io::state::{HostTensor, StateDict};
use crate::vit::VitConfig;
use crate::vit::names::Linear;
use crate::{Error, Result};

/// New adapters for a backbone. PiSSA takes its part out of the weights in `state`, so that step 0 changes nothing.
pub fn init(
    settings: &AdapterSettings,
    dora: bool,
    vit: &VitConfig,
    state: &mut StateDict,
    seed: u64,
) -> Result<AdapterFile> {
    let config = config_of(settings, dora, vit)?;
    let mut modules = Vec::new();
    for (layer, linear) in config.sites(vit) {
        let rank = config.rank_of((layer, linear));
        let weight = weight_rows(vit, state, layer, linear)?;
        let (rows, cols) = (weight.shape[0], weight.shape[1]);
        let mut rng = site_rng(seed, layer, linear);
        // Every start below leaves W + s B A what W was, so the magnitude is the row norm of W.
        let magnitude = dora.then(|| HostTensor { shape: vec![rows], data: row_norms(&weight) });
        let (a, b) = match settings.init {
            AdapterInit::Default => {
                (uniform(&mut rng, rank * cols, 1.0 / (cols as f64).sqrt()), vec![0.0; rows * rank])
            }
            AdapterInit::Gaussian => (normal(&mut rng, rank * cols, 1.0 / rank as f64), vec![0.0; rows * rank]),
            AdapterInit::Orthogonal => orthogonal(&mut rng, rows, cols, rank, &path_of(layer, linear))?,
            AdapterInit::Pissa => {
                if rank > rows.min(cols) {
                    let path = path_of(layer, linear);
                    return Err(Error::input(format!(
                        "--init pissa: rank {rank} is more than {path} has ({rows} x {cols})"
                    )));
                }
                let scale = config.scale_of((layer, linear));
                let (a, b) = principal(&weight.data, rows, cols, rank, scale)?;
                let (name, range, _) = place(vit, layer, linear);
                let held =
                    state.get_mut(&name).and_then(|tensor| tensor.data.get_mut(range)).ok_or_else(|| missing(&name))?;
                subtract(held, cols, &a, &b, scale);
                (a, b)
            }
        };
        let a = HostTensor { shape: vec![rank, cols], data: a };
        let b = HostTensor { shape: vec![rows, rank], data: b };
        modules.push(AdapterModule { layer, linear, a, b, magnitude });
    }
    Ok(AdapterFile { config, modules, classifier: None })
}

/// An adapter's configuration from a run's settings; each target has to name a linear of the backbone.
fn config_of(settings: &AdapterSettings, dora: bool, vit: &VitConfig) -> Result<AdapterConfig> {
    let all = settings.targets.iter().any(|target| target == "all-linear");
    let targets = if all { Targets::AllLinear } else { Targets::Names(settings.targets.clone()) };
    let config = AdapterConfig {
        rank: settings.rank,
        alpha: settings.alpha,
        rslora: settings.rslora,
        use_dora: dora,
        dropout: settings.dropout,
        target_modules: targets,
        rank_pattern: settings.rank_pattern.clone(),
        alpha_pattern: settings.alpha_pattern.clone(),
        layers_to_transform: settings.layers.clone(),
        init: settings.init,
        ..AdapterConfig::default()
    };
    config.check("adapter settings")?;
    for target in settings.targets.iter().filter(|target| *target != "all-linear") {
        let alone = AdapterConfig { target_modules: Targets::Names(vec![target.clone()]), ..AdapterConfig::default() };
        if alone.sites(vit).is_empty() {
            let known: Vec<&str> =
                config.family.linears(vit).iter().filter_map(|l| l.v5_path().rsplit('.').next()).collect();
            return Err(Error::input(format!(
                "--targets: '{target}' names no linear of this backbone: expected all-linear or some of {}",
                known.join(", ")
            )));
        }
    }
    let sites = config.sites(vit);
    let ranks = settings.rank_pattern.iter().map(|(key, _)| ("--rank-pattern", key));
    let alphas = settings.alpha_pattern.iter().map(|(key, _)| ("--alpha-pattern", key));
    for (flag, key) in ranks.chain(alphas) {
        if !sites.iter().any(|&site| config.pattern_names(key, site)) {
            return Err(Error::input(format!("{flag}: '{key}' names none of the linears that get an adapter")));
        }
    }
    if let Some(layer) = settings.layers.iter().find(|&&layer| layer >= vit.layers) {
        return Err(Error::input(format!(
            "--layers: block {layer} is not there: the backbone has 0 to {}",
            vit.layers - 1
        )));
    }
    Ok(config)
}

fn path_of(layer: usize, linear: Linear) -> String {
    format!("encoder.layer.{layer}.{}", linear.v5_path())
}

/// A generator of its own for each site: what else gets an adapter does not change it.
fn site_rng(seed: u64, layer: usize, linear: Linear) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(((layer as u64) << 8 | linear as u64) + 1);
    rng
}

fn uniform(rng: &mut ChaCha8Rng, len: usize, bound: f64) -> Vec<f32> {
    (0..len).map(|_| ((rng.random::<f64>() * 2.0 - 1.0) * bound) as f32).collect()
}

/// Box-Muller.
fn normal(rng: &mut ChaCha8Rng, len: usize, deviation: f64) -> Vec<f32> {
    (0..len)
        .map(|_| {
            let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
            ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos() * deviation) as f32
        })
        .collect()
}

/// A's rows and B's columns in complementary halves of one orthogonal basis of R^rank: B A = 0 with both non-zero (peft's "orthogonal").
fn orthogonal(rng: &mut ChaCha8Rng, rows: usize, cols: usize, rank: usize, path: &str) -> Result<(Vec<f32>, Vec<f32>)> {
    if !rank.is_multiple_of(2) {
        return Err(Error::input(format!("--init orthogonal: rank {rank} of {path} is odd, expected an even one")));
    }
    let half = rank / 2;
    let gaussian: Vec<f64> = normal(rng, rank * rank, 1.0).into_iter().map(f64::from).collect();
    let q = nalgebra::DMatrix::from_vec(rank, rank, gaussian).qr().q();
    let left = normal(rng, half * cols, 1.0);
    let right = normal(rng, half * rows, 1.0);
    let mix = |values: &[f32], width: usize, parity: usize, i: usize, column: usize| -> f32 {
        let sum: f64 = (0..half).map(|h| f64::from(values[h * width + column]) * q[(2 * h + parity, i)]).sum();
        (sum / 10.0) as f32
    };
    let a = (0..rank).flat_map(|i| (0..cols).map(move |c| (i, c))).map(|(i, c)| mix(&left, cols, 0, i, c)).collect();
    let b = (0..rows).flat_map(|j| (0..rank).map(move |i| (j, i))).map(|(j, i)| mix(&right, rows, 1, i, j)).collect();
    Ok((a, b))
}

/// PiSSA (Meng et al. 2024): s B A is the rank-r truncation of W's singular value decomposition, the singular values shared between the two: (A \[rank, cols\],
/// B \[rows, rank\]) of W \[rows, cols\].
pub fn principal(weight: &[f32], rows: usize, cols: usize, rank: usize, scale: f64) -> Result<(Vec<f32>, Vec<f32>)> {
    let (u, sigma, v) = top_singular(weight, rows, cols, rank)?;
    let share: Vec<f64> = sigma.iter().map(|s| (s / scale).sqrt()).collect();
    let a = (0..rank * cols).map(|at| (share[at / cols] * v[at]) as f32).collect();
    let b = (0..rows * rank).map(|at| (share[at % rank] * u[at]) as f32).collect();
    Ok((a, b))
}

/// The numbers of a linear's weight inside the tensor that holds it, that tensor's name, and the weight's shape.
fn place(vit: &VitConfig, layer: usize, linear: Linear) -> (String, std::ops::Range<usize>, (usize, usize)) {
    let (rows, (out, cols)) = (linear.rows(vit), linear.shape(vit));
    (format!("{}.weight", linear.canonical(layer)), rows.start * cols..rows.end * cols, (out, cols))
}

fn missing(name: &str) -> Error {
    Error::input(format!("backbone: tensor '{name}' is missing"))
}

fn weight_rows(vit: &VitConfig, state: &StateDict, layer: usize, linear: Linear) -> Result<HostTensor> {
    let (name, range, (rows, cols)) = place(vit, layer, linear);
    let data = state.get(&name).and_then(|tensor| tensor.data.get(range)).ok_or_else(|| missing(&name))?.to_vec();
    Ok(HostTensor { shape: vec![rows, cols], data })
}

fn row_norms(weight: &HostTensor) -> Vec<f32> {
    let norm = |row: &[f32]| row.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>().sqrt() as f32;
    weight.data.chunks_exact(weight.shape[1]).map(norm).collect()
}

/// W -= s B A.
fn subtract(weight: &mut [f32], cols: usize, a: &[f32], b: &[f32], scale: f64) {
    let rank = a.len() / cols;
    for (row, b) in weight.chunks_exact_mut(cols).zip(b.chunks_exact(rank)) {
        for (c, w) in row.iter_mut().enumerate() {
            let column = a.iter().skip(c).step_by(cols);
            let delta: f64 = b.iter().zip(column).map(|(b, a)| f64::from(*b) * f64::from(*a)).sum();
            *w = (f64::from(*w) - scale * delta) as f32;
        }
    }
}

/// A PiSSA adapter as a plain one on the untouched backbone: W_res + s B A = W + s (B A - B0 A0), which is an adapter of twice the rank
/// with A' = \[A; A0\], B' = \[B, -B0\] and the same scale.
pub fn as_plain(current: &AdapterFile, initial: &AdapterFile) -> Result<AdapterFile> {
    let mut modules = Vec::with_capacity(current.modules.len());
    for (now, start) in current.modules.iter().zip(&initial.modules) {
        if (now.layer, now.linear) != (start.layer, start.linear) {
            return Err(Error::Internal("a PiSSA adapter and its start name different modules".into()));
        }
        let (rank, rows) = (now.a.shape[0], now.b.shape[0]);
        let a = [now.a.data.as_slice(), &start.a.data].concat();
        let mut b = Vec::with_capacity(2 * rows * rank);
        for (now, start) in now.b.data.chunks_exact(rank).zip(start.b.data.chunks_exact(rank)) {
            b.extend_from_slice(now);
            b.extend(start.iter().map(|value| -value));
        }
        modules.push(AdapterModule {
            layer: now.layer,
            linear: now.linear,
            a: HostTensor { shape: vec![2 * rank, now.a.shape[1]], data: a },
            b: HostTensor { shape: vec![rows, 2 * rank], data: b },
            magnitude: now.magnitude.clone(),
        });
    }
    Ok(AdapterFile { config: doubled(&current.config), modules, classifier: current.classifier.clone() })
}

/// Twice every rank at the same scales.
fn doubled(config: &AdapterConfig) -> AdapterConfig {
    let factor = if config.rslora { std::f64::consts::SQRT_2 } else { 2.0 };
    AdapterConfig {
        rank: 2 * config.rank,
        alpha: factor * config.alpha,
        rank_pattern: config.rank_pattern.iter().map(|(key, rank)| (key.clone(), 2 * rank)).collect(),
        alpha_pattern: config.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), factor * alpha)).collect(),
        init: AdapterInit::Default,
        ..config.clone()
    }
}
