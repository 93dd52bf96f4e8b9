//! Validation accuracy over epochs: a small panel a data set, a line a variant, the mean over seeds in a band from the lowest to the highest.

use super::axis::{Scale, percent_ticks, ticks, zoomed};
use super::canvas::{Anchor, Canvas, GRID, INK, MUTED, SMALL, TEXT};
use super::colours;
use super::text::{fitted, text_width};
use crate::compare::numbers::percent;
use crate::compare::results::Results;

const PANEL: (f64, f64) = (430.0, 270.0);
const LEFT: f64 = 58.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 32.0;
const FOOT: f64 = 46.0;
const LEGEND_LINE: f64 = 22.0;

/// A variant's runs on a data set: (epoch, lowest, mean, highest) as far as all of them went.
struct Line {
    variant: usize,
    points: Vec<(f64, f64, f64, f64)>,
}

/// Draws the panels; one that has no run yet says so.
pub fn draw(results: &Results) -> Canvas {
    let sets = results.datasets.len().max(1);
    let columns = sets.min(2);
    let width = PANEL.0 * columns as f64;
    let legend = legend(results, width);
    let lines = legend.last().map_or(0.0, |entry| entry.1) + LEGEND_LINE;
    let mut canvas = Canvas::new(width, lines + PANEL.1 * sets.div_ceil(columns) as f64);
    let styles = colours::of(results);
    for (variant, (x, y)) in legend.iter().enumerate() {
        let style = &styles[variant];
        canvas.polyline(vec![(*x, y + 11.0), (x + 26.0, y + 11.0)], style.colour, 2.5, style.dash);
        canvas.text(x + 33.0, y + 15.5, &name(results, variant), TEXT, Anchor::Start, INK);
    }
    for (set, info) in results.datasets.iter().enumerate() {
        let corner = ((set % columns) as f64 * PANEL.0, lines + (set / columns) as f64 * PANEL.1);
        let of_set: Vec<Line> = (0..results.variants.len()).filter_map(|variant| line(results, set, variant)).collect();
        panel(&mut canvas, corner, &info.name, &of_set, &styles);
    }
    canvas
}

fn name(results: &Results, variant: usize) -> String {
    fitted(results.variants.get(variant).map_or("", |v| v.name.as_str()), TEXT, 180.0)
}

/// Where each variant's entry stands, over as many lines as they take.
fn legend(results: &Results, width: f64) -> Vec<(f64, f64)> {
    let (mut x, mut y) = (LEFT, 0.0);
    let mut places = Vec::new();
    for variant in 0..results.variants.len() {
        let wide = 33.0 + text_width(&name(results, variant), TEXT) + 18.0;
        if x + wide > width && x > LEFT {
            (x, y) = (LEFT, y + LEGEND_LINE);
        }
        places.push((x, y));
        x += wide;
    }
    places
}

fn line(results: &Results, set: usize, variant: usize) -> Option<Line> {
    let curves: Vec<_> = results.done(set, variant).map(|(_, measured)| &measured.curve).collect();
    // Beyond the shortest run a mean would be over other seeds than before it.
    let shared = curves.iter().map(|curve| curve.len()).min()?;
    let at = |i: usize| {
        let values: Vec<f64> = curves.iter().map(|curve| curve[i].val_accuracy).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (curves[0][i].epoch as f64, low, values.iter().sum::<f64>() / values.len() as f64, high)
    };
    let points: Vec<_> = (0..shared).map(at).filter(|point| point.2.is_finite()).collect();
    (!points.is_empty()).then_some(Line { variant, points })
}

fn panel(canvas: &mut Canvas, corner: (f64, f64), title: &str, lines: &[Line], styles: &[colours::Style]) {
    let (x0, y0) = corner;
    let (left, right) = (x0 + LEFT, x0 + PANEL.0 - RIGHT);
    let (top, foot) = (y0 + TOP, y0 + PANEL.1 - FOOT);
    canvas.text(left, y0 + 20.0, &fitted(title, TEXT, right - left), TEXT, Anchor::Start, INK);
    let points = || lines.iter().flat_map(|line| &line.points);
    let (from, to, values) = zoomed(points().flat_map(|point| [point.1, point.3]));
    let y = Scale { from, to, start: foot, end: top, is_log: false };
    let last = points().map(|point| point.0).fold(1.0, f64::max);
    let x = Scale { from: 1.0_f64.min(last), to: last, start: left + 6.0, end: right - 6.0, is_log: false };
    for (value, text) in percent_ticks(&values) {
        canvas.line((left, y.at(value)), (right, y.at(value)), GRID, 1.0);
        canvas.text(left - 7.0, y.at(value) + 4.0, &text, SMALL, Anchor::End, MUTED);
    }
    // Epochs are whole, and the first is 1.
    let mut epochs: Vec<f64> = ticks(0.0, last, 5).into_iter().filter(|e| *e >= 1.0 && e.fract() == 0.0).collect();
    if epochs.first().is_none_or(|&first| first > 1.0 && x.at(first) - x.at(1.0) > 24.0) {
        epochs.insert(0, 1.0);
    }
    for epoch in epochs {
        canvas.text(x.at(epoch), foot + 17.0, &format!("{epoch}"), SMALL, Anchor::Middle, MUTED);
    }
    canvas.line((left, foot), (right, foot), MUTED, 1.0);
    canvas.text((left + right) / 2.0, foot + 35.0, "Epoch", SMALL, Anchor::Middle, MUTED);
    if lines.is_empty() {
        canvas.text((left + right) / 2.0, (top + foot) / 2.0, "not yet", TEXT, Anchor::Middle, MUTED);
    }
    for line in lines {
        let over = line.points.iter().map(|p| (x.at(p.0), y.at(p.3)));
        let under = line.points.iter().rev().map(|p| (x.at(p.0), y.at(p.1)));
        let outline: Vec<(f64, f64)> = over.chain(under).collect();
        if line.points.len() > 1 && line.points.iter().any(|p| p.3 > p.1) {
            canvas.polygon(&outline, styles[line.variant].colour, 0.14);
        }
    }
    for line in lines {
        let style = &styles[line.variant];
        let means: Vec<(f64, f64)> = line.points.iter().map(|p| (x.at(p.0), y.at(p.2))).collect();
        match means.as_slice() {
            [one] => canvas.circle(*one, 3.5, style.colour, style.colour, 1.0),
            _ => {
                let end = line.points.last().map_or(0.0, |p| p.2);
                canvas.titled(format!("{title}, {}: {} after the last shared epoch", style.name, percent(end)));
                canvas.polyline(means, style.colour, 2.0, style.dash);
                canvas.end();
            }
        }
    }
}
