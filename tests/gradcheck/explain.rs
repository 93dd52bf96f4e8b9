//! The maps of `peftk explain` against whole matrices in f64: probabilities from plain loops, gradients from finite differences.

use peftk::adapter;
use peftk::autograd::{Array, LinearInput, Params, Tape, Tensor};
use peftk::config::{AdapterSettings, Pool};
use peftk::explain::Explainer;
use peftk::io::{Classifier, HostTensor, random};
use peftk::vit::build::{BuildOptions, build};
use peftk::vit::{Mode, Vit, VitConfig};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::F64;

/// More than go through the model at once.
const CLASSES: usize = 10;
const SIDE: usize = 9;

struct Setup {
    registers: usize,
    swiglu: bool,
    pool: Pool,
    /// LoRA (false) or DoRA (true) on every linear.
    adapter: Option<bool>,
    /// The backbone asks for gradients itself.
    trained: bool,
}

const PLAIN: Setup = Setup { registers: 0, swiglu: false, pool: Pool::ClsMean, adapter: None, trained: false };

impl Setup {
    /// 9 patches, heads of width 3, weights large enough that attention is far from even.
    fn model(&self) -> (Vit, Params<F64>) {
        let config = VitConfig {
            hidden: 6,
            heads: 2,
            layers: 3,
            mlp_hidden: if self.swiglu { 8 } else { 10 },
            swiglu: self.swiglu,
            registers: self.registers,
            patch: 3,
            image_size: SIDE,
            ..VitConfig::named("micro").unwrap()
        };
        let mut state = random(&config, 3);
        state
            .values_mut()
            .flat_map(|tensor| &mut tensor.data)
            .for_each(|x| *x *= if x.abs() < 0.5 { 25.0 } else { 1.0 });
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let file = self.adapter.map(|dora| {
            let settings =
                AdapterSettings { targets: vec!["all-linear".into()], rank: 2, ..AdapterSettings::default() };
            let mut file = adapter::init(&settings, dora, &config, &mut state, 7).unwrap();
            for module in &mut file.modules {
                module.b.data.iter_mut().for_each(|b| *b = rng.random_range(-0.5..0.5));
                module.magnitude.iter_mut().flat_map(|m| &mut m.data).for_each(|m| *m *= rng.random_range(0.5..1.5));
            }
            file
        });
        let width = config.hidden * if self.pool == Pool::ClsMean { 2 } else { 1 };
        let head = Classifier {
            weight: HostTensor {
                shape: vec![CLASSES, width],
                data: (0..CLASSES * width).map(|_| rng.random_range(-1.0..1.0)).collect(),
            },
            bias: HostTensor { shape: vec![CLASSES], data: vec![0.1; CLASSES] },
        };
        let options = BuildOptions {
            train_backbone: self.trained,
            train: self.trained,
            adapter: file.as_ref(),
            dora_norm_grad: false,
            pool: self.pool,
            input_size: SIDE,
        };
        let mut params = Params::new(F64::new());
        let vit = build(&mut params, &config, state, &head, &options).unwrap();
        (vit, params)
    }
}

fn square() -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    (0..SIDE * SIDE * 3).map(|_| rng.random()).collect()
}

/// What attention made of one token in one head of one block, moved by some amount.
struct Nudge {
    block: usize,
    token: usize,
    head: usize,
    by: Vec<f64>,
}

struct Forward {
    logits: Vec<f64>,
    /// Query, key and value of each block.
    blocks: Vec<Vec<f64>>,
    /// Tokens after the final norm.
    tokens: Vec<f64>,
}

/// The model with its blocks spelt out once more.
fn forward(vit: &Vit, params: &Params<F64>, square: &[u8], nudge: Option<&Nudge>) -> Forward {
    let (backend, tape, mode) = (F64::new(), Tape::inference(params), Mode::default());
    let mut x = vit.embed(&tape, square, 1, mode).unwrap();
    let (mut all, width, head_dim) = (Vec::new(), vit.config.hidden, vit.config.hidden / vit.config.heads);
    for (index, block) in vit.blocks.iter().enumerate() {
        let qkv = block.qkv.forward(&tape, &block.norm1.forward(&tape, &x).unwrap(), mode).unwrap();
        all.push(backend.download_f64(qkv.array().buffer()));
        let mut attended = tape.attention(vit.attention_dims(1), &qkv).unwrap();
        if let Some(nudge) = nudge.filter(|nudge| nudge.block == index) {
            let mut values = backend.download_f64(attended.array().buffer());
            let first = nudge.token * width + nudge.head * head_dim;
            values[first..].iter_mut().zip(&nudge.by).for_each(|(value, by)| *value += by);
            let moved = Array::new(&backend, backend.upload_f64(&values), attended.shape()).unwrap();
            attended = Tensor::constant(moved);
        }
        x = block.output.forward_residual(&tape, LinearInput::Plain(&attended), mode, &x, block.scale1).unwrap();
        let hidden = block.mlp_in.forward(&tape, &block.norm2.forward(&tape, &x).unwrap(), mode).unwrap();
        let hidden = if block.swiglu { tape.swiglu(&hidden) } else { tape.gelu(&hidden) }.unwrap();
        x = block.mlp_out.forward_residual(&tape, LinearInput::Plain(&hidden), mode, &x, block.scale2).unwrap();
    }
    let x = vit.norm.forward(&tape, &x).unwrap();
    let pooled = tape.pool(vit.token_dims(1), vit.pool == Pool::ClsMean, &x).unwrap();
    let logits = vit.classify(&tape, &pooled, mode).unwrap();
    let (logits, tokens) = (backend.download_f64(logits.array().buffer()), backend.download_f64(x.array().buffer()));
    Forward { logits, blocks: all, tokens }
}

/// A token's query (0), key (1) or value (2) in a head.
fn part<'a>(vit: &Vit, qkv: &'a [f64], which: usize, head: usize, token: usize) -> &'a [f64] {
    let (width, head_dim) = (vit.config.hidden, vit.config.hidden / vit.config.heads);
    &qkv[token * 3 * width + which * width + head * head_dim..][..head_dim]
}

type Matrix = Vec<Vec<f64>>;

/// softmax(q k^T / sqrt head_dim).
fn probabilities(vit: &Vit, qkv: &[f64], head: usize) -> Matrix {
    let tokens = vit.token_dims(1).tokens();
    let scale = 1.0 / ((vit.config.hidden / vit.config.heads) as f64).sqrt();
    let row = |i: usize| {
        let of = |j: usize| -> f64 {
            let (q, k) = (part(vit, qkv, 0, head, i), part(vit, qkv, 1, head, j));
            (q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() * scale).exp()
        };
        let row: Vec<f64> = (0..tokens).map(of).collect();
        let sum: f64 = row.iter().sum();
        row.into_iter().map(|x| x / sum).collect()
    };
    (0..tokens).map(row).collect()
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let cell = |row: &Vec<f64>, j: usize| row.iter().zip(b).map(|(x, other)| x * other[j]).sum();
    a.iter().map(|row| (0..b.len()).map(|j| cell(row, j)).collect()).collect()
}

fn identity(size: usize) -> Matrix {
    (0..size).map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect()).collect()
}

/// The patches' part of a row over tokens times a matrix.
fn row_of(vit: &Vit, start: &[f64], of: &Matrix) -> Vec<f64> {
    let dims = vit.token_dims(1);
    let patch = |j: usize| start.iter().zip(of).map(|(start, row)| start * row[j]).sum();
    (1 + dims.registers..dims.tokens()).map(patch).collect()
}

/// CLS and the patches' mean by the norms of the head's weights on them.
fn start_of_rollout(vit: &Vit, params: &Params<F64>) -> Vec<f64> {
    let (dims, head) = (vit.token_dims(1), params.download(vit.head.weight).unwrap());
    let mut start = vec![0.0; dims.tokens()];
    let norm = |first: usize| {
        let rows = head.chunks(head.len() / CLASSES);
        rows.flat_map(|row| &row[first..first + dims.width]).map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt()
    };
    start[0] = 1.0;
    if vit.pool == Pool::ClsMean {
        let (cls, mean) = (norm(0), norm(dims.width));
        start[0] = cls / (cls + mean);
        start[1 + dims.registers..].fill(mean / (cls + mean) / dims.patches as f64);
    }
    start
}

/// What each token adds to a label's logit through the pooling, where that is positive; as for rollout where none does.
fn start_of_label(vit: &Vit, params: &Params<F64>, label: usize, tokens: &[f64]) -> Vec<f64> {
    let (dims, head) = (vit.token_dims(1), params.download(vit.head.weight).unwrap());
    let weights = &head[label * (head.len() / CLASSES)..];
    let adds = |token: usize| {
        let first = match (token, vit.pool) {
            (0, _) => 0,
            (_, Pool::ClsMean) if token > dims.registers => dims.width,
            _ => return 0.0,
        };
        let values = tokens[token * dims.width..].iter().zip(&weights[first..first + dims.width]);
        let sum: f64 = values.map(|(x, &w)| x * f64::from(w)).sum();
        if token == 0 { sum.max(0.0) } else { (sum / dims.patches as f64).max(0.0) }
    };
    let start: Vec<f64> = (0..dims.tokens()).map(adds).collect();
    if start.iter().sum::<f64>() > 0.0 { start } else { start_of_rollout(vit, params) }
}

#[track_caller]
fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let spread = largest - expected.iter().copied().fold(f64::INFINITY, f64::min);
    assert!(spread > 0.05 * largest, "{what}: {expected:?} shows nothing");
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-5 * largest, "{what}: {found} for {expected}");
    }
}

fn setups() -> Vec<(&'static str, Setup)> {
    vec![
        ("plain", PLAIN),
        ("CLS alone", Setup { pool: Pool::Cls, ..PLAIN }),
        ("registers, SwiGLU", Setup { registers: 2, swiglu: true, ..PLAIN }),
        ("LoRA", Setup { adapter: Some(false), ..PLAIN }),
        ("DoRA, registers", Setup { adapter: Some(true), registers: 1, ..PLAIN }),
        ("a trained backbone", Setup { trained: true, ..PLAIN }),
    ]
}

/// Abnar and Zuidema's equation 1 with every matrix written out.
#[test]
fn rollout_is_the_product_of_whole_matrices() {
    for (what, setup) in setups() {
        let (vit, params) = setup.model();
        let square = square();
        let Forward { logits, blocks, .. } = forward(&vit, &params, &square, None);
        let tokens = vit.token_dims(1).tokens();
        let mut joint = identity(tokens);
        for qkv in &blocks {
            let heads: Vec<Matrix> = (0..vit.config.heads).map(|head| probabilities(&vit, qkv, head)).collect();
            let mut mixed = identity(tokens);
            for (i, row) in mixed.iter_mut().enumerate() {
                for (j, x) in row.iter_mut().enumerate() {
                    *x = 0.5 * *x + 0.5 * heads.iter().map(|a| a[i][j]).sum::<f64>() / heads.len() as f64;
                }
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|x| *x /= sum);
            }
            joint = product(&mixed, &joint);
        }
        let (found, map) = Explainer::new(&vit, &params).unwrap().look(&square, true).unwrap();
        let found: Vec<f64> = found.into_iter().map(f64::from).collect();
        assert_close(what, &found, &logits);
        assert_close(what, &map.unwrap(), &row_of(&vit, &start_of_rollout(&vit, &params), &joint));
    }
}

/// Chefer et al.'s equations 5 and 6 with every matrix written out. One probability of attention, A_ij of a head, moved by h moves what
/// attention makes of token i in that head by h v_j: dY/dA_ij is what that does to the logit.
#[test]
fn gradients_of_probabilities_are_finite_differences() {
    for (what, setup) in setups() {
        let (vit, params) = setup.model();
        let square = square();
        let Forward { blocks, tokens: values, .. } = forward(&vit, &params, &square, None);
        let (tokens, heads) = (vit.token_dims(1).tokens(), vit.config.heads);
        let step = 1e-4;
        let mut relevance = vec![identity(tokens); CLASSES];
        for (block, qkv) in blocks.iter().enumerate() {
            let mut weighted = vec![vec![vec![0.0; tokens]; tokens]; CLASSES];
            for head in 0..heads {
                let a = probabilities(&vit, qkv, head);
                for i in 0..tokens {
                    for j in 0..tokens {
                        let at = |sign: f64| {
                            let by = part(&vit, qkv, 2, head, j).iter().map(|v| sign * step * v).collect();
                            forward(&vit, &params, &square, Some(&Nudge { block, token: i, head, by })).logits
                        };
                        for ((weighted, up), down) in weighted.iter_mut().zip(at(1.0)).zip(at(-1.0)) {
                            weighted[i][j] += ((up - down) / (2.0 * step) * a[i][j]).max(0.0) / heads as f64;
                        }
                    }
                }
            }
            for (relevance, weighted) in relevance.iter_mut().zip(&weighted) {
                let more = product(weighted, relevance);
                relevance.iter_mut().flatten().zip(more.iter().flatten()).for_each(|(r, more)| *r += more);
            }
        }
        let explainer = Explainer::new(&vit, &params).unwrap();
        let all: Vec<usize> = (0..CLASSES).collect();
        let maps = explainer.gradients(&square, &all).unwrap();
        for (label, relevance) in relevance.iter().enumerate() {
            let expected = row_of(&vit, &start_of_label(&vit, &params, label, &values), relevance);
            assert_close(what, &maps[label], &expected);
        }
        // Alone it is the same map as beside others.
        assert_close(what, &explainer.gradients(&square, &[9]).unwrap()[0], &maps[9]);
        assert!(explainer.gradients(&square, &[CLASSES]).is_err());
    }
}

/// Gradients of values on the tape: of one that two operations read, of one that nothing comes to, of one that asks for none.
#[test]
fn gradients_of_values_in_between() {
    let mut case = crate::Case::new();
    let w = case.input(&[3, 3]);
    let backend = F64::new();
    let array = |values: &[f64], shape: &[usize]| Array::new(&backend, backend.upload_f64(values), shape).unwrap();
    let tape = Tape::new(&case.params);
    let x = tape.input(array(&[0.5, -1.0, 2.0], &[1, 3]));
    let h = tape.linear(&x, &tape.param(w), None, &[]).unwrap();
    let y = tape.layer_scale(&h, &tape.gelu(&h).unwrap(), &Tensor::constant(array(&[1.0, 2.0, 3.0], &[3]))).unwrap();
    let aside = tape.gelu(&x).unwrap();
    let values = backend.download_f64(h.array().buffer());
    let grads = tape.gradients_of(&y, array(&[1.0, 1.0, -1.0], &[1, 3]), &[&h, &x, &aside, &y]).unwrap();
    let of = |index: usize| backend.download_f64(grads[index].as_ref().unwrap().buffer());
    let gelu = |x: f64| x * 0.5 * (1.0 + erf(x / 2.0_f64.sqrt()));
    for (i, (gamma, dy)) in [(1.0, 1.0), (2.0, 1.0), (3.0, -1.0)].into_iter().enumerate() {
        let slope = (gelu(values[i] + 1e-5) - gelu(values[i] - 1e-5)) / 2e-5;
        assert!((of(0)[i] - dy * (1.0 + gamma * slope)).abs() < 1e-8);
    }
    let weights = backend.download_f64(case.params.get(w).value.buffer());
    for k in 0..3 {
        let expected: f64 = (0..3).map(|n| of(0)[n] * weights[n * 3 + k]).sum();
        assert!((of(1)[k] - expected).abs() < 1e-12);
    }
    assert!(grads[2].is_none());
    assert_eq!(of(3), [1.0, 1.0, -1.0]);

    let tape = Tape::inference(&case.params);
    let x = tape.input(array(&[1.0], &[1, 1]));
    assert!(!x.needs_grad() && tape.gradients_of(&x, array(&[1.0], &[1, 1]), &[&x]).is_err());
}

/// The error function by its series, which is exact enough for small arguments.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..60 {
        term *= -x * x / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
