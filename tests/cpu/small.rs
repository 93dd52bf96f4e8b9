//! Everything but linears and attention.

use peftk::Result;
use peftk::autograd::{
    AdamW, AdapterDims, Asymmetric, Backend, DoraAdapter, GainBackward, NormBackward, Sums, TokenDims, TreeLoss,
    dropout_keeps,
};
use peftk::cpu::Cpu;
use peftk::reference::Reference;

use crate::{Case, Random, check, check_over};

/// Names results by their order.
fn numbered<T>(results: impl IntoIterator<Item = T>) -> Vec<(String, T)> {
    results.into_iter().enumerate().map(|(i, result)| (i.to_string(), result)).collect()
}

/// Defines a case: a struct of its inputs and how it runs, the fields uploaded by `up!`-like closure `u`.
macro_rules! case {
    ($name:ident { $($field:ident: $type:ty),* }, |$case:ident, $backend:ident, $up:ident| $body:block) => {
        struct $name { $($field: $type),* }
        impl Case for $name {
            fn run<B: Backend>(&self, $backend: &B) -> Result<Vec<(String, B::Buffer)>> {
                let $case = self;
                let $up = |values: &Vec<f32>| $backend.upload(values);
                $body
            }
        }
    };
}

case!(Norm { size: (usize, usize), x: Vec<f32>, weight: Vec<f32>, bias: Vec<f32>, dy: Vec<f32>, need: (bool, bool) }, |c, b, up| {
    let (x, weight) = (up(&c.x)?, up(&c.weight)?);
    let (rows, cols) = c.size;
    let (y, mean, rstd) = b.layer_norm(rows, cols, &x, &weight, &up(&c.bias)?, 1e-6)?;
    let dy = up(&c.dy)?;
    let args = NormBackward { rows, cols, x: &x, weight: &weight, mean: &mean, rstd: &rstd, dy: &dy };
    let (dx, sums) = b.layer_norm_backward(args, c.need, Sums::fresh())?;
    let mut results = vec![y, mean, rstd];
    results.extend(dx);
    results.extend(sums.into_iter().flat_map(|(dweight, dbias)| [dweight, dbias]));
    Ok(numbered(results))
});

case!(Mlp { rows: usize, width: usize, h: Vec<f32>, x: Vec<f32>, gamma: Vec<f32>, dy: Vec<f32>, need: (bool, bool) }, |c, b, up| {
    let (h, x, gamma, dy) = (up(&c.h)?, up(&c.x)?, up(&c.gamma)?, up(&c.dy)?);
    let mut results = vec![b.gelu(&x)?, b.gelu_backward(&x, &dy)?];
    results.push(b.swiglu(c.rows, c.width, &h)?);
    results.push(b.swiglu_backward(c.rows, c.width, &h, &dy)?);
    results.push(b.layer_scale(c.rows, c.width, &x, &dy, &gamma)?);
    let (dh, dgamma) = b.layer_scale_backward(c.rows, c.width, c.need.1.then_some(&x), &gamma, &dy, c.need, Sums::fresh())?;
    results.extend(dh);
    results.extend(dgamma);
    Ok(numbered(results))
});

case!(Tokens { dims: TokenDims, patches: Vec<f32>, cls: Vec<f32>, pos: Vec<f32>, registers: Vec<f32>, dy: Vec<f32>, dpool: Vec<f32> }, |c, b, up| {
    let registers = up(&c.registers)?;
    let registers = (c.dims.registers > 0).then_some(&registers);
    let x = b.assemble_tokens(c.dims, &up(&c.patches)?, &up(&c.cls)?, &up(&c.pos)?, registers)?;
    let (dpatches, dcls, dpos, dregisters) = b.assemble_tokens_backward(c.dims, &up(&c.dy)?, Sums::fresh())?;
    let mut results = vec![dpatches, dcls, dpos];
    results.extend(dregisters);
    let dcls_alone = up(&c.dpool[..c.dims.batch * c.dims.width].to_vec())?;
    results.extend([b.pool(c.dims, true, &x)?, b.pool(c.dims, false, &x)?]);
    results.extend([b.pool_backward(c.dims, true, &up(&c.dpool)?)?, b.pool_backward(c.dims, false, &dcls_alone)?]);
    results.push(x);
    Ok(numbered(results))
});

case!(Positions { from: usize, to: usize, width: usize, pos: Vec<f32>, matrix: Vec<f32>, dy: Vec<f32> }, |c, b, up| {
    let matrix = up(&c.matrix)?;
    let y = b.resample_positions(c.from, c.to, c.width, &up(&c.pos)?, &matrix)?;
    Ok(numbered([y, b.resample_positions_backward(c.from, c.to, c.width, &matrix, &up(&c.dy)?)?]))
});

case!(Dora { dims: AdapterDims, k: usize, w: Vec<f32>, a: Vec<f32>, b: Vec<f32>, magnitude: Vec<f32>, dgain: Vec<f32> }, |c, backend, up| {
    let (mut w, a, b, magnitude, dgain) = (up(&c.w)?, up(&c.a)?, up(&c.b)?, up(&c.magnitude)?, up(&c.dgain)?);
    let adapter = || DoraAdapter { dims: c.dims, k: c.k, w: &w, a: &a, b: &b, magnitude: &magnitude };
    let [(norm, gain), _] = <[_; 2]>::try_from(backend.dora_gains(&[adapter(), adapter()])?).ok().unwrap();
    let through = |need_norm| GainBackward { magnitude: &magnitude, norm: &norm, dgain: &dgain, need_norm };
    let made = backend.dora_gains_backward(&[through(true), through(false)], Sums::fresh())?;
    let [(dmagnitude, dnorm), (again, none)] = <[_; 2]>::try_from(made).ok().unwrap();
    assert!(none.is_none(), "nobody asked for it");
    let dnorm = dnorm.unwrap();
    let (da, db) = backend.dora_norm_backward(c.dims, c.k, &w, &a, &b, &norm, &dnorm)?;
    backend.merge(c.dims, c.k, &mut w, &a, &b, Some(&gain))?;
    let first = backend.copy(&w)?;
    backend.merge(c.dims, c.k, &mut w, &a, &b, None)?;
    Ok(numbered([norm, gain, dmagnitude, again, dnorm, da, db, first, w]))
});

case!(Loss { classes: usize, labels: Vec<usize>, smoothing: f64, logits: Vec<f32>, targets: Vec<f32> }, |c, b, up| {
    let logits = up(&c.logits)?;
    let (mut labels, targets) = (None, up(&c.targets)?);
    b.stage_labels(&c.labels, &mut labels)?;
    let (loss, dlogits) = b.cross_entropy(c.classes, &logits, &labels.unwrap(), None, c.smoothing, 3.5, Sums::fresh())?;
    let (binary, dbinary) = b.binary_cross_entropy(&logits, &targets, 2.5, Sums::fresh())?;
    let (weighted, dweighted) = {
        let (mut labels, weights) = (None, up(&(0..c.classes).map(|i| 0.5 + i as f32).collect::<Vec<_>>())?);
        b.stage_labels(&c.labels, &mut labels)?;
        b.cross_entropy(c.classes, &logits, &labels.unwrap(), Some(&weights), c.smoothing, 3.5, Sums::fresh())?
    };
    // Half of the classes as heads of two and three, the others by themselves.
    let half = c.classes / 2;
    let begins: Vec<usize> = [0, 2, 5].into_iter().map(|begin| begin.min(half)).collect();
    let mut staged = None;
    b.stage_labels(&begins, &mut staged)?;
    let single = Asymmetric { gamma_positive: 0.5, gamma_negative: 2.0, clip: 0.05, positive_weight: 0.8 };
    let tree = TreeLoss { cols: c.classes, heads: 2, smoothing: c.smoothing, single };
    let (of_tree, dtree) = b.tree_loss(tree, &logits, &targets, &staged.unwrap(), 2.5, Sums::fresh())?;
    Ok(numbered([loss, dlogits, binary, dbinary, weighted, dweighted, of_tree, dtree]))
});

case!(Optimise { value: Vec<f32>, grads: Vec<Vec<f32>> }, |c, b, up| {
    let (mut value, zeros) = (up(&c.value)?, vec![0.0; c.value.len()]);
    let (mut m, mut v) = (up(&zeros)?, up(&zeros)?);
    for (i, grad) in c.grads.iter().enumerate() {
        let step = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, step: 1 + i as u64 };
        let mut grad = up(grad)?;
        b.scale_assign(&mut grad, 0.7)?;
        let copy = b.copy(&grad)?;
        b.add_assign(&mut grad, &copy)?;
        b.adamw(step, &mut value, &grad, &mut m, &mut v)?;
    }
    let squares = b.upload(&[b.sum_squares(&value)? as f32])?;
    Ok(numbered([value, m, v, squares]))
});

case!(Dropout { x: Vec<f32>, p: f64, seed: u64 }, |c, b, up| { Ok(numbered([b.dropout(&up(&c.x)?, c.p, c.seed, 0)?])) });

case!(Patches { images: Vec<u8>, batch: usize, size: usize, patch: usize }, |c, b, _up| {
    Ok(numbered([b.patches(&c.images, c.batch, c.size, c.patch)?]))
});

#[test]
fn layer_norm() {
    let random = &mut Random::fresh();
    for (rows, cols) in [(1, 1), (5, 7), (261, 384), (40, 1000)] {
        for need in [(true, true), (true, false), (false, true)] {
            let mut x = random.normal(rows * cols, 2.0);
            x.iter_mut().for_each(|x| *x += 3.0);
            let (weight, bias) = (random.normal(cols, 1.0), random.normal(cols, 1.0));
            let case = Norm { size: (rows, cols), x, weight, bias, dy: random.normal(rows * cols, 1.0), need };
            check(&format!("{rows}x{cols}, need {need:?}"), 1e-5, &case);
        }
    }
}

#[test]
fn gelu_swiglu_and_layer_scale() {
    let random = &mut Random::fresh();
    for (rows, width) in [(1, 1), (7, 33), (261, 200)] {
        for need in [(true, true), (true, false), (false, true)] {
            let x = random.normal(rows * width, 3.0);
            let (h, gamma) = (random.normal(rows * 2 * width, 3.0), random.normal(width, 1.0));
            let case = Mlp { rows, width, h, x, gamma, dy: random.normal(rows * width, 1.0), need };
            // A single number may lie in GELU's left tail, where 1 + erf leaves f32 only the digits of 1: inputs of about 1 set the scale.
            check_over(&format!("{rows}x{width}, need {need:?}"), 2e-6, 1.0, &case);
        }
    }
}

#[test]
fn sequences_and_pooling() {
    let random = &mut Random::fresh();
    for (batch, registers, patches, width) in [(1, 0, 1, 3), (3, 4, 9, 20), (2, 0, 256, 96), (2, 4, 256, 64)] {
        let dims = TokenDims { batch, registers, patches, width };
        let case = Tokens {
            dims,
            patches: random.normal(batch * patches * width, 1.0),
            cls: random.normal(width, 1.0),
            pos: random.normal((1 + patches) * width, 1.0),
            registers: random.normal(registers * width, 1.0),
            dy: random.normal(batch * dims.tokens() * width, 1.0),
            dpool: random.normal(batch * 2 * width, 1.0),
        };
        check(&format!("{dims:?}"), 1e-6, &case);
    }
}

#[test]
fn positions() {
    let random = &mut Random::fresh();
    for (from, to, width) in [(1, 1, 2), (49, 16, 33), (150, 300, 24)] {
        let case = Positions {
            from,
            to,
            width,
            pos: random.normal((1 + from) * width, 1.0),
            matrix: random.normal(to * from, 0.3),
            dy: random.normal((1 + to) * width, 1.0),
        };
        check(&format!("{from} to {to}"), 1e-5, &case);
    }
}

#[test]
fn dora_pieces() {
    let random = &mut Random::fresh();
    for (n, first_row, rows, rank, k) in [(3, 1, 1, 1, 5), (20, 4, 9, 3, 33), (300, 100, 130, 8, 384)] {
        let dims = AdapterDims { first_row, rows, rank, scale: 0.7 };
        let case = Dora {
            dims,
            k,
            w: random.normal(n * k, 0.1),
            a: random.normal(rank * k, 0.3),
            b: random.normal(rows * rank, 0.2),
            magnitude: random.uniform(rows, 0.5, 2.0),
            dgain: random.normal(rows, 1.0),
        };
        check(&format!("{dims:?}"), 1e-5, &case);
    }
}

#[test]
fn losses() {
    let random = &mut Random::fresh();
    for (rows, classes, std) in [(1, 1, 1.0), (5, 7, 3.0), (64, 101, 40.0)] {
        let labels: Vec<usize> = (0..rows).map(|_| random.next() as usize % classes).collect();
        let targets = random.uniform(rows * classes, 0.0, 1.0);
        for smoothing in [0.0, 0.1] {
            let (labels, targets) = (labels.clone(), targets.clone());
            let logits = random.normal(rows * classes, std);
            let case = Loss { classes, labels, smoothing, logits, targets };
            check(&format!("{rows}x{classes}, smoothing {smoothing}"), 1e-6, &case);
        }
    }
}

#[test]
fn adamw_and_sums() {
    let random = &mut Random::fresh();
    for len in [1, 1000, 40_000] {
        let grads = (0..3).map(|_| random.normal(len, 0.1)).collect();
        check(&format!("{len} values"), 1e-5, &Optimise { value: random.normal(len, 1.0), grads });
    }
}

#[test]
fn images_to_patches() {
    let random = &mut Random::fresh();
    for (batch, size, patch) in [(1, 14, 14), (3, 42, 14), (2, 12, 4)] {
        let images = (0..batch * size * size * 3).map(|_| random.next() as u8).collect();
        check(&format!("{batch} of {size}"), 1e-6, &Patches { images, batch, size, patch });
    }
}

#[test]
fn dropout_drops_its_share_and_the_same_everywhere() {
    let random = &mut Random::fresh();
    let len = 200_000;
    for p in [0.0, 0.1, 0.5, 0.9] {
        let seed = random.next();
        let case = Dropout { x: random.uniform(len, 0.5, 1.0), p, seed };
        check(&format!("p {p}"), 1e-6, &case);
        let mask = |kept: &[f32]| kept.iter().map(|&x| x != 0.0).collect::<Vec<_>>();
        let on_cpu = mask(&crate::run(&Cpu::new(None).unwrap(), &case)[0].1);
        let truth = mask(&crate::run(&Reference::<f64>::new(), &case)[0].1);
        assert!(on_cpu == truth, "the masks differ");
        let dropped = on_cpu.iter().filter(|&&kept| !kept).count() as f64;
        let std = (p * (1.0 - p) * len as f64).sqrt();
        assert!((dropped - p * len as f64).abs() <= 5.0 * std, "p {p}: dropped {dropped} of {len}");
        // Neighbours are independent: both dropped with probability p^2.
        let both = on_cpu.windows(2).filter(|pair| !pair[0] && !pair[1]).count() as f64;
        assert!((both - p * p * len as f64).abs() <= 10.0 * (p * len as f64).sqrt().max(1.0), "p {p}: {both} pairs");
        if p > 0.0 {
            let other = (0..len as u64).filter(|&i| dropout_keeps(seed ^ 1, i, p) != on_cpu[i as usize]).count();
            assert!(other > len / 10, "another seed gives another mask");
        }
    }
}
