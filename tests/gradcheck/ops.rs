//! One test an operation.

use peftk::autograd::{
    AdapterDims, AdapterInput, Array, Asymmetric, AttentionDims, DoraInput, Grads, ParamId, Tape, Tensor, TokenDims,
};

use crate::{Case, F64};

#[test]
fn linear() {
    for (m, k, n) in [(1, 1, 1), (3, 5, 4), (7, 2, 6)] {
        let mut case = Case::new();
        let [x, w, b] = [case.input(&[m, k]), case.input(&[n, k]), case.input(&[n])];
        case.check("linear", |t| t.linear(&t.param(x), &t.param(w), Some(&t.param(b)), &[]));
    }
}

/// All combinations of LoRA and DoRA, with and without dropout, the norm held constant or not, on two ranges of one weight.
#[test]
fn linear_with_adapters() {
    for rank in [1, 3] {
        for (gain, dropout, norm_grad) in [
            (false, 0.0, false),
            (false, 0.4, false),
            (true, 0.0, false),
            (true, 0.0, true),
            (true, 0.4, false),
            (true, 0.4, true),
        ] {
            let (m, k, n) = (4, 5, 9);
            let mut case = Case::new();
            let [x, w, bias] = [case.input(&[m, k]), case.constant(&[n, k]), case.input(&[n])];
            let mut adapters = Vec::new();
            for (first_row, rows, scale) in [(1, 3, 0.7), (5, 4, 2.0)] {
                let dims = AdapterDims { first_row, rows, rank, scale };
                let [a, b] = [case.input(&[rank, k]), case.input(&[rows, rank])];
                let magnitude = gain.then(|| case.input(&[rows]));
                adapters.push((dims, a, b, magnitude));
            }
            let name =
                format!("linear with adapters, rank {rank}, gain {gain}, dropout {dropout}, norm_grad {norm_grad}");
            if gain && !norm_grad {
                // A constant norm is not what finite differences see: give the gain itself as the input.
                case.check(&name, |t| {
                    let x = t.param(x);
                    let inputs: Vec<_> = adapters
                        .iter()
                        .enumerate()
                        .map(|(i, &(dims, a, b, g))| adapter(t, &x, dims, (a, b), g.map(|g| t.param(g)), dropout, i))
                        .collect();
                    t.linear(&x, &t.param(w), Some(&t.param(bias)), &inputs)
                });
                continue;
            }
            case.check(&name, |t| {
                let (x, w) = (t.param(x), t.param(w));
                let mut inputs = Vec::new();
                let with_gain = adapters.iter().filter_map(|&(dims, a, b, m)| Some((dims, a, b, m?)));
                let mut gains = t.dora_gains(&with_gain.map(|at| dora(t, &w, at)).collect::<Vec<_>>())?.into_iter();
                for (i, &(dims, a, b, _)) in adapters.iter().enumerate() {
                    let gain = gains.next();
                    inputs.push(adapter(t, &x, dims, (a, b), gain, dropout, i));
                }
                t.linear(&x, &w, Some(&t.param(bias)), &inputs)
            });
        }
    }
}

fn adapter(
    t: &Tape<'_, F64>,
    x: &Tensor<F64>,
    dims: AdapterDims,
    (a, b): (ParamId, ParamId),
    gain: Option<Tensor<F64>>,
    dropout: f64,
    seed: usize,
) -> AdapterInput<F64> {
    let dropped = (dropout > 0.0).then(|| t.dropout(x, dropout, seed as u64, 0).unwrap());
    AdapterInput { dims, a: t.param(a), b: t.param(b), gain, dropped }
}

fn dora(
    t: &Tape<'_, F64>,
    w: &Tensor<F64>,
    (dims, a, b, m): (AdapterDims, ParamId, ParamId, ParamId),
) -> DoraInput<F64> {
    DoraInput { dims, weight: w.clone(), a: t.param(a), b: t.param(b), magnitude: t.param(m) }
}

#[test]
fn a_trained_weight_under_a_norm_is_an_error() {
    let mut case = Case::new();
    let dims = AdapterDims { first_row: 0, rows: 2, rank: 1, scale: 1.0 };
    let [w, a, b, m] = [case.input(&[2, 3]), case.input(&[1, 3]), case.input(&[2, 1]), case.input(&[2])];
    let tape = Tape::new(&case.params);
    let error = tape.dora_gains(&[dora(&tape, &tape.param(w), (dims, a, b, m))]).err().unwrap();
    assert!(error.to_string().contains("has no gradient"), "{error}");
}

#[test]
fn dora_gains() {
    let mut case = Case::new();
    let dims = AdapterDims { first_row: 2, rows: 3, rank: 2, scale: 1.3 };
    let w = case.constant(&[6, 4]);
    let [a, b, m] = [case.input(&[2, 4]), case.input(&[3, 2]), case.input(&[3])];
    case.check("dora_gains", |t| Ok(t.dora_gains(&[dora(t, &t.param(w), (dims, a, b, m))])?.swap_remove(0)));
}

/// Gains of several adapters are one operation: what reaches one of them goes to its values alone, and where something was before it is
/// added.
#[test]
fn a_gradient_of_one_gain_of_several() {
    let mut case = Case::new();
    let w = case.constant(&[6, 4]);
    let sites = [(2, 3), (0, 2)].map(|(first_row, rows)| {
        let dims = AdapterDims { first_row, rows, rank: 2, scale: 0.7 };
        (dims, case.input(&[2, 4]), case.input(&[rows, 2]), case.input(&[rows]))
    });
    let backend = F64::new();
    for which in 0..2 {
        let run = |list: &[usize], grads: &mut Grads<F64>| {
            let tape = Tape::new(&case.params);
            let inputs: Vec<_> = list.iter().map(|&i| dora(&tape, &tape.param(w), sites[i])).collect();
            let gains = tape.dora_gains(&inputs).unwrap();
            let gain = &gains[list.iter().position(|&i| i == which).unwrap()];
            let dgain: Vec<f32> = (0..gain.shape()[0]).map(|j| 1.0 + j as f32).collect();
            let dgain = Array::upload(&backend, &dgain, gain.shape()).unwrap();
            tape.backward_with(gain, dgain, grads).unwrap();
        };
        let (mut alone, mut beside) = (Grads::new(&case.params), Grads::with_blocks(&case.params).unwrap());
        run(&[which], &mut alone);
        for time in [1.0, 2.0] {
            run(&[0, 1], &mut beside);
            for (i, (_, a, b, m)) in sites.into_iter().enumerate() {
                for id in [a, b, m] {
                    let values = |grads: &Grads<F64>| grads.get(id).map(|grad| backend.download_f64(grad.buffer()));
                    let truth = values(&alone).map(|list| list.iter().map(|x| time * x).collect());
                    assert_eq!(values(&beside), truth, "gain {which}, a value of adapter {i}, time {time}");
                    assert_eq!(truth.is_some(), i == which);
                }
            }
        }
    }
}

#[test]
fn dropout() {
    let mut case = Case::new();
    let x = case.input(&[4, 6]);
    case.check("dropout", |t| t.dropout(&t.param(x), 0.3, 11, 0));
}

#[test]
fn attention() {
    for (batch, tokens, heads, head_dim) in [(1, 1, 1, 2), (2, 5, 2, 3), (1, 7, 3, 1)] {
        let mut case = Case::new();
        let dims = AttentionDims { batch, tokens, heads, head_dim };
        let qkv = case.input(&[batch * tokens, 3 * heads * head_dim]);
        case.check("attention", |t| t.attention(dims, &t.param(qkv)));
    }
}

#[test]
fn layer_norm() {
    let mut case = Case::new();
    let [x, w, b] = [case.input(&[4, 7]), case.input(&[7]), case.input(&[7])];
    case.check("layer_norm", |t| t.layer_norm(&t.param(x), &t.param(w), &t.param(b), 1e-6));
}

#[test]
fn gelu() {
    let mut case = Case::new();
    let x = case.input(&[3, 5]);
    case.set(x, &(0..15).map(|i| f64::from(i) * 0.6 - 4.2).collect::<Vec<_>>());
    case.check("gelu", |t| t.gelu(&t.param(x)));
}

#[test]
fn swiglu() {
    let mut case = Case::new();
    let x = case.input(&[3, 8]);
    case.check("swiglu", |t| t.swiglu(&t.param(x)));
}

#[test]
fn layer_scale() {
    let mut case = Case::new();
    let [x, h, g] = [case.input(&[3, 5]), case.input(&[3, 5]), case.input(&[5])];
    case.check("layer_scale", |t| t.layer_scale(&t.param(x), &t.param(h), &t.param(g)));
    // One value as both branch and residual: its gradient is the sum of two paths.
    let mut case = Case::new();
    let [x, g] = [case.input(&[3, 5]), case.constant(&[5])];
    case.check("layer_scale of one value twice", |t| t.layer_scale(&t.param(x), &t.param(x), &t.param(g)));
}

#[test]
fn resample_positions() {
    let mut case = Case::new();
    let [pos, matrix] = [case.input(&[1 + 9, 3]), case.constant(&[4, 9])];
    case.check("resample_positions", |t| t.resample_positions(&t.param(pos), &t.params().get(matrix).value));
}

#[test]
fn assemble_tokens() {
    for registers in [0, 2] {
        let mut case = Case::new();
        let dims = TokenDims { batch: 3, registers, patches: 4, width: 5 };
        let [patches, cls, pos] = [case.input(&[12, 5]), case.input(&[5]), case.input(&[5, 5])];
        let reg = (registers > 0).then(|| case.input(&[registers, 5]));
        case.check("assemble_tokens", |t| {
            let reg = reg.map(|id| t.param(id));
            t.assemble_tokens(dims, &t.param(patches), &t.param(cls), &t.param(pos), reg.as_ref())
        });
    }
}

#[test]
fn pool() {
    for (registers, with_mean) in [(0, true), (4, true), (4, false)] {
        let mut case = Case::new();
        let dims = TokenDims { batch: 2, registers, patches: 3, width: 4 };
        let x = case.input(&[2 * dims.tokens(), 4]);
        case.check("pool", |t| t.pool(dims, with_mean, &t.param(x)));
    }
}

/// The losses themselves, scaled by what follows them.
#[test]
fn losses() {
    for smoothing in [0.0, 0.1] {
        let mut case = Case::new();
        let x = case.input(&[4, 3]);
        case.check("cross_entropy", |t| t.cross_entropy(&t.param(x), &[2, 0, 1, 2], smoothing, 4.0, None));
    }
    let mut case = Case::new();
    let x = case.input(&[2, 3]);
    case.check("binary_cross_entropy", |t| {
        t.binary_cross_entropy(&t.param(x), &[1.0, 0.0, 1.0, -1.0, 0.0, 0.0], 6.0, None)
    });
    // Heads of 3 and 2 labels and two labels by themselves; the third image has no label in a head, the second none in the last.
    let targets = [
        [0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0],
        [1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 1.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0],
    ]
    .concat();
    for gamma_positive in [0.0, 1.5] {
        let single = Asymmetric { gamma_positive, gamma_negative: 1.0, clip: 0.05, positive_weight: 0.8 };
        let mut case = Case::new();
        let x = case.input(&[3, 7]);
        case.check("tree_loss", |t| t.tree_loss(&t.param(x), &targets, &[0, 3, 5], 0.1, single, 3.0, None));
    }
}
