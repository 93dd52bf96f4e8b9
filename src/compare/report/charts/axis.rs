//! Scales and their ticks.

use crate::compare::numbers::{bytes, fixed};

/// A linear scale of shares or plain numbers onto pixels.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Values at the ends.
    pub from: f64,
    pub to: f64,
    /// Pixels at the ends.
    pub start: f64,
    pub end: f64,
    /// Whether equal ratios are equally far apart.
    pub is_log: bool,
}

impl Scale {
    pub fn at(&self, value: f64) -> f64 {
        let of = |value: f64| if self.is_log { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let (from, to) = (of(self.from), of(self.to));
        let share = if to > from { (of(value) - from) / (to - from) } else { 0.5 };
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }
}

/// Round values from `from` to `to`, about `count` of them.
pub fn ticks(from: f64, to: f64, count: usize) -> Vec<f64> {
    let span = to - from;
    if !(span > 0.0 && span.is_finite()) {
        return vec![from];
    }
    let raw = span / count.max(1) as f64;
    let decade = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * decade).into_iter().find(|step| *step >= raw * 0.8).unwrap_or(raw);
    let first = (from / step - 1e-9).ceil() as i64;
    let last = (to / step + 1e-9).floor() as i64;
    (first..=last).map(|i| i as f64 * step).collect()
}

/// Shares as `40 %`, with a decimal where the step is below a point.
pub fn percent_ticks(ticks: &[f64]) -> Vec<(f64, String)> {
    let step = ticks.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    let decimals = usize::from(step < 0.0099);
    ticks.iter().map(|&tick| (tick, format!("{} %", fixed(100.0 * tick, decimals)))).collect()
}

/// From zero to a round value at or above the largest.
pub fn from_zero(largest: f64, count: usize) -> (f64, Vec<f64>) {
    let largest = if largest > 0.0 && largest.is_finite() { largest } else { 1.0 };
    let rough = ticks(0.0, largest, count);
    let step = rough.get(1).map_or(largest, |second| second - rough[0]);
    let top = (largest / step - 1e-9).ceil() * step;
    (top, ticks(0.0, top, count))
}

/// The least span of an accuracy axis that does not begin at zero: less would make noise look like news.
pub const LEAST_SPAN: f64 = 0.10;

/// A range of shares around what is shown, at least [`LEAST_SPAN`] wide and inside 0 to 1, with its ticks.
pub fn zoomed(values: impl IntoIterator<Item = f64>) -> (f64, f64, Vec<f64>) {
    let finite: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
    let low = finite.iter().copied().fold(f64::INFINITY, f64::min);
    let high = finite.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low > high {
        return (0.0, 1.0, ticks(0.0, 1.0, 5));
    }
    let pad = ((high - low) * 0.08).max((LEAST_SPAN - (high - low)) / 2.0);
    let (mut from, mut to) = (low - pad, high + pad);
    // Where an end is cut off the other gives way, so that the span stays.
    let span = (to - from).min(1.0);
    if from < 0.0 {
        (from, to) = (0.0, span);
    }
    if to > 1.0 {
        (from, to) = (1.0 - span, 1.0);
    }
    let ticks = ticks(from, to, 6);
    (from, to, ticks)
}

/// Ticks of a logarithmic axis of bytes: powers of two in the unit that fits.
pub fn byte_ticks(from: f64, to: f64) -> Vec<(f64, String)> {
    let (first, last) = (from.max(1.0).log2().ceil() as i32, to.max(1.0).log2().floor() as i32);
    let each = ((last - first) / 6).max(0) + 1;
    let name = |value: f64| bytes(value).replace(".00 ", " ").replace(".0 ", " ");
    (first..=last).filter(|i| (i - first) % each == 0).map(|i| 2f64.powi(i)).map(|value| (value, name(value))).collect()
}

/// Ticks of a logarithmic axis of counts: 1, 2 and 5 in every decade, or the decades alone where those are many.
pub fn count_ticks(from: f64, to: f64) -> Vec<(f64, String)> {
    let decades = to.max(1.0).log10() - from.max(1.0).log10();
    let steps: &[f64] = if decades > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let range = from.max(1.0).log10().floor() as i32..=to.max(1.0).log10().ceil() as i32;
    let values = range.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
    values.filter(|value| (from..=to).contains(value)).map(|value| (value, short_count(value))).collect()
}

/// `20 k`, `1.5 M`.
pub fn short_count(value: f64) -> String {
    let (scaled, unit) = match value {
        _ if value >= 1e9 => (value / 1e9, " G"),
        _ if value >= 1e6 => (value / 1e6, " M"),
        _ if value >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = fixed(scaled, if scaled < 9.95 { 1 } else { 0 });
    format!("{}{unit}", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_ticks() {
        let near = |a: &[f64], b: &[f64]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near(&ticks(0.0, 1.0, 5), &[0.0, 0.2, 0.4, 0.6, 0.8, 1.0]));
        assert!(near(&ticks(0.53, 0.72, 5), &[0.55, 0.6, 0.65, 0.7]));
        assert!(near(&ticks(1.0, 1.0, 5), &[1.0]));
        let (top, ticks) = from_zero(0.71, 5);
        assert!((top - 0.8).abs() < 1e-9 && near(&ticks, &[0.0, 0.2, 0.4, 0.6, 0.8]));
        assert_eq!(from_zero(f64::NAN, 4).0, 1.0);
        assert_eq!(percent_ticks(&[0.5, 0.505]).iter().map(|t| t.1.as_str()).collect::<Vec<_>>(), ["50.0 %", "50.5 %"]);
    }

    #[test]
    fn a_zoomed_range_is_wide_enough_and_inside() {
        for values in [vec![0.5, 0.501], vec![0.99], vec![0.01, 0.02], vec![0.1, 0.9], vec![1.0, 0.0], vec![]] {
            let (from, to, _) = zoomed(values.clone());
            assert!(from >= 0.0 && to <= 1.0 && to - from >= LEAST_SPAN - 1e-9, "{values:?}: {from} {to}");
            assert!(values.iter().all(|value| (from..=to).contains(value)), "{values:?}: {from} {to}");
        }
    }

    #[test]
    fn logarithmic_ticks() {
        let words = |ticks: Vec<(f64, String)>| ticks.into_iter().map(|tick| tick.1).collect::<Vec<_>>().join(" ");
        assert_eq!(words(byte_ticks(1.2e8, 1.3e9)), "128 MiB 256 MiB 512 MiB 1 GiB");
        assert_eq!(words(count_ticks(1.5e4, 2.2e7)), "100 k 1 M 10 M");
        assert_eq!(words(count_ticks(1.5e4, 2.2e5)), "20 k 50 k 100 k 200 k");
    }
}
