//! Means over a few seeds, and whether two of them differ by more than the seeds do.

use serde::Serialize;

/// Mean, spread and 95 % interval of a few numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Sample standard deviation, with count - 1; 0 of one number.
    pub sd: f64,
    /// Half the width of Student's 95 % interval of the mean; none of one number, which says nothing of its spread.
    pub half_width: Option<f64>,
}

impl Spread {
    /// Of the numbers given; none of none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let count = values.len();
        if count == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / count as f64;
        if count == 1 {
            return Some(Self { count, mean, sd: 0.0, half_width: None });
        }
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let sd = (squares / (count - 1) as f64).sqrt();
        let half_width = Some(t95((count - 1) as f64) * sd / (count as f64).sqrt());
        Some(Self { count, mean, sd, half_width })
    }
}

/// The 95 % interval of the difference of two means, Welch's (1947): (difference, half its width). None where a spread is unknown.
pub fn difference(a: &Spread, b: &Spread) -> Option<(f64, f64)> {
    if a.count < 2 || b.count < 2 {
        return None;
    }
    let [va, vb] = [a, b].map(|s| s.sd * s.sd / s.count as f64);
    let variance = va + vb;
    let gap = a.mean - b.mean;
    if variance == 0.0 {
        return Some((gap, 0.0));
    }
    let freedom = variance * variance / (va * va / (a.count - 1) as f64 + vb * vb / (b.count - 1) as f64);
    Some((gap, t95(freedom) * variance.sqrt()))
}

/// Whether two means differ by more than their seeds' noise; none where that cannot be told.
pub fn differ(a: &Spread, b: &Spread) -> Option<bool> {
    // Two seeds that agree to the last image say nothing of what a third would do.
    difference(a, b).and_then(|(gap, half)| (half > 0.0 || gap == 0.0).then_some(gap.abs() > half))
}

/// Student's two-sided 95 % quantile. Between whole degrees of freedom that of the lower one, which is on the safe side.
fn t95(freedom: f64) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    // Welch's freedom is at least the smaller count less one; rounding may put it a hair below.
    let whole = (freedom + 1e-9).floor().max(1.0) as usize;
    match whole {
        31..60 => 2.042,
        60..120 => 2.000,
        120.. => 1.980,
        _ => TABLE[whole - 1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_by_hand() {
        let spread = Spread::of([0.60, 0.62, 0.64]).unwrap();
        assert!((spread.mean - 0.62).abs() < 1e-12 && (spread.sd - 0.02).abs() < 1e-12);
        // 4.303 * 0.02 / sqrt 3.
        assert!((spread.half_width.unwrap() - 0.049_687).abs() < 1e-5);
        assert_eq!(Spread::of([0.5]).unwrap(), Spread { count: 1, mean: 0.5, sd: 0.0, half_width: None });
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn welch_by_hand() {
        // By Welch's formulas: t = -4.123, 4.85 degrees of freedom; the quantile is that of 4.
        let (a, b) = (Spread::of([1.0, 2.0, 3.0]).unwrap(), Spread::of([4.0, 6.0, 8.0, 7.0]).unwrap());
        let (gap, half) = difference(&a, &b).unwrap();
        let error = (1.0_f64 / 3.0 + (35.0 / 12.0) / 4.0).sqrt();
        assert!((gap + 4.25).abs() < 1e-12 && (half - 2.776 * error).abs() < 1e-9, "{gap} {half}");
        assert_eq!(differ(&a, &b), Some(true));
        assert_eq!(differ(&a, &Spread::of([2.0, 3.0, 1.5]).unwrap()), Some(false));
        assert_eq!(differ(&a, &Spread::of([2.0]).unwrap()), None);
        let same = Spread::of([0.5, 0.5]).unwrap();
        assert_eq!(difference(&same, &same), Some((0.0, 0.0)));
        assert_eq!(differ(&same, &same), Some(false));
        assert_eq!(differ(&same, &Spread::of([0.6, 0.6]).unwrap()), None);
    }

    #[test]
    fn quantiles_fall() {
        let mut before = f64::INFINITY;
        for freedom in 1..200 {
            let quantile = t95(f64::from(freedom));
            assert!(quantile <= before && quantile > 1.95);
            before = quantile;
        }
        assert_eq!((t95(1.0), t95(2.9), t95(0.999_999_999_9)), (12.706, 4.303, 12.706));
    }
}
