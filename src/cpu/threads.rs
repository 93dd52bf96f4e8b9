//! Work in fixed pieces: how it is cut depends on sizes alone, never on the number of threads, so that sums come out the same bits.

use std::sync::Arc;

use rayon::prelude::*;

use crate::{Error, Result};

/// Numbers in a piece of an elementwise operation: 64 KiB, so that two or three operands stay in the second-level cache.
pub(super) const PIECE: usize = 16 * 1024;

/// Rows in a piece of a linear: a piece of 1536 columns is 768 KiB, in the second-level cache for what follows the product.
const LINEAR_ROWS: usize = 128;

/// The threads that do the work.
#[derive(Clone, Debug)]
pub(super) struct Threads(Option<Arc<rayon::ThreadPool>>);

impl Threads {
    /// `count` threads, by default as many as rayon has: one a core, or RAYON_NUM_THREADS.
    pub(super) fn new(count: Option<usize>) -> Result<Self> {
        let count = count.unwrap_or_else(rayon::current_num_threads);
        if count <= 1 {
            return Ok(Self(None));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("cpu-{index}"))
            .build()
            .map_err(|e| Error::Internal(format!("cannot start {count} threads: {e}")))?;
        Ok(Self(Some(Arc::new(pool))))
    }

    /// What `f` makes of each piece, in the pieces' order.
    pub(super) fn map<P: Send, R: Send>(&self, pieces: Vec<P>, f: impl Fn(P) -> R + Sync + Send) -> Vec<R> {
        match &self.0 {
            Some(pool) if pieces.len() > 1 => pool.install(|| pieces.into_par_iter().with_max_len(1).map(f).collect()),
            _ => pieces.into_iter().map(f).collect(),
        }
    }

    /// `f` on each piece.
    pub(super) fn each<P: Send>(&self, pieces: Vec<P>, f: impl Fn(P) + Sync + Send) {
        self.map(pieces, f);
    }
}

/// Rows a piece when `rows` are cut into about equal pieces of about `about`.
pub(super) fn even(rows: usize, about: usize) -> usize {
    let pieces = ((rows + about / 2) / about).max(1);
    rows.div_ceil(pieces).max(1)
}

/// Rows a piece of a linear of `rows`.
pub(super) fn linear_rows(rows: usize) -> usize {
    even(rows, LINEAR_ROWS)
}

/// Rows a piece when an elementwise operation goes over rows of `cols`.
pub(super) fn piece_rows(cols: usize) -> usize {
    (PIECE / cols.max(1)).max(1)
}

/// A run of rows that is worked on at once, within one granule.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Its first row.
    pub(super) first: usize,
    /// Its rows.
    pub(super) count: usize,
    /// The granule that it lies in.
    pub(super) granule: usize,
}

/// `rows` cut into granules, and those into runs of `most` rows.
pub(super) fn runs(rows: usize, granule: usize, most: usize) -> Vec<Run> {
    let mut list = Vec::new();
    for start in (0..rows).step_by(granule) {
        let end = (start + granule).min(rows);
        let firsts = (start..end).step_by(most);
        list.extend(firsts.map(|first| Run { first, count: most.min(end - first), granule: start / granule }));
    }
    list
}

/// The runs' shares of a matrix with `cols` columns, each to be written by one of them.
pub(super) fn shares<'a>(runs: &[Run], cols: usize, matrix: Option<&'a mut [f32]>) -> Vec<Option<&'a mut [f32]>> {
    let Some(mut rest) = matrix else { return runs.iter().map(|_| None).collect() };
    let mut list = Vec::new();
    for run in runs {
        let (share, more) = std::mem::take(&mut rest).split_at_mut(run.count * cols);
        list.push(Some(share));
        rest = more;
    }
    list
}

/// Adds up the pieces' partial sums in their order.
pub(super) fn add_up(into: &mut [f32], partials: impl IntoIterator<Item = Vec<f32>>) {
    for partial in partials {
        super::math::add_assign(into, &partial);
    }
}
