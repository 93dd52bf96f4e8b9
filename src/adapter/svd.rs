//! The largest singular values and vectors of a weight.

use nalgebra::{DMatrix, SymmetricEigen};

use crate::{Error, Result};

/// The `rank` largest singular triples of a matrix \[rows, cols\]: u \[rows, rank\], the values falling, v \[rank, cols\].
///
/// They come from the eigenvectors of the smaller Gram matrix in f64: squaring halves the digits of the small singular values only,
/// and a weight's largest ones are asked for. Each vector's sign is fixed (the largest entry of v is positive), so that one
/// weight always gives one adapter.
pub fn top_singular(weight: &[f32], rows: usize, cols: usize, rank: usize) -> Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
    if rank > rows.min(cols) {
        return Err(Error::shape("top_singular", format!("a rank of at most {}", rows.min(cols)), rank));
    }
    let w = DMatrix::from_row_iterator(rows, cols, weight.iter().map(|&x| f64::from(x)));
    let tall = rows >= cols;
    let gram = if tall { w.tr_mul(&w) } else { &w * w.transpose() };
    let size = gram.nrows();
    let eigen = SymmetricEigen::try_new(gram, f64::EPSILON, 1000 * size)
        .ok_or_else(|| Error::Internal("the singular value decomposition did not converge".into()))?;
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&i, &j| eigen.eigenvalues[j].total_cmp(&eigen.eigenvalues[i]));
    let (mut u, mut sigma, mut v) = (vec![0.0; rows * rank], Vec::with_capacity(rank), Vec::with_capacity(rank * cols));
    for (i, &at) in order.iter().take(rank).enumerate() {
        let vector = eigen.eigenvectors.column(at);
        // The other side's vector times sigma.
        let other = if tall { &w * vector } else { w.tr_mul(&vector) };
        let value = other.norm();
        let inverse = if value > 0.0 { 1.0 / value } else { 0.0 };
        let (left, right): (Vec<f64>, Vec<f64>) = if tall {
            (other.iter().map(|x| x * inverse).collect(), vector.iter().copied().collect())
        } else {
            (vector.iter().copied().collect(), other.iter().map(|x| x * inverse).collect())
        };
        let largest = right.iter().copied().fold(0.0, |best: f64, x| if x.abs() > best.abs() { x } else { best });
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        for (j, x) in left.iter().enumerate() {
            u[j * rank + i] = sign * x;
        }
        v.extend(right.iter().map(|x| sign * x));
        sigma.push(value);
    }
    Ok((u, sigma, v))
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};

    use super::top_singular;

    #[test]
    fn the_full_rank_gives_the_matrix_back() {
        for (rows, cols) in [(9, 5), (5, 9), (7, 7)] {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(rows as u64);
            let w: Vec<f32> = (0..rows * cols).map(|_| rng.random::<f32>() - 0.5).collect();
            let rank = rows.min(cols);
            let (u, s, v) = top_singular(&w, rows, cols, rank).unwrap();
            assert!(s.windows(2).all(|pair| pair[0] >= pair[1]));
            for (at, &x) in w.iter().enumerate() {
                let (j, c) = (at / cols, at % cols);
                let sum: f64 = (0..rank).map(|i| u[j * rank + i] * s[i] * v[i * cols + c]).sum();
                assert!((sum - f64::from(x)).abs() < 1e-9, "{rows} x {cols} at {at}: {sum} for {x}");
            }
        }
    }
}
