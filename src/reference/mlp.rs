//! GELU, SwiGLU, and LayerScale with its residual.

use super::real::Real;

/// The standard normal's distribution function, (1 + erf(x / sqrt 2)) / 2, as erfc(-x / sqrt 2) / 2: exact far down on the left, too.
fn normal_cdf<T: Real>(x: T) -> T {
    T::from_f64(0.5) * (x * T::from_f64(-std::f64::consts::FRAC_1_SQRT_2)).erfc()
}

/// 1 / (1 + exp(-x)).
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// x cdf(x).
pub fn gelu<T: Real>(x: &[T]) -> Vec<T> {
    x.iter().map(|&x| x * normal_cdf(x)).collect()
}

/// dy (cdf(x) + x density(x)).
pub fn gelu_backward<T: Real>(x: &[T], dy: &[T]) -> Vec<T> {
    let inv_sqrt_tau = T::from_f64(1.0 / std::f64::consts::TAU.sqrt());
    let density = |x: T| inv_sqrt_tau * (-T::from_f64(0.5) * x * x).exp();
    x.iter().zip(dy).map(|(&x, &dy)| dy * (normal_cdf(x) + x * density(x))).collect()
}

/// gate sigmoid(gate) up, h \[rows, 2 width\] = gate | up.
pub fn swiglu<T: Real>(width: usize, h: &[T]) -> Vec<T> {
    let mut y = Vec::with_capacity(h.len() / 2);
    for h in h.chunks_exact(2 * width) {
        let (gate, up) = h.split_at(width);
        y.extend(gate.iter().zip(up).map(|(&gate, &up)| gate * sigmoid(gate) * up));
    }
    y
}

/// dgate = dy up sigmoid (1 + gate (1 - sigmoid)), dup = dy gate sigmoid.
pub fn swiglu_backward<T: Real>(width: usize, h: &[T], dy: &[T]) -> Vec<T> {
    let mut dh = Vec::with_capacity(h.len());
    for (h, dy) in h.chunks_exact(2 * width).zip(dy.chunks_exact(width)) {
        let (gate, up) = h.split_at(width);
        dh.extend((0..width).map(|c| {
            let sigma = sigmoid(gate[c]);
            dy[c] * up[c] * sigma * (T::ONE + gate[c] * (T::ONE - sigma))
        }));
        dh.extend((0..width).map(|c| dy[c] * gate[c] * sigmoid(gate[c])));
    }
    dh
}

/// x + gamma h.
pub fn layer_scale<T: Real>(cols: usize, x: &[T], h: &[T], gamma: &[T]) -> Vec<T> {
    x.iter().zip(h).enumerate().map(|(i, (&x, &h))| x + gamma[i % cols] * h).collect()
}

/// (dh = gamma dy, dgamma = sum over rows of dy h).
pub fn layer_scale_backward<T: Real>(
    cols: usize,
    h: Option<&Vec<T>>,
    gamma: &[T],
    dy: &[T],
    need: (bool, bool),
) -> (Option<Vec<T>>, Option<Vec<T>>) {
    let dh = need.0.then(|| dy.iter().enumerate().map(|(i, &dy)| gamma[i % cols] * dy).collect());
    let dgamma = h.filter(|_| need.1).map(|h| {
        let mut dgamma = vec![T::ZERO; cols];
        for (i, (&h, &dy)) in h.iter().zip(dy).enumerate() {
            dgamma[i % cols] += dy * h;
        }
        dgamma
    });
    (dh, dgamma)
}
