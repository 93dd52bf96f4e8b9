//! Linear layers with low-rank adapters.

use super::real::{Real, dot};
use crate::autograd::{Adapter, AdapterGrads, LinearBackward, LinearDims, LinearGrads, LinearOutput};

/// `a[i, j]` of a row-major matrix with `cols` columns, as a row.
fn row<T>(a: &[T], cols: usize, i: usize) -> &[T] {
    &a[i * cols..(i + 1) * cols]
}

/// a \[m, k\] times the transpose of b \[n, k\]: \[m, n\].
fn times_transposed<T: Real>(m: usize, n: usize, k: usize, a: &[T], b: &[T]) -> Vec<T> {
    let mut out = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            out.push(dot(row(a, k, i), row(b, k, j)));
        }
    }
    out
}

/// The adapter's branch before its gain: z = xd W^T + s t B^T \[m, rows\].
fn branch<T: Real>(dims: LinearDims, w: &[T], adapter: &Adapter<'_, Vec<T>>, xd: &[T], t: &[T]) -> Vec<T> {
    let d = adapter.dims;
    let w = &w[d.first_row * dims.k..(d.first_row + d.rows) * dims.k];
    let base = times_transposed(dims.m, d.rows, dims.k, xd, w);
    let low_rank = times_transposed(dims.m, d.rows, d.rank, t, adapter.b);
    let s = T::from_f64(d.scale);
    base.iter().zip(&low_rank).map(|(&base, &low_rank)| base + s * low_rank).collect()
}

/// y = x W^T + bias, then on each adapter's rows what it adds.
pub fn linear<T: Real>(
    dims: LinearDims,
    x: &[T],
    w: &[T],
    bias: Option<&Vec<T>>,
    adapters: &[Adapter<'_, Vec<T>>],
) -> LinearOutput<Vec<T>> {
    let LinearDims { m, k, n } = dims;
    let mut y = times_transposed(m, n, k, x, w);
    let (mut ts, mut zs) = (Vec::new(), Vec::new());
    for adapter in adapters {
        let d = adapter.dims;
        let s = T::from_f64(d.scale);
        let xd = adapter.dropped.map_or(x, |dropped| &dropped[..]);
        let t = times_transposed(m, d.rank, k, xd, adapter.a);
        let z = branch(dims, w, adapter, xd, &t);
        for i in 0..m {
            for j in 0..d.rows {
                let y = &mut y[i * n + d.first_row + j];
                // Without a gain y + s t B^T, with one y + (g - 1) z + s t B^T: for g = 1 the same.
                *y += s * dot(row(&t, d.rank, i), row(adapter.b, d.rank, j));
                if let Some(gain) = adapter.gain {
                    *y += (gain[j] - T::ONE) * z[i * d.rows + j];
                }
            }
        }
        ts.push(t);
        zs.push((adapter.gain.is_some() && adapter.dropped.is_some()).then_some(z));
    }
    if let Some(bias) = bias {
        for y in y.chunks_exact_mut(n) {
            for (y, &bias) in y.iter_mut().zip(bias) {
                *y += bias;
            }
        }
    }
    LinearOutput { y, t: ts, z: zs }
}

/// The gradients of [`linear`].
pub fn linear_backward<T: Real>(args: LinearBackward<'_, Vec<T>>) -> LinearGrads<Vec<T>> {
    let LinearDims { m, k, n } = args.dims;
    // What multiplies x W^T: dy, and with a gain and no dropout g dy.
    let mut dbase = args.dy.clone();
    for adapter in args.adapters.iter().filter(|adapter| adapter.dropped.is_none()) {
        let Some(gain) = adapter.gain else { continue };
        for i in 0..m {
            for (j, &gain) in gain.iter().enumerate() {
                dbase[i * n + adapter.dims.first_row + j] *= gain;
            }
        }
    }
    let mut dx = args.need_x.then(|| {
        let mut dx = vec![T::ZERO; m * k];
        for i in 0..m {
            for j in 0..n {
                for c in 0..k {
                    dx[i * k + c] += dbase[i * n + j] * args.w[j * k + c];
                }
            }
        }
        dx
    });
    let mut dw = args.x.filter(|_| args.need_w).map(|x| {
        let mut dw = vec![T::ZERO; n * k];
        for i in 0..m {
            for j in 0..n {
                for c in 0..k {
                    dw[j * k + c] += dbase[i * n + j] * x[i * k + c];
                }
            }
        }
        dw
    });
    let dbias = args.need_bias.then(|| (0..n).map(|j| (0..m).map(|i| args.dy[i * n + j]).sum()).collect());
    let mut adapters = Vec::new();
    for (index, adapter) in args.adapters.iter().enumerate() {
        let (grads, through_x) = adapter_backward(&args, index, dw.as_mut());
        if let (Some(dx), Some(through_x), None) = (&mut dx, through_x, adapter.dropped) {
            dx.iter_mut().zip(&through_x).for_each(|(dx, &d)| *dx += d);
        }
        adapters.push(grads);
    }
    LinearGrads { x: dx, w: dw, bias: dbias, adapters }
}

/// One adapter's gradients, and what flows into its input (x itself when there is no dropout).
fn adapter_backward<T: Real>(
    args: &LinearBackward<'_, Vec<T>>,
    index: usize,
    dw: Option<&mut Vec<T>>,
) -> (AdapterGrads<Vec<T>>, Option<Vec<T>>) {
    let LinearDims { m, k, n } = args.dims;
    let adapter = &args.adapters[index];
    let (d, t) = (adapter.dims, args.t[index]);
    let s = T::from_f64(d.scale);
    let xd = adapter.dropped.or(args.x);
    let gain = |j: usize| adapter.gain.map_or(T::ONE, |gain| gain[j]);
    let dy = |i: usize, j: usize| args.dy[i * n + d.first_row + j];

    // dt = s (g dy) B.
    let mut dt = vec![T::ZERO; m * d.rank];
    for i in 0..m {
        for j in 0..d.rows {
            for r in 0..d.rank {
                dt[i * d.rank + r] += s * gain(j) * dy(i, j) * adapter.b[j * d.rank + r];
            }
        }
    }
    let mut grads = AdapterGrads { a: None, b: None, gain: None, dropped: None };
    if args.need_adapter {
        // dB = s (g dy)^T t.
        let mut db = vec![T::ZERO; d.rows * d.rank];
        for i in 0..m {
            for j in 0..d.rows {
                for r in 0..d.rank {
                    db[j * d.rank + r] += s * gain(j) * dy(i, j) * t[i * d.rank + r];
                }
            }
        }
        grads.b = Some(db);
        // dA = dt^T xd.
        grads.a = xd.map(|xd| {
            let mut da = vec![T::ZERO; d.rank * k];
            for i in 0..m {
                for r in 0..d.rank {
                    for c in 0..k {
                        da[r * k + c] += dt[i * d.rank + r] * xd[i * k + c];
                    }
                }
            }
            da
        });
        // dg = sum over tokens of dy z. Without dropout z is made anew, not divided out of y: a gain may be 0.
        if let (Some(_), Some(xd)) = (adapter.gain, xd) {
            let z = branch(args.dims, args.w, adapter, xd, t);
            grads.gain = Some((0..d.rows).map(|j| (0..m).map(|i| dy(i, j) * z[i * d.rows + j]).sum()).collect());
        }
    }
    // With dropout and a gain, (g - 1) xd W^T is a second use of W.
    let second = |i: usize, j: usize| match adapter.dropped {
        Some(_) => (gain(j) - T::ONE) * dy(i, j),
        None => T::ZERO,
    };
    if let (Some(dw), Some(dropped)) = (dw, adapter.dropped) {
        for i in 0..m {
            for j in 0..d.rows {
                for c in 0..k {
                    dw[(d.first_row + j) * k + c] += second(i, j) * dropped[i * k + c];
                }
            }
        }
    }
    let into_input = args.need_x.then(|| {
        let mut dxd = vec![T::ZERO; m * k];
        for i in 0..m {
            for c in 0..k {
                let through_w: T = (0..d.rows).map(|j| second(i, j) * args.w[(d.first_row + j) * k + c]).sum();
                let through_a: T = (0..d.rank).map(|r| dt[i * d.rank + r] * adapter.a[r * k + c]).sum();
                dxd[i * k + c] = through_w + through_a;
            }
        }
        dxd
    });
    if adapter.dropped.is_some() {
        grads.dropped = into_input.clone();
    }
    (grads, into_input)
}
