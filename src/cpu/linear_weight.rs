//! dW of a linear, for full fine-tuning and the head; cut by rows of W, each piece summing over all tokens.

use super::gemm::{columns, mat, mat_mut, product};
use super::math::{add_assign, axpy, scale};
use super::threads::linear_rows;
use super::{Buffer, Cpu};
use crate::autograd::{LinearBackward, LinearDims};

/// dw += dW \[n, k\] = (g dy)^T x, and with dropout dy^T x + ((g - 1) dy)^T drop(x), granule by granule of rows.
pub(super) fn weight_gradient(
    cpu: &Cpu,
    args: &LinearBackward<'_, Buffer>,
    x: &[f32],
    granule: usize,
    mut dw: Buffer,
) -> Buffer {
    let LinearDims { m, k, n } = args.dims;
    let rows = linear_rows(n);
    cpu.threads.each(dw.chunks_mut(rows * k).enumerate().collect(), |(piece, sum): (usize, &mut [f32])| {
        let (first, count) = (piece * rows, sum.len() / k);
        let mut dw = vec![0.0; sum.len()];
        for start in (0..m).step_by(granule) {
            let tokens = granule.min(m - start);
            let (dy_rows, x) = (&args.dy[start * n..(start + tokens) * n], &x[start * k..(start + tokens) * k]);
            let dy = columns(dy_rows, tokens, n, first, count);
            product(mat_mut(&mut dw, count, k), dy.transpose(), mat(x, tokens, k), 1.0);
            for adapter in &args.adapters {
                let Some(gain) = adapter.gain else { continue };
                let d = adapter.dims;
                let (begin, end) = (first.max(d.first_row), (first + count).min(d.first_row + d.rows));
                if begin >= end {
                    continue;
                }
                let gain = &gain[begin - d.first_row..end - d.first_row];
                let dw = &mut dw[(begin - first) * k..(end - first) * k];
                match adapter.dropped {
                    None => dw.chunks_exact_mut(k).zip(gain).for_each(|(row, &gain)| scale(row, gain)),
                    Some(dropped) => {
                        let factors: Vec<f32> = gain.iter().map(|&gain| gain - 1.0).collect();
                        let dropped = &dropped[start * k..(start + tokens) * k];
                        add_weight_rows(dw, k, columns(dy_rows, tokens, n, begin, end - begin), dropped, &factors);
                    }
                }
            }
            add_assign(sum, &dw);
        }
    });
    dw
}

/// out += diag(factors) dy^T xd.
fn add_weight_rows(out: &mut [f32], k: usize, dy: faer::MatRef<'_, f32>, xd: &[f32], factors: &[f32]) {
    let mut product_rows = vec![0.0; out.len()];
    product(mat_mut(&mut product_rows, factors.len(), k), dy.transpose(), mat(xd, dy.nrows(), k), 1.0);
    for ((out, row), &factor) in out.chunks_exact_mut(k).zip(product_rows.chunks_exact(k)).zip(factors) {
        axpy(out, factor, row);
    }
}
