//! LayerNorm, a piece of rows at a time.

use super::math::{add_assign, simd, sum, sum_by};
use super::threads::{add_up, piece_rows, runs, shares};
use super::{Buffer, Cpu};
use crate::autograd::{NormBackward, Sums};

/// ((x, y), (mean, 1 / standard deviation)) of a piece.
type NormPiece<'a> = ((&'a [f32], &'a mut [f32]), (&'a mut [f32], &'a mut [f32]));

/// See [`crate::autograd::Backend::layer_norm`].
pub(super) fn layer_norm(
    cpu: &Cpu,
    (rows, cols): (usize, usize),
    x: &[f32],
    weight: &[f32],
    bias: &[f32],
    eps: f64,
) -> (Buffer, Buffer, Buffer) {
    let piece = piece_rows(cols);
    let mut y = cpu.pool.dirty(rows * cols);
    let (mut mean, mut rstd) = (cpu.pool.dirty(rows), cpu.pool.dirty(rows));
    let stats = mean.chunks_mut(piece).zip(rstd.chunks_mut(piece));
    let pieces = x.chunks(piece * cols).zip(y.chunks_mut(piece * cols)).zip(stats).collect();
    cpu.threads.each(pieces, |((x, y), (mean, rstd)): NormPiece<'_>| {
        simd(
            #[inline(always)]
            || {
                let rows = x.chunks_exact(cols).zip(y.chunks_exact_mut(cols));
                for ((x, y), (mean_out, rstd_out)) in rows.zip(mean.iter_mut().zip(rstd)) {
                    let mean = sum(x) / cols as f32;
                    let variance = sum_by(x, x, |x, _| (x - mean) * (x - mean)) / cols as f32;
                    let rstd = 1.0 / (variance + eps as f32).sqrt();
                    for (((y, &x), &weight), &bias) in y.iter_mut().zip(x).zip(weight).zip(bias) {
                        *y = (x - mean) * rstd * weight + bias;
                    }
                    (*mean_out, *rstd_out) = (mean, rstd);
                }
            },
        );
    });
    (y, mean, rstd)
}

/// See [`crate::autograd::Backend::layer_norm_backward`].
pub(super) fn layer_norm_backward(
    cpu: &Cpu,
    args: &NormBackward<'_, Buffer>,
    need: (bool, bool),
    mut sums: Sums<Buffer>,
) -> (Option<Buffer>, Option<(Buffer, Buffer)>) {
    let cols = args.cols;
    let runs = runs(args.mean.len(), sums.granule(args.mean.len()), piece_rows(cols));
    let mut dx = need.0.then(|| cpu.pool.dirty(args.x.len()));
    let pieces: Vec<_> = runs.iter().copied().zip(shares(&runs, cols, dx.as_deref_mut())).collect();
    let partials = cpu.threads.map(pieces, |(run, mut dx)| {
        let first = run.first;
        simd(
            #[inline(always)]
            || {
                let mut sums = need.1.then(|| (vec![0.0; cols], vec![0.0; cols]));
                for i in first..first + run.count {
                    let (x, dy) = (&args.x[i * cols..(i + 1) * cols], &args.dy[i * cols..(i + 1) * cols]);
                    let (mean, rstd) = (args.mean[i], args.rstd[i]);
                    if let Some((dweight, dbias)) = &mut sums {
                        for ((dweight, &x), &dy) in dweight.iter_mut().zip(x).zip(dy) {
                            *dweight += dy * ((x - mean) * rstd);
                        }
                        add_assign(dbias, dy);
                    }
                    if let Some(dx) = &mut dx {
                        let dx = &mut dx[(i - first) * cols..(i - first + 1) * cols];
                        for ((dx, &dy), &weight) in dx.iter_mut().zip(dy).zip(&**args.weight) {
                            *dx = dy * weight;
                        }
                        let mean_dh = sum(dx) / cols as f32;
                        let mean_dh_h = sum_by(dx, x, |dh, x| dh * ((x - mean) * rstd)) / cols as f32;
                        for (dx, &x) in dx.iter_mut().zip(x) {
                            *dx = rstd * (*dx - mean_dh - (x - mean) * rstd * mean_dh_h);
                        }
                    }
                }
                sums
            },
        )
    });
    let made = need.1.then(|| {
        let (mut dweight, mut dbias) = (cpu.sum_block(&mut sums, 0, cols), cpu.sum_block(&mut sums, 1, cols));
        let mut partials = runs.iter().zip(partials).peekable();
        while let Some((run, partial)) = partials.next() {
            let (mut weight, mut bias) = partial.unwrap_or_default();
            while let Some((_, Some((more_weight, more_bias)))) =
                partials.next_if(|(next, _)| next.granule == run.granule)
            {
                add_up(&mut weight, [more_weight]);
                add_up(&mut bias, [more_bias]);
            }
            add_up(&mut dweight, [weight]);
            add_up(&mut dbias, [bias]);
        }
        (dweight, dbias)
    });
    (dx, made)
}
