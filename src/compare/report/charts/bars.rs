//! Lying bars: a name, a bar from zero with its interval and its seeds, the number at the right.

use super::axis::{Scale, from_zero};
use super::canvas::{Anchor, Canvas, GRID, INK, MUTED, PAPER, SMALL, TEXT};
use super::text::{fitted, text_width};

/// Bars under a heading.
pub struct Group {
    /// The heading, where there is one.
    pub heading: Option<String>,
    pub bars: Vec<Bar>,
}

/// One bar.
pub struct Bar {
    pub name: String,
    pub colour: &'static str,
    /// How far it reaches; none draws the label alone.
    pub value: Option<f64>,
    /// Half the interval around its end.
    pub half_width: Option<f64>,
    /// Single values, drawn as dots.
    pub dots: Vec<f64>,
    /// The number at the right, or what there is in its stead.
    pub label: String,
}

/// Width of a column of groups, and the room between two.
const WIDTH: f64 = 480.0;
const GUTTER: f64 = 40.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
const HEADING: f64 = 30.0;
const FOOT: f64 = 44.0;
const TOP: f64 = 10.0;
/// The widest that names and labels get before they are cut.
const NAMES: f64 = 130.0;
const LABELS: f64 = 190.0;

/// Draws groups of bars over one axis, which every column repeats. `ticks` turns tick values into words.
pub fn draw(groups: &[Group], columns: usize, axis: &str, ticks: impl Fn(&[f64]) -> Vec<(f64, String)>) -> Canvas {
    let all = || groups.iter().flat_map(|group| &group.bars);
    let widest = |of: fn(&Bar) -> &str| all().map(|bar| text_width(of(bar), TEXT)).fold(0.0, f64::max);
    let names = widest(|bar| &bar.name).min(NAMES) + 12.0;
    let has_value = all().any(|bar| bar.value.is_some());
    let labels = if has_value { widest(|bar| &bar.label).min(LABELS) + 10.0 } else { 26.0 };
    let ends = all().filter(|bar| bar.value.is_some()).flat_map(|bar| {
        let end = bar.value.unwrap_or(0.0) + bar.half_width.unwrap_or(0.0);
        // Intervals are of accuracies, which end at 1.
        let end = if bar.half_width.is_some() { end.min(1.0) } else { end };
        bar.dots.iter().copied().chain([end])
    });
    let (top, values) = from_zero(ends.filter(|end| end.is_finite()).fold(0.0, f64::max), 5);
    let tick_words = ticks(&values);

    let each = groups.len().div_ceil(columns.max(1)).max(1);
    let size = |group: &Group| group.heading.as_ref().map_or(0.0, |_| HEADING) + group.bars.len() as f64 * ROW;
    let tallest = groups.chunks(each).map(|chunk| chunk.iter().map(size).sum()).fold(0.0, f64::max);
    let count = groups.chunks(each).count().max(1) as f64;
    let mut canvas = Canvas::new(count * WIDTH + (count - 1.0) * GUTTER, TOP + tallest + FOOT);
    for (i, chunk) in groups.chunks(each).enumerate() {
        let left = i as f64 * (WIDTH + GUTTER);
        let scale = Scale { from: 0.0, to: top, start: left + names, end: left + WIDTH - labels, is_log: false };
        let foot = TOP + chunk.iter().map(size).sum::<f64>();
        for (value, text) in &tick_words {
            let x = scale.at(*value);
            canvas.line((x, TOP), (x, foot), GRID, 1.0);
            canvas.text(x, foot + 16.0, text, SMALL, Anchor::Middle, MUTED);
        }
        canvas.text((scale.start + scale.end) / 2.0, foot + 36.0, axis, SMALL, Anchor::Middle, MUTED);
        let mut y = TOP;
        for group in chunk {
            if let Some(heading) = &group.heading {
                // On paper, so that the grid does not cross it.
                let text = fitted(heading, TEXT, WIDTH - 20.0);
                canvas.rect(left, y + 4.0, text_width(&text, TEXT) + 4.0, HEADING - 8.0, PAPER);
                canvas.text(left, y + 20.0, &text, TEXT, Anchor::Start, INK);
                y += HEADING;
            }
            for bar in &group.bars {
                one(&mut canvas, bar, y, left + WIDTH, &scale);
                y += ROW;
            }
            canvas.line((scale.start, y - group.bars.len() as f64 * ROW), (scale.start, y), MUTED, 1.0);
        }
    }
    canvas
}

fn one(canvas: &mut Canvas, bar: &Bar, y: f64, right: f64, scale: &Scale) {
    let middle = y + ROW / 2.0;
    let name = fitted(&bar.name, TEXT, NAMES);
    canvas.text(scale.start - 8.0, middle + 4.5, &name, TEXT, Anchor::End, INK);
    let Some(value) = bar.value.filter(|value| value.is_finite()) else {
        canvas.text(scale.start + 6.0, middle + 4.5, &bar.label, SMALL, Anchor::Start, MUTED);
        return;
    };
    canvas.titled(format!("{}: {}", bar.name, bar.label));
    canvas.rect(scale.start, middle - BAR / 2.0, scale.at(value) - scale.start, BAR, bar.colour);
    canvas.end();
    if let Some(half) = bar.half_width.filter(|half| half.is_finite()) {
        let (from, to) = (scale.at((value - half).max(0.0)), scale.at((value + half).min(1.0)));
        canvas.line((from, middle), (to, middle), INK, 1.4);
        for x in [from, to] {
            canvas.line((x, middle - 4.0), (x, middle + 4.0), INK, 1.4);
        }
    }
    for (i, &dot) in bar.dots.iter().enumerate().filter(|(_, dot)| dot.is_finite()) {
        // One above another, so that equal seeds are all seen.
        let count = bar.dots.len() as f64;
        let off = (i as f64 - (count - 1.0) / 2.0) * (BAR - 6.0) / count.max(2.0);
        canvas.circle((scale.at(dot), middle + off), 2.2, PAPER, INK, 0.9);
    }
    canvas.text(right - 2.0, middle + 4.5, &fitted(&bar.label, TEXT, LABELS), TEXT, Anchor::End, INK);
}
