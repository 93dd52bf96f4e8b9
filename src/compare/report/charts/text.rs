//! Text in charts and pages: escaped, measured, cut.

/// Text as XML has it.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Other control characters have no place in HTML or XML.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// Width of a text in pixels, about: that of DejaVu Sans or a little more, which other fonts stay under.
pub fn text_width(text: &str, size: u32) -> f64 {
    let em: f64 = text
        .chars()
        .map(|c| match c {
            'i' | 'j' | 'l' | '\'' | '|' | '.' | ',' | ':' | ';' | ' ' => 0.34,
            'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '-' | '!' | '/' => 0.42,
            'm' | 'w' | 'M' | 'W' | '%' | '@' => 0.98,
            c if c.is_ascii_uppercase() => 0.72,
            '<' | '>' | '&' | '+' | '=' | '~' | '±' | '−' => 0.84,
            c if c.is_ascii() => 0.64,
            // Letters of other scripts may be as wide as they are high.
            c if (c as u32) < 0x0530 => 0.7,
            _ => 1.0,
        })
        .sum();
    em * f64::from(size)
}

/// A text cut to a width, with an ellipsis where it was cut.
pub fn fitted(text: &str, size: u32, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        cut.push(c);
        if text_width(&cut, size) + f64::from(size) > width {
            break;
        }
    }
    cut.trim_end().to_owned() + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_to_fit() {
        assert_eq!(fitted("short", 13, 100.0), "short");
        let cut = fitted("a name that is much too long for its place", 13, 100.0);
        assert!(cut.ends_with('…') && text_width(&cut, 13) <= 110.0, "{cut}");
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        assert_eq!(escape("a<b>&\"'\u{0}"), "a&lt;b&gt;&amp;&quot;&#39;\u{fffd}");
    }
}
