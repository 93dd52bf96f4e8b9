//! DoRA's weight norm: the length of every row of W + scale B A.

use super::Real;

/// `norm[j] = sqrt(sum_c (W[j,c] + scale * sum_k B[j,k] A[k,c])^2)` for every row j.
///
/// All matrices are row-major: `w` `[rows, cols]`, `a` `[rank, cols]`, `b` `[rows, rank]`; the result has `rows` values.
///
/// # Panics
/// When a slice is not as long as its shape says.
pub fn dora_norm<T: Real>(w: &[T], a: &[T], b: &[T], scale: T, rows: usize, cols: usize, rank: usize) -> Vec<T> {
    assert_eq!((w.len(), a.len(), b.len()), (rows * cols, rank * cols, rows * rank), "W, A, B");
    let mut norms = Vec::with_capacity(rows);
    for j in 0..rows {
        let mut squares = T::ZERO;
        for c in 0..cols {
            let mut delta = T::ZERO;
            for k in 0..rank {
                delta += b[j * rank + k] * a[k * cols + c];
            }
            let v = w[j * cols + c] + scale * delta;
            squares += v * v;
        }
        norms.push(squares.sqrt());
    }
    norms
}

#[cfg(test)]
mod tests {
    use super::dora_norm;

    #[test]
    fn by_hand() {
        // Row 0: W = (3, 0), B A = (0, 2), scale 2: (3, 4). Row 1: W = (1, -1), B A = (-1, 1) * 0.5: (0, 0).
        let w = [3.0, 0.0, 1.0, -1.0];
        let a = [0.0, 2.0, -1.0, 1.0];
        let b = [1.0, 0.0, 0.0, 0.5];
        assert_eq!(dora_norm(&w, &a, &b, 2.0_f64, 2, 2, 2), [5.0, 0.0]);
        assert_eq!(
            dora_norm(&w.map(|x| x as f32), &a.map(|x| x as f32), &b.map(|x| x as f32), 2.0, 2, 2, 2),
            [5.0, 0.0]
        );
    }

    #[test]
    fn without_a_delta_it_is_the_norm_of_w() {
        let w = [1.0, 2.0, 2.0, 0.0, -4.0, 3.0];
        assert_eq!(dora_norm(&w, &[7.0, 8.0, 9.0], &[0.0, 0.0], 1.5, 2, 3, 1), [3.0, 5.0]);
    }
}
