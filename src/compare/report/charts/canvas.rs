//! What charts are drawn on: kuva's scene, which its two backends turn into SVG and PNG, so that both show the same.
//!
//! The shapes of these charts (bars with intervals and seeds, labelled points with a front, bands in small panels, colours that follow the
//! page) are not among kuva's plots, so they are put together from its primitives.

use kuva::backend::svg::SvgBackend;
use kuva::render::color::Color;
use kuva::render::render::{PathData, Primitive, Scene, TextAnchor};

use super::text::{escape, fitted};
use crate::{Error, Result};

/// Text and axes on white, and what stands back.
pub const INK: &str = "#1f2328";
pub const MUTED: &str = "#59636e";
/// Grid lines.
pub const GRID: &str = "#dfe3e8";
/// The paper.
pub const PAPER: &str = "#ffffff";
/// What takes their places on a page with light and dark colours.
const VARIABLES: [(&str, &str); 4] =
    [(INK, "var(--ink)"), (MUTED, "var(--muted)"), (GRID, "var(--grid)"), (PAPER, "var(--paper)")];

/// Size of text in pixels.
pub const TEXT: u32 = 13;
/// Size of smaller text.
pub const SMALL: u32 = 12;
/// Around a chart in a file of its own, and the height of its title.
const MARGIN: f64 = 16.0;
const TITLE: f64 = 26.0;
/// Pixels of the PNG for one of the SVG.
const PNG_SCALE: f32 = 2.0;

/// Where a text stands from its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

/// A drawing of a given size.
pub struct Canvas {
    pub width: f64,
    pub height: f64,
    elements: Vec<Primitive>,
}

impl Canvas {
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, elements: Vec::new() }
    }

    pub fn text(&mut self, x: f64, y: f64, text: &str, size: u32, anchor: Anchor, colour: &str) {
        let anchor = match anchor {
            Anchor::Start => TextAnchor::Start,
            Anchor::Middle => TextAnchor::Middle,
            Anchor::End => TextAnchor::End,
        };
        // kuva reads what stands between dollars as mathematics.
        let content = text.replace('$', "\\$");
        let color = Some(Color::from(colour));
        self.elements.push(Primitive::Text { x, y, content, size, anchor, rotate: None, bold: false, color });
    }

    pub fn rect(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        let (x, y, fill) = (rounded(x), rounded(y), Color::from(fill));
        self.elements.push(Primitive::Rect {
            x,
            y,
            width,
            height,
            fill,
            stroke: None,
            stroke_width: None,
            opacity: None,
        });
    }

    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let stroke = Color::from(colour);
        self.elements.push(Primitive::Line { x1, y1, x2, y2, stroke, stroke_width: width, stroke_dasharray: None });
    }

    /// A line through points. `dash` is (drawn, left out) in pixels; kuva's PNG would draw dashes of other lengths than the SVG, so they are cut
    /// here.
    pub fn polyline(&mut self, points: Vec<(f64, f64)>, colour: &str, width: f64, dash: Option<(f64, f64)>) {
        let stroke = Color::from(colour);
        let Some(dash) = dash else {
            self.elements.push(Primitive::PolyLine { points, stroke, stroke_width: width, stroke_dasharray: None });
            return;
        };
        let d: String = dashes(&points, dash).iter().map(|part| path(part)).collect();
        self.elements.push(Primitive::Path(Box::new(PathData {
            d,
            fill: None,
            stroke,
            stroke_width: width,
            opacity: None,
            stroke_dasharray: None,
        })));
    }

    /// A filled shape without an outline.
    pub fn polygon(&mut self, points: &[(f64, f64)], colour: &str, opacity: f64) {
        let d = path(points) + "Z";
        self.elements.push(Primitive::Path(Box::new(PathData {
            d,
            fill: Some(Color::from(colour)),
            stroke: Color::None,
            stroke_width: 0.0,
            opacity: Some(opacity),
            stroke_dasharray: None,
        })));
    }

    /// A disc with an outline; the fill may be [`PAPER`] for a hollow one.
    pub fn circle(&mut self, at: (f64, f64), radius: f64, fill: &str, outline: &str, width: f64) {
        self.elements.push(Primitive::Circle {
            cx: at.0,
            cy: at.1,
            r: radius,
            fill: Color::from(fill),
            fill_opacity: None,
            stroke: Some(Color::from(outline)),
            stroke_width: Some(width),
        });
    }

    /// What is drawn until [`Self::end`] says `title` to a pointer that rests on it.
    pub fn titled(&mut self, title: String) {
        self.elements.push(Primitive::GroupStart { transform: None, title: Some(title), extra_attrs: None });
    }

    pub fn end(&mut self) {
        self.elements.push(Primitive::GroupEnd);
    }

    fn scene(self) -> Scene {
        let mut scene = Scene::new(self.width, self.height);
        scene.background_color = None;
        scene.text_color = Some(INK.to_owned());
        scene.elements = self.elements;
        scene
    }
}

/// Points as a path of SVG.
fn path(points: &[(f64, f64)]) -> String {
    let step = |(i, (x, y)): (usize, &(f64, f64))| format!("{}{x:.2} {y:.2} ", if i == 0 { 'M' } else { 'L' });
    points.iter().enumerate().map(step).collect()
}

/// The drawn parts of a dashed line.
fn dashes(points: &[(f64, f64)], dash: (f64, f64)) -> Vec<Vec<(f64, f64)>> {
    let (mut parts, mut part) = (Vec::new(), Vec::new());
    let (mut is_drawn, mut left) = (true, dash.0);
    for ends in points.windows(2) {
        let ((mut x, mut y), (x2, y2)) = (ends[0], ends[1]);
        if is_drawn && part.is_empty() {
            part.push((x, y));
        }
        loop {
            let length = (x2 - x).hypot(y2 - y);
            if length < left || length == 0.0 {
                left -= length;
                if is_drawn && part.last() != Some(&(x2, y2)) {
                    part.push((x2, y2));
                }
                break;
            }
            (x, y) = (x + (x2 - x) * left / length, y + (y2 - y) * left / length);
            if is_drawn {
                part.push((x, y));
                parts.push(std::mem::take(&mut part));
                left = dash.1.max(0.5);
            } else {
                part.push((x, y));
                left = dash.0.max(0.5);
            }
            is_drawn = !is_drawn;
        }
    }
    if is_drawn && part.len() > 1 {
        parts.push(part);
    }
    parts
}

/// A finished drawing with its words.
pub struct Drawing {
    scene: Scene,
}

impl From<Canvas> for Drawing {
    fn from(canvas: Canvas) -> Self {
        Self { scene: canvas.scene() }
    }
}

impl Drawing {
    /// A file of its own, with its title and a margin on white, in a font with the widths that the layout counts on.
    pub fn file(&self, title: &str, about: &str) -> String {
        let framed = self.framed(title);
        let (width, height) = (framed.width, framed.height);
        let (title, about) = (escape(title), escape(about));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"DejaVu Sans, Verdana, Arial, sans-serif\" role=\"img\"><title>{title}</title><desc>{about}</desc>\
             <rect width=\"100%\" height=\"100%\" fill=\"{PAPER}\" />{}</svg>\n",
            shapes(&framed)
        )
    }

    /// A part of a page, in the page's font and colours.
    pub fn inline(&self, id: &str, title: &str, about: &str) -> String {
        let (width, height) = (self.scene.width, self.scene.height);
        let (title, about) = (escape(title), escape(about));
        let mut shapes = shapes(&self.scene);
        for (colour, variable) in VARIABLES {
            shapes = shapes.replace(&format!("\"{colour}\""), &format!("\"{variable}\""));
        }
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-about\">\
             <title id=\"{id}-title\">{title}</title><desc id=\"{id}-about\">{about}</desc>{shapes}</svg>"
        )
    }

    /// The same as [`Self::file`], with twice as many pixels.
    pub fn png(&self, title: &str) -> Result<Vec<u8>> {
        kuva::backend::raster::RasterBackend::new()
            .with_scale(PNG_SCALE)
            .render_scene(&self.framed(title))
            .map_err(|e| Error::Internal(format!("a chart is no PNG: {e}")))
    }

    /// With its title above it and a margin around it.
    fn framed(&self, title: &str) -> Scene {
        let (width, top) = (self.scene.width + 2.0 * MARGIN, MARGIN + TITLE);
        let mut canvas = Canvas::new(width, (top + self.scene.height + MARGIN).ceil());
        let size = TEXT + 2;
        canvas.text(MARGIN, MARGIN + 12.0, &fitted(title, size, self.scene.width), size, Anchor::Start, INK);
        let transform = Some(format!("translate({MARGIN},{top})"));
        canvas.elements.push(Primitive::GroupStart { transform, title: None, extra_attrs: None });
        canvas.elements.extend(self.scene.elements.iter().cloned());
        canvas.end();
        canvas.scene()
    }
}

/// What kuva draws, without its own first tag and last tag.
fn shapes(scene: &Scene) -> String {
    let whole = SvgBackend::new().render_scene(scene);
    let inner = whole.split_once("-->").map_or(whole.as_str(), |(_, rest)| rest);
    inner.trim_end().strip_suffix("</svg>").unwrap_or(inner).replace("<g class=\"tt\">", "<g>")
}

/// To quarters of a pixel: edges that meet in the SVG meet in the PNG.
fn rounded(value: f64) -> f64 {
    (value * 4.0).round() / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dashes_follow_the_line() {
        let parts = dashes(&[(0.0, 0.0), (10.0, 0.0), (10.0, 5.0)], (4.0, 2.0));
        assert_eq!(
            parts,
            [vec![(0.0, 0.0), (4.0, 0.0)], vec![(6.0, 0.0), (10.0, 0.0)], vec![(10.0, 2.0), (10.0, 5.0)],]
        );
        assert_eq!(dashes(&[(0.0, 0.0)], (4.0, 2.0)), Vec::<Vec<(f64, f64)>>::new());
        // A dash goes around a corner.
        assert_eq!(dashes(&[(0.0, 0.0), (3.0, 0.0), (3.0, 9.0)], (5.0, 20.0)), [[(0.0, 0.0), (3.0, 0.0), (3.0, 2.0)]]);
    }
}
