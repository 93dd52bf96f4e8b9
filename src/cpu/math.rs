//! Arithmetic on slices that compiles to wide vectors: no fused multiply-add and a fixed order of sums, so that every machine gets the
//! same bits from it.

/// Runs `f` compiled for the widest vectors that this machine has. `f` and all that it calls must be `inline(always)`: what is not inlined
/// keeps the narrow ones.
pub(super) fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Partial sums that a reduction runs side by side.
const LANES: usize = 16;

/// The lanes' sum, by halves.
#[inline(always)]
fn fold(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// The sum of f(a_i, b_i).
#[inline(always)]
pub(super) fn sum_by(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let tail: f32 = a.remainder().iter().zip(b.remainder()).map(|(&a, &b)| f(a, b)).sum();
    for (a, b) in a.zip(b) {
        for i in 0..LANES {
            lanes[i] += f(a[i], b[i]);
        }
    }
    fold(lanes) + tail
}

/// The inner product.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    sum_by(a, b, |a, b| a * b)
}

/// The sum.
#[inline(always)]
pub(super) fn sum(x: &[f32]) -> f32 {
    sum_by(x, x, |x, _| x)
}

/// The largest. NaN is passed over: it shows in the sum of exponentials that this is taken for.
#[inline(always)]
pub(super) fn largest(x: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder().iter().fold(f32::NEG_INFINITY, |max, &x| larger(max, x));
    for x in chunks {
        for i in 0..LANES {
            lanes[i] = larger(lanes[i], x[i]);
        }
    }
    lanes.iter().fold(tail, |max, &x| larger(max, x))
}

/// acc += x.
#[inline(always)]
pub(super) fn add_assign(acc: &mut [f32], x: &[f32]) {
    for (acc, &x) in acc.iter_mut().zip(x) {
        *acc += x;
    }
}

/// acc += factor x.
#[inline(always)]
pub(super) fn axpy(acc: &mut [f32], factor: f32, x: &[f32]) {
    for (acc, &x) in acc.iter_mut().zip(x) {
        *acc += factor * x;
    }
}

/// a b, elementwise, into `a`.
#[inline(always)]
pub(super) fn mul_assign(a: &mut [f32], b: &[f32]) {
    for (a, &b) in a.iter_mut().zip(b) {
        *a *= b;
    }
}

/// x *= factor.
#[inline(always)]
pub(super) fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

/// e^x within 2 units in the last place between -87 and 88; beyond, the value at the end. NaN stays.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer n, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts; n times the first is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    // (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, a minimax fit of degree 5.
    let mut p = 1.989_098_1e-4;
    for c in [1.393_364e-3, 8.333_311e-3, 4.166_646_5e-2, 1.666_666_7e-1, 0.5] {
        p = p * r + c;
    }
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    ((p * (r * r) + r) + 1.0) * power
}

/// (The standard normal's distribution function, e^(-x^2 / 2)): absolute error under 2e-7.
#[inline(always)]
pub(super) fn normal(x: f32) -> (f32, f32) {
    let bell = exp(-0.5 * (x * x));
    let t = 1.0 / (1.0 + 0.3 * x.abs());
    // e^(z^2 / 2) cdf(-z) / t for z = |x|, a minimax fit of degree 9 in t on 0 ..= 1.
    let mut p = -1.549_771_3e-2;
    for c in [
        8.638_014e-2,
        -1.716_831_9e-1,
        1.234_653_5e-1,
        -2.907_537_6e-2,
        7.287_253e-2,
        8.509_037e-2,
        1.090_878_2e-1,
        1.196_773_6e-1,
        1.196_827_1e-1,
    ] {
        p = p * t + c;
    }
    let below = bell * (p * t);
    (if x < 0.0 { below } else { 1.0 - below }, bell)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_the_normal_distribution_are_exact_to_f32() {
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= 2.0e-7 * want, "exp({x})");
        }
        for i in -120_000..120_000 {
            let x = i as f32 * 1e-4;
            let want = 0.5 * libm::erfc(-f64::from(x) * std::f64::consts::FRAC_1_SQRT_2);
            let found = f64::from(normal(x).0);
            assert!((found - want).abs() <= 2.0e-7, "cdf({x}): {found}, not {want}");
        }
        assert!(exp(f32::NAN).is_nan() && normal(f32::NAN).0.is_nan());
        assert_eq!(largest(&[0.0, f32::NAN, 1.0]), 1.0);
    }

    #[test]
    fn reductions_take_every_element() {
        for len in [0, 1, 15, 16, 17, 50] {
            let x: Vec<f32> = (1..=len).map(|i| i as f32).collect();
            assert_eq!(sum(&x), (len * (len + 1) / 2) as f32);
            assert_eq!(dot(&x, &x), (len * (len + 1) * (2 * len + 1) / 6) as f32);
            assert_eq!(
                simd(
                    #[inline(always)]
                    || largest(&x)
                ),
                if len == 0 { f32::NEG_INFINITY } else { len as f32 }
            );
        }
    }
}
