//! Matrix products, by faer's kernels on one thread: the callers cut the work, so that no bit depends on the number of threads.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

/// A row-major matrix \[rows, cols\].
pub(super) fn mat(data: &[f32], rows: usize, cols: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice(&data[..rows * cols], rows, cols)
}

/// The columns `first .. first + cols` of a row-major matrix of `stride` columns.
pub(super) fn columns(data: &[f32], rows: usize, stride: usize, first: usize, cols: usize) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice_with_stride(&data[first..], rows, cols, stride)
}

/// As [`mat`], to write.
pub(super) fn mat_mut(data: &mut [f32], rows: usize, cols: usize) -> MatMut<'_, f32> {
    MatMut::from_row_major_slice_mut(&mut data[..rows * cols], rows, cols)
}

/// As [`columns`], to write.
pub(super) fn columns_mut(data: &mut [f32], rows: usize, stride: usize, first: usize, cols: usize) -> MatMut<'_, f32> {
    // As the transpose of a column-major matrix: in faer 0.24.4 `from_row_major_slice_with_stride_mut` swaps the strides and writes
    // out of bounds.
    MatMut::from_column_major_slice_with_stride_mut(&mut data[first..], cols, rows, stride).transpose_mut()
}

/// out = factor a b.
pub(super) fn product(out: MatMut<'_, f32>, a: MatRef<'_, f32>, b: MatRef<'_, f32>, factor: f32) {
    matmul(out, Accum::Replace, a, b, factor, Par::Seq);
}

/// out += a b.
pub(super) fn add_product(out: MatMut<'_, f32>, a: MatRef<'_, f32>, b: MatRef<'_, f32>) {
    matmul(out, Accum::Add, a, b, 1.0, Par::Seq);
}
