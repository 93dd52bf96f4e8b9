//! `curves.svg`: loss and accuracy over the steps of a run, side by side on white, so that it reads on any page.

use kuva::prelude::{Figure, Layout, LegendPosition, LinePlot, Plot, ScatterPlot, SvgBackend, Theme};

/// Points of a run, each (step, value).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// The loss of every step's batch.
    pub train_loss: Vec<(f64, f64)>,
    /// The validation loss.
    pub val_loss: Vec<(f64, f64)>,
    /// The validation accuracy, 0 to 1; without any the second panel is left out.
    pub val_accuracy: Vec<(f64, f64)>,
}

/// Points a line has at most: more would be thinner than a pixel and make the file grow with the run.
const MOST_POINTS: usize = 300;
/// Size of one panel in pixels.
const PANEL: (f64, f64) = (560.0, 380.0);
/// Blue, orange, green of Okabe and Ito, which the colour-blind tell apart.
const BLUE: &str = "#0072b2";
const ORANGE: &str = "#d55e00";
const GREEN: &str = "#009e73";

/// Draws the curves. The same points give the same text.
pub fn svg(curves: &Curves) -> String {
    let mut panels = vec![vec![
        line(&curves.train_loss, "training", BLUE, false),
        line(&curves.val_loss, "validation", ORANGE, true),
    ]];
    // The corners that falling losses and rising accuracies leave free.
    let mut names = vec![("Loss", LegendPosition::InsideTopRight)];
    if !curves.val_accuracy.is_empty() {
        panels.push(vec![line(&curves.val_accuracy, "validation", GREEN, true)]);
        names.push(("Accuracy", LegendPosition::InsideBottomRight));
    }
    let mut layouts = Vec::new();
    let mut drawn = Vec::new();
    for (lines, (name, legend)) in panels.into_iter().zip(names) {
        let lines: Vec<Plot> = lines.into_iter().flatten().collect();
        let layout =
            if lines.is_empty() { Layout::new((0.0, 1.0), (0.0, 1.0)) } else { Layout::auto_from_plots(&lines) };
        layouts.push(
            layout
                .with_theme(Theme::light())
                .with_title(name)
                .with_x_label("Step")
                .with_y_label(name)
                .with_legend_position(legend),
        );
        drawn.push(lines);
    }
    let scene =
        Figure::new(1, drawn.len()).with_plots(drawn).with_layouts(layouts).with_cell_size(PANEL.0, PANEL.1).render();
    renumbered(&SvgBackend::new().render_scene(&scene))
}

/// kuva numbers its clip paths over the whole process; numbered by first appearance, the same points give the same text.
fn renumbered(svg: &str) -> String {
    const ID: &str = "kuva-clip-";
    let mut parts = svg.split(ID);
    let mut text = parts.next().unwrap_or("").to_owned();
    let mut seen: Vec<&str> = Vec::new();
    for part in parts {
        let (number, rest) = part.split_at(part.bytes().take_while(u8::is_ascii_digit).count());
        let place = seen.iter().position(|n| *n == number).unwrap_or_else(|| {
            seen.push(number);
            seen.len() - 1
        });
        text.push_str(&format!("clip-{place}{rest}"));
    }
    text
}

/// One line, or none without a point that can be drawn.
fn line(points: &[(f64, f64)], name: &str, color: &str, is_dashed: bool) -> Option<Plot> {
    let points = thinned(points);
    if points.len() < 2 {
        // A line through one point has no length: after the first epoch there is a mark instead.
        let point = *points.first()?;
        return Some(ScatterPlot::new().with_data([point]).with_color(color).with_legend(name).into());
    }
    let line = LinePlot::new().with_data(points).with_color(color).with_stroke_width(2.0).with_legend(name);
    Some(if is_dashed { line.with_dashed() } else { line }.into())
}

/// At most [`MOST_POINTS`] means over equal runs of points, those that are no numbers left out.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|p| p.0.is_finite() && p.1.is_finite()).collect();
    let each = finite.len().div_ceil(MOST_POINTS).max(1);
    finite
        .chunks(each)
        .map(|run| {
            let sum = run.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
            (sum.0 / run.len() as f64, sum.1 / run.len() as f64)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(steps: usize, epochs: usize) -> Curves {
        let step = |i: usize| (i + 1) as f64;
        let each = (steps / epochs.max(1)) as f64;
        Curves {
            train_loss: (0..steps).map(|i| (step(i), 3.0 / step(i).sqrt() + 0.1 * step(i).sin())).collect(),
            val_loss: (0..epochs).map(|i| (each * step(i), 2.0 / step(i))).collect(),
            val_accuracy: (0..epochs).map(|i| (each * step(i), 1.0 - 0.5 / step(i))).collect(),
        }
    }

    /// Every tag that opens closes, in order: enough of XML to notice a label that was not escaped.
    fn is_balanced(svg: &str) -> bool {
        let mut open = Vec::new();
        for tag in svg.split('<').skip(1) {
            let Some((tag, _)) = tag.split_once('>') else { return false };
            let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or("");
            if tag.starts_with('/') {
                if open.pop() != Some(name) {
                    return false;
                }
            } else if !tag.ends_with('/') && !tag.starts_with(['!', '?']) {
                open.push(name);
            }
        }
        open.is_empty()
    }

    #[test]
    fn a_chart_has_its_words_and_is_the_same_twice() {
        let curves = run(1000, 20);
        let text = svg(&curves);
        assert!(text.contains("<svg") && is_balanced(&text));
        for word in ["Loss", "Accuracy", "Step", "training", "validation", BLUE, ORANGE, GREEN] {
            assert!(text.contains(word), "{word} is missing");
        }
        assert_eq!(text, svg(&curves));
    }

    #[test]
    fn odd_runs_are_drawn_too() {
        for curves in [Curves::default(), run(1, 1), run(5, 0), run(3, 3)] {
            let text = svg(&curves);
            assert!(text.contains("<svg") && is_balanced(&text) && !text.contains("NaN"), "{curves:?}");
            assert_eq!(text.contains("Accuracy"), !curves.val_accuracy.is_empty());
        }
        assert!(svg(&run(1, 1)).contains(&format!("fill=\"{GREEN}\"")), "a lone point is not marked");
        let flat = Curves { train_loss: vec![(1.0, 0.5), (2.0, f64::NAN), (3.0, 0.5)], ..Curves::default() };
        assert!(!svg(&flat).contains("NaN"));
    }

    #[test]
    fn clip_paths_are_numbered_afresh() {
        assert_eq!(renumbered("a kuva-clip-17b kuva-clip-3 kuva-clip-17"), "a clip-0b clip-1 clip-0");
        assert_eq!(renumbered("none"), "none");
    }

    #[test]
    fn long_lines_are_thinned_to_means() {
        let points: Vec<(f64, f64)> = (0..601).map(|i| (f64::from(i), f64::from(i % 3))).collect();
        let thin = thinned(&points);
        assert_eq!(thin.len(), 201);
        assert_eq!((thin[0], thin[200]), ((1.0, 1.0), (600.0, 0.0)));
        assert_eq!(thinned(&points[..300]), points[..300]);
    }
}
