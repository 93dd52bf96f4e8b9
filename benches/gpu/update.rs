//! The loss, and what comes after the gradients: their norm and AdamW.

use peftk::autograd::{AdamW, Asymmetric, TreeLoss};
use peftk::gpu::{Buf, DType};
use peftk::kernels::adamw::{
    AdamWTable, GRAD_NORM_LEN, HYPER_LEN, Trained, adamw_multi, grad_norm, hyper, sum_squares,
};
use peftk::kernels::loss::{LogitDims, asymmetric_loss, binary_cross_entropy, cross_entropy, tree_loss};

use super::{Case, Gpu, WIDTH, bytes, case};

const F32: DType = DType::F32;

/// Trained tensors of a strategy on ViT-S with 100 classes, by length.
fn lengths(full: bool) -> Vec<usize> {
    let d = WIDTH;
    let mut list = vec![100 * 2 * d, 100];
    let block: &[usize] = if full {
        &[3 * d * d, 3 * d, d * d, d, 4 * d * d, 4 * d, 4 * d * d, d, d, d, d, d, d, d]
    } else {
        // DoRA on q and v at rank 8: A, B and the magnitude of each.
        &[8 * d, 8 * d, d, 8 * d, 8 * d, d]
    };
    list.extend(block.repeat(12));
    if full {
        list.extend([588 * d, d, d, 1370 * d, d, d]);
    }
    list
}

struct State {
    table: AdamWTable<'static>,
    hyper: Buf,
    norm: Buf,
}

fn state(gpu: &Gpu, full: bool) -> peftk::Result<State> {
    let lengths = lengths(full);
    let tensors = lengths
        .iter()
        .map(|&n| Ok([gpu.random(F32, n)?, gpu.random(F32, n)?, gpu.random(F32, n)?, gpu.positive(n)?]))
        .collect::<peftk::Result<Vec<_>>>()?;
    // The table borrows value, gradient and moments of each; they are kept for as long as the bench runs.
    let tensors: &'static [[Buf; 4]] = tensors.leak();
    let trained = tensors.iter().zip(lengths).map(|([value, grad, m, v], length)| Trained {
        value,
        grad,
        m,
        v,
        shadow: None,
        length,
        weight_decay: 0.05,
    });
    let table = AdamWTable::new(&gpu.device, &trained.collect::<Vec<_>>())?;
    let step = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, step: 10 };
    let constants: [f32; HYPER_LEN] = hyper(step);
    Ok(State { table, hyper: Buf::from_f32(&gpu.device, &constants, F32)?, norm: gpu.out(F32, GRAD_NORM_LEN)? })
}

fn adamw(name: &str, full: bool) -> [Case; 2] {
    let count: usize = lengths(full).iter().sum();
    [
        case(
            format!("adamw_multi {name}"),
            bytes(28 * count),
            move |gpu| state(gpu, full),
            |device, state| adamw_multi(device, &state.table, &state.hyper, None),
        ),
        case(
            format!("grad_norm {name}"),
            bytes(4 * count),
            move |gpu| state(gpu, full),
            |device, state| grad_norm(device, &state.table, 1.0, &mut state.norm),
        ),
    ]
}

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = [adamw("full, 22 M", true), adamw("dora q,v r8", false)].into_iter().flatten().collect();
    let dims = LogitDims::whole(256, 100);
    let (logits, focus) =
        (256 * 100, Asymmetric { gamma_positive: 0.0, gamma_negative: 4.0, clip: 0.05, positive_weight: 1.0 });
    let sigmoids = move |gpu: &Gpu| {
        let targets: Vec<f32> = (0..logits).map(|i| if i * 7919 % 97 < 9 { 1.0 } else { 0.0 }).collect();
        let targets = Buf::from_f32(&gpu.device, &targets, F32)?;
        Ok((gpu.random(F32, logits)?, targets, gpu.out(F32, 1)?, gpu.out(F32, logits)?))
    };
    cases.extend([
        case(
            "sum_squares 22 M",
            bytes(4 * 22_000_000),
            |gpu| Ok((gpu.random(F32, 22_000_000)?, gpu.out(F32, GRAD_NORM_LEN)?)),
            |device, (x, result)| sum_squares(device, 22_000_000, x, result),
        ),
        case(
            "cross_entropy 256 x 100",
            bytes(8 * logits),
            move |gpu| {
                let labels: Vec<i32> = (0..256).map(|i| i * 37 % 100).collect();
                let labels = Buf::from_slice(&gpu.device, &labels, DType::I32)?;
                Ok((gpu.random(F32, logits)?, labels, gpu.out(F32, 1)?, gpu.out(F32, logits)?))
            },
            move |device, (logits, labels, loss, dlogits)| {
                cross_entropy(device, dims, logits, labels, None, 0.0, 256.0, loss, dlogits, false)
            },
        ),
        case("binary_cross_entropy 256 x 100", bytes(12 * logits), sigmoids, move |device, (x, targets, loss, dx)| {
            binary_cross_entropy(device, dims, x, targets, 25_600.0, loss, dx, false)
        }),
        case("asymmetric_loss 256 x 100", bytes(12 * logits), sigmoids, move |device, (x, targets, loss, dx)| {
            asymmetric_loss(device, dims, focus, x, targets, 25_600.0, loss, dx, false)
        }),
        case(
            "tree_loss 256 x 100, 11 heads and 10 labels",
            bytes(12 * logits),
            move |gpu| {
                // A head of 10 and ten of 8, each row with a label in the first and in one of the others.
                let begins: Vec<i32> = std::iter::once(0).chain((0..11).map(|head| 10 + 8 * head)).collect();
                let mut targets = vec![0.0_f32; logits];
                for (row, targets) in targets.chunks_exact_mut(100).enumerate() {
                    targets[row % 10] = 1.0;
                    targets[10 + 8 * (row % 10) + row % 8] = 1.0;
                    targets[90 + row % 10] = 1.0;
                }
                let targets = Buf::from_f32(&gpu.device, &targets, F32)?;
                let begins = Buf::from_slice(&gpu.device, &begins, DType::I32)?;
                Ok((gpu.random(F32, logits)?, (targets, begins), gpu.out(F32, 1)?, gpu.out(F32, logits)?))
            },
            move |device, (x, (targets, begins), loss, dx)| {
                let tree = TreeLoss { cols: 100, heads: 11, smoothing: 0.0, single: focus };
                tree_loss(device, tree, 256, x, targets, begins, 256.0, loss, dx, false)
            },
        ),
    ]);
    cases
}
