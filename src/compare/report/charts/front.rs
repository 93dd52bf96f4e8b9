//! Accuracy against a cost: a labelled point a variant, with the Pareto front of those that nothing beats at both.

use super::axis::{LEAST_SPAN, Scale, percent_ticks, zoomed};
use super::canvas::{Anchor, Canvas, GRID, INK, MUTED, PAPER, SMALL, TEXT, fitted, text_width};
use crate::compare::numbers::percent_within;

/// A point.
pub struct Point {
    pub name: String,
    pub colour: &'static str,
    pub cost: f64,
    pub value: f64,
    /// Half the interval of the value.
    pub half_width: Option<f64>,
}

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 370.0;
const LEFT: f64 = 66.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 36.0;
const FOOT: f64 = 52.0;
const RADIUS: f64 = 6.5;

/// Which points no other beats at both: none costs no more and is worth more, or costs less and is worth as much.
pub fn front(points: &[Point]) -> Vec<bool> {
    let beats = |a: &Point, b: &Point| a.cost <= b.cost && a.value >= b.value && (a.cost < b.cost || a.value > b.value);
    points.iter().map(|point| !points.iter().any(|other| beats(other, point))).collect()
}

/// Draws the points over a logarithmic axis of costs.
pub fn draw(points: &[Point], axis: &str, ticks: impl Fn(f64, f64) -> Vec<(f64, String)>) -> Canvas {
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    let (right, foot) = (WIDTH - RIGHT, HEIGHT - FOOT);
    let ends = points.iter().flat_map(|point| {
        let half = point.half_width.filter(|half| half.is_finite()).unwrap_or(0.0);
        [point.value - half, point.value + half].map(|end| end.clamp(0.0, 1.0))
    });
    let (from, to, values) = zoomed(ends);
    let y = Scale { from, to, start: foot, end: TOP, is_log: false };
    let costs = || points.iter().map(|point| point.cost.max(1.0));
    let (low, high) = (costs().fold(f64::INFINITY, f64::min), costs().fold(1.0, f64::max));
    let (low, high) = if low > high { (1.0, 10.0) } else { (low, high) };
    // Room for labels on both sides, and a range that holds some ticks.
    let pad = ((high / low).ln() * 0.15).max(0.8);
    let x = Scale { from: low * (-pad).exp(), to: high * pad.exp(), start: LEFT, end: right, is_log: true };

    for (value, text) in percent_ticks(&values) {
        canvas.line((LEFT, y.at(value)), (right, y.at(value)), GRID, 1.0);
        canvas.text(LEFT - 8.0, y.at(value) + 4.0, &text, SMALL, Anchor::End, MUTED);
    }
    for (value, text) in ticks(x.from, x.to) {
        canvas.line((x.at(value), TOP), (x.at(value), foot), GRID, 1.0);
        canvas.text(x.at(value), foot + 18.0, &text, SMALL, Anchor::Middle, MUTED);
    }
    canvas.text((LEFT + right) / 2.0, HEIGHT - 12.0, axis, SMALL, Anchor::Middle, MUTED);
    canvas.upright(14.0, (TOP + foot) / 2.0, "Mean test accuracy", SMALL, MUTED);
    key(&mut canvas);
    if points.is_empty() {
        canvas.text((LEFT + right) / 2.0, (TOP + foot) / 2.0, "not yet", TEXT, Anchor::Middle, MUTED);
        return canvas;
    }

    let is_front = front(points);
    let at = |point: &Point| (x.at(point.cost.max(1.0)), y.at(point.value));
    let mut members: Vec<(f64, f64)> =
        points.iter().zip(&is_front).filter(|(_, is)| **is).map(|(p, _)| at(p)).collect();
    members.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Stairs: between two members the cheaper one is what there is.
    let mut stairs: Vec<(f64, f64)> = Vec::new();
    for &(px, py) in &members {
        if let Some(&(_, last)) = stairs.last() {
            stairs.push((px, last));
        }
        stairs.push((px, py));
    }
    let mut taken: Vec<Area> = stairs
        .windows(2)
        .map(|ends| Area {
            left: ends[0].0.min(ends[1].0) - 1.0,
            right: ends[0].0.max(ends[1].0) + 1.0,
            top: ends[0].1.min(ends[1].1) - 1.0,
            foot: ends[0].1.max(ends[1].1) + 1.0,
        })
        .collect();
    if stairs.len() > 1 {
        canvas.polyline(stairs, MUTED, 1.5, "5 4");
    }
    for point in points {
        let (px, py) = at(point);
        if let Some(half) = point.half_width.filter(|half| half.is_finite()) {
            let (low, high) = (y.at(point.value - half), y.at(point.value + half));
            canvas.line((px, low), (px, high), point.colour, 1.5);
            for end in [low, high] {
                canvas.line((px - 4.0, end), (px + 4.0, end), point.colour, 1.5);
            }
            taken.push(Area { left: px - 4.0, right: px + 4.0, top: high, foot: low });
        }
        taken.push(Area { left: px - RADIUS, right: px + RADIUS, top: py - RADIUS, foot: py + RADIUS });
    }
    for (point, is_front) in points.iter().zip(&is_front) {
        let share = percent_within(point.value, point.half_width);
        canvas.titled(format!("{}: {share}", point.name));
        let fill = if *is_front { point.colour } else { PAPER };
        canvas.circle(at(point), RADIUS, fill, point.colour, 2.5);
        canvas.end();
    }
    let plot = Area { left: LEFT, right, top: TOP, foot };
    for point in points {
        let name = fitted(&point.name, TEXT, 160.0);
        let (x, y, area) = place(at(point), text_width(&name, TEXT), &plot, &taken);
        canvas.text(x, y, &name, TEXT, Anchor::Start, INK);
        taken.push(area);
    }
    canvas
}

/// What full and hollow points are.
fn key(canvas: &mut Canvas) {
    let y = 14.0;
    canvas.circle((LEFT + 6.0, y), 5.0, MUTED, MUTED, 2.0);
    canvas.text(LEFT + 18.0, y + 4.0, "on the Pareto front", SMALL, Anchor::Start, MUTED);
    let next = LEFT + 18.0 + text_width("on the Pareto front", SMALL) + 22.0;
    canvas.circle((next, y), 5.0, PAPER, MUTED, 2.0);
    canvas.text(next + 12.0, y + 4.0, "not on it", SMALL, Anchor::Start, MUTED);
}

/// What the accuracy axis does, for the words beside the chart.
pub fn axis_note() -> String {
    format!(
        "The accuracy axis does not begin at zero; it spans at least {} points, so that small differences do not look large.",
        (100.0 * LEAST_SPAN).round()
    )
}

/// A rectangle that something stands in.
#[derive(Clone, Copy, Debug)]
struct Area {
    left: f64,
    right: f64,
    top: f64,
    foot: f64,
}

impl Area {
    /// How much of it another covers, in square pixels.
    fn overlap(&self, other: &Self) -> f64 {
        let across = self.right.min(other.right) - self.left.max(other.left);
        let down = self.foot.min(other.foot) - self.top.max(other.top);
        across.max(0.0) * down.max(0.0)
    }

    fn size(&self) -> f64 {
        (self.right - self.left) * (self.foot - self.top)
    }
}

/// Where a label stands: the first place around its point that is free, or the one that covers least. Returns the start of its base line too.
fn place(point: (f64, f64), width: f64, plot: &Area, taken: &[Area]) -> (f64, f64, Area) {
    let (px, py) = point;
    let height = f64::from(TEXT) + 2.0;
    let gap = RADIUS + 4.0;
    let mut best: Option<(f64, Area)> = None;
    for ring in 0..5 {
        let far = f64::from(ring) * (height + 1.0);
        let (left, middle, right) = (px - gap - width, px - width / 2.0, px + gap);
        let places = [
            (right, py - height / 2.0 - far),
            (left, py - height / 2.0 - far),
            (middle, py - gap - height - far),
            (right, py - height / 2.0 + far),
            (left, py - height / 2.0 + far),
            (middle, py + gap + far),
        ];
        for (x, top) in places {
            let area = Area { left: x, right: x + width, top, foot: top + height };
            let outside = area.size() - area.overlap(plot);
            let covered: f64 = taken.iter().map(|other| area.overlap(other)).sum::<f64>() + outside;
            if best.is_none_or(|(least, _)| covered < least - 0.5) {
                best = Some((covered, area));
            }
        }
    }
    let area = best.map_or(Area { left: px, right: px, top: py, foot: py }, |(_, area)| area);
    (area.left, area.foot - 4.0, area)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(cost: f64, value: f64) -> Point {
        Point { name: "a".into(), colour: "#000000", cost, value, half_width: None }
    }

    #[test]
    fn the_front_is_what_nothing_beats() {
        let points = [point(1.0, 0.5), point(2.0, 0.7), point(3.0, 0.6), point(3.0, 0.8), point(4.0, 0.8)];
        assert_eq!(front(&points), [true, true, false, true, false]);
        // Equals do not beat each other.
        assert_eq!(front(&[point(1.0, 0.5), point(1.0, 0.5)]), [true, true]);
        assert_eq!(front(&[]), [] as [bool; 0]);
    }

    #[test]
    fn labels_keep_clear_of_each_other() {
        let plot = Area { left: 0.0, right: 500.0, top: 0.0, foot: 300.0 };
        let mut taken = Vec::new();
        for _ in 0..6 {
            let (_, _, area) = place((250.0, 150.0), 60.0, &plot, &taken);
            assert!(taken.iter().all(|other| area.overlap(other) < 1.0), "{area:?} {taken:?}");
            taken.push(area);
        }
    }
}
