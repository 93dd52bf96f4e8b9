//! Numbers of a comparison as people read them: shares in per cent, bytes in the binary unit that fits, seconds.

/// A share as `63.9 %`.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{} %", fixed(100.0 * share, 1)) } else { "not a number".to_owned() }
}

/// A mean share and half its interval, where there is one: `63.9 % ± 1.2`.
pub fn percent_within(mean: f64, half_width: Option<f64>) -> String {
    match half_width {
        Some(half) if half.is_finite() => format!("{} ± {}", percent(mean), fixed(100.0 * half, 1)),
        _ => percent(mean),
    }
}

/// A difference of shares in points, with its sign: `+1.2`, `−0.4`.
pub fn points(gap: f64) -> String {
    let text = fixed(100.0 * gap, 1);
    if text.starts_with('−') || text == "0.0" { text } else { format!("+{text}") }
}

/// A difference of shares in points, without a sign: `1.2 points`.
pub fn gap(share: f64) -> String {
    format!("{} points", fixed(100.0 * share.abs(), 1))
}

/// Bytes in the binary unit that fits: `500.0 MiB`, `1.25 GiB`.
pub fn bytes(value: f64) -> String {
    let units = [("GiB", 30, 2), ("MiB", 20, 1), ("KiB", 10, 1)];
    match units.into_iter().find(|(_, shift, _)| value >= (1u64 << shift) as f64) {
        Some((unit, shift, decimals)) => format!("{} {unit}", fixed(value / (1u64 << shift) as f64, decimals)),
        None => format!("{} B", fixed(value, 0)),
    }
}

/// Seconds, from a minute on as minutes, from an hour on as hours: `5.5 s`, `3 min 20 s`, `2 h 5 min`.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() {
        return "not a number".to_owned();
    }
    // By what is shown: 59.96 s would be read as 60.0 s.
    if (10.0 * value).round() < 600.0 {
        return format!("{} s", fixed(value, if value < 1.0 { 2 } else { 1 }));
    }
    let whole = value.round() as u64;
    if whole < 3600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        let minutes = (value / 60.0).round() as u64;
        format!("{} h {} min", minutes / 60, minutes % 60)
    }
}

/// A count with commas: `22,071,572`.
pub fn count(value: f64) -> String {
    let digits = fixed(value, 0);
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.chars().count() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Joules: `1.2 kJ`.
pub fn joules(value: f64) -> String {
    let (value, unit) = match value {
        _ if value >= 1e6 => (value / 1e6, "MJ"),
        _ if value >= 1e3 => (value / 1e3, "kJ"),
        _ => (value, "J"),
    };
    format!("{} {unit}", fixed(value, 1))
}

/// A learning rate as it is written in a settings file: `0.002`, `3e-5`.
pub fn rate(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:e}") } else { value.to_string() }
}

/// So many decimals, with a true minus, and no minus before a zero.
pub fn fixed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(rest) if rest.bytes().all(|byte| matches!(byte, b'0' | b'.')) => rest.to_owned(),
        Some(rest) => format!("−{rest}"),
        None => text,
    }
}

/// `1 run`, `2 runs`.
pub fn plural(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// `a`, `a and b`, `a, b and c`.
pub fn list<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => String::new(),
        [one] => one.as_ref().to_owned(),
        [most @ .., last] => {
            let most: Vec<&str> = most.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", most.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_read_them() {
        assert_eq!([0.639, 1.0, f64::NAN].map(percent), ["63.9 %", "100.0 %", "not a number"]);
        assert_eq!(percent_within(0.639, Some(0.012)), "63.9 % ± 1.2");
        assert_eq!(percent_within(0.639, None), "63.9 %");
        assert_eq!([0.012, -0.004, -0.0001, 0.0].map(points), ["+1.2", "−0.4", "0.0", "0.0"]);
        assert_eq!([0.0, 1023.0, 524_288_000.0, 1.5e10].map(bytes), ["0 B", "1023 B", "500.0 MiB", "13.97 GiB"]);
        assert_eq!(
            [0.0, 0.123, 5.5, 59.97, 200.0, 7_500.0].map(seconds),
            ["0.00 s", "0.12 s", "5.5 s", "1 min 0 s", "3 min 20 s", "2 h 5 min"]
        );
        assert_eq!([0.0, 999.0, 1000.0, 22_071_572.4].map(count), ["0", "999", "1,000", "22,071,572"]);
        assert_eq!([300.0, 2400.0, 3e6].map(joules), ["300.0 J", "2.4 kJ", "3.0 MJ"]);
        assert_eq!([0.002, 3e-5, 1e-3].map(rate), ["0.002", "3e-5", "0.001"]);
        assert_eq!([list(&["a"]), list(&["a", "b"]), list(&["a", "b", "c"])], ["a", "a and b", "a, b and c"]);
    }
}
