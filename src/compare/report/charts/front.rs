//! Accuracy against a cost: a labelled point a variant, with the Pareto front of those that nothing beats at both.

use super::axis::{LEAST_SPAN, Scale, percent_ticks, zoomed};
use super::canvas::{Anchor, Canvas, GRID, INK, MUTED, PAPER, SMALL, TEXT};
use super::text::{fitted, text_width};
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
const LEFT: f64 = 54.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 38.0;
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

    canvas.text(0.0, 18.0, "Test accuracy", SMALL, Anchor::Start, MUTED);
    key(&mut canvas, right);
    if points.is_empty() {
        canvas.text((LEFT + right) / 2.0, (TOP + foot) / 2.0, "not yet", TEXT, Anchor::Middle, MUTED);
        return canvas;
    }
    for (value, text) in percent_ticks(&values) {
        canvas.line((LEFT, y.at(value)), (right, y.at(value)), GRID, 1.0);
        canvas.text(LEFT - 8.0, y.at(value) + 4.0, &text, SMALL, Anchor::End, MUTED);
    }
    for (value, text) in ticks(x.from, x.to) {
        canvas.line((x.at(value), TOP), (x.at(value), foot), GRID, 1.0);
        canvas.text(x.at(value), foot + 18.0, &text, SMALL, Anchor::Middle, MUTED);
    }
    canvas.text((LEFT + right) / 2.0, HEIGHT - 12.0, axis, SMALL, Anchor::Middle, MUTED);
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
        canvas.polyline(stairs, MUTED, 1.5, Some((5.0, 5.0)));
    }
    for point in points {
        let (px, py) = at(point);
        if let Some(half) = point.half_width.filter(|half| half.is_finite()) {
            // An accuracy beyond all or nothing is none.
            let (low, high) = (y.at((point.value - half).max(0.0)), y.at((point.value + half).min(1.0)));
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
    // Labels may stand in the room below the key. From the top down, so that a higher point gets the higher label.
    let plot = Area { left: LEFT, right, top: TOP - 14.0, foot };
    let mut ordered: Vec<&Point> = points.iter().collect();
    ordered.sort_by(|a, b| b.value.total_cmp(&a.value));
    for point in ordered {
        let name = fitted(&point.name, TEXT, 160.0);
        let area = place(at(point), text_width(&name, TEXT), &plot, &taken);
        if let Some(ends) = area.leader(at(point)) {
            canvas.line(ends.0, ends.1, MUTED, 1.0);
        }
        canvas.text(area.left, area.foot - 4.0, &name, TEXT, Anchor::Start, INK);
        taken.push(area);
    }
    canvas
}

/// What full and hollow points are, up to the right edge.
fn key(canvas: &mut Canvas, right: f64) {
    let (y, mut x) = (14.0, right);
    for (words, fill) in [("not on it", PAPER), ("on the Pareto front", MUTED)] {
        x -= text_width(words, SMALL);
        canvas.text(x, y + 4.0, words, SMALL, Anchor::Start, MUTED);
        canvas.circle((x - 12.0, y), 5.0, fill, MUTED, 2.0);
        x -= 34.0;
    }
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

    /// A line from a point's edge to a label that does not stand right beside it.
    fn leader(&self, point: (f64, f64)) -> Option<((f64, f64), (f64, f64))> {
        let nearest = (point.0.clamp(self.left, self.right), point.1.clamp(self.top, self.foot));
        let (dx, dy) = (nearest.0 - point.0, nearest.1 - point.1);
        let far = dx.hypot(dy);
        let start = (point.0 + dx * RADIUS / far, point.1 + dy * RADIUS / far);
        (far > RADIUS + 5.0).then_some((start, nearest))
    }

    fn size(&self) -> f64 {
        (self.right - self.left) * (self.foot - self.top)
    }
}

/// Where a label stands: the first place around its point that is free, or the one that covers least.
fn place(point: (f64, f64), width: f64, plot: &Area, taken: &[Area]) -> Area {
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
    best.map_or(Area { left: px, right: px, top: py, foot: py }, |(_, area)| area)
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
            let area = place((250.0, 150.0), 60.0, &plot, &taken);
            assert!(taken.iter().all(|other| area.overlap(other) < 1.0), "{area:?} {taken:?}");
            taken.push(area);
        }
    }
}
