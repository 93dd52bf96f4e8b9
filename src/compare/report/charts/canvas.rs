//! What charts are drawn on: kuva's scene, which its two backends turn into SVG and PNG, so that both show the same.
//!
//! The shapes of these charts (bars with intervals and seeds, labelled points with a front, bands in small panels, colours that follow the
//! page) are not among kuva's plots, so they are put together from its primitives.

use kuva::backend::svg::SvgBackend;
use kuva::render::color::Color;
use kuva::render::render::{PathData, Primitive, Scene, TextAnchor};

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
        self.put_text(x, y, text, size, anchor, colour, None);
    }

    /// A text from bottom to top, centred at the point.
    pub fn upright(&mut self, x: f64, y: f64, text: &str, size: u32, colour: &str) {
        self.put_text(x, y, text, size, Anchor::Middle, colour, Some(-90.0));
    }

    #[allow(clippy::too_many_arguments)]
    fn put_text(&mut self, x: f64, y: f64, text: &str, size: u32, anchor: Anchor, colour: &str, rotate: Option<f64>) {
        let anchor = match anchor {
            Anchor::Start => TextAnchor::Start,
            Anchor::Middle => TextAnchor::Middle,
            Anchor::End => TextAnchor::End,
        };
        // kuva reads what stands between dollars as mathematics.
        let content = text.replace('$', "\\$");
        let color = Some(Color::from(colour));
        self.elements.push(Primitive::Text { x, y, content, size, anchor, rotate, bold: false, color });
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

    /// A line through points; `dash` as SVG has it, empty for none.
    pub fn polyline(&mut self, points: Vec<(f64, f64)>, colour: &str, width: f64, dash: &str) {
        let stroke_dasharray = (!dash.is_empty()).then(|| dash.to_owned());
        self.elements.push(Primitive::PolyLine {
            points,
            stroke: Color::from(colour),
            stroke_width: width,
            stroke_dasharray,
        });
    }

    /// A filled shape without an outline.
    pub fn polygon(&mut self, points: &[(f64, f64)], colour: &str, opacity: f64) {
        let mut d = String::new();
        for (i, (x, y)) in points.iter().enumerate() {
            d += &format!("{}{x:.2} {y:.2} ", if i == 0 { 'M' } else { 'L' });
        }
        d.push('Z');
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
    /// A file of its own, on white, in a font with the widths that the layout counts on.
    pub fn file(&self, title: &str, about: &str) -> String {
        let (width, height) = (self.scene.width, self.scene.height);
        let (title, about) = (escape(title), escape(about));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"DejaVu Sans, Verdana, Arial, sans-serif\" role=\"img\"><title>{title}</title><desc>{about}</desc>\
             <rect width=\"100%\" height=\"100%\" fill=\"{PAPER}\" />{}</svg>\n",
            self.shapes()
        )
    }

    /// A part of a page, in the page's font and colours.
    pub fn inline(&self, id: &str, title: &str, about: &str) -> String {
        let (width, height) = (self.scene.width, self.scene.height);
        let (title, about) = (escape(title), escape(about));
        let mut shapes = self.shapes();
        for (colour, variable) in VARIABLES {
            shapes = shapes.replace(&format!("\"{colour}\""), &format!("\"{variable}\""));
        }
        format!(
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-about\">\
             <title id=\"{id}-title\">{title}</title><desc id=\"{id}-about\">{about}</desc>{shapes}</svg>"
        )
    }

    /// Twice as many pixels, on white.
    pub fn png(&self) -> Result<Vec<u8>> {
        // The backend has no way to give the paper but the scene's own colour.
        kuva::backend::raster::RasterBackend::new()
            .with_scale(PNG_SCALE)
            .render_scene(&self.scene)
            .map_err(|e| Error::Internal(format!("a chart is no PNG: {e}")))
    }

    /// What kuva draws, without its own first tag and last tag.
    fn shapes(&self) -> String {
        let whole = SvgBackend::new().render_scene(&self.scene);
        let inner = whole.split_once("-->").map_or(whole.as_str(), |(_, rest)| rest);
        inner.trim_end().strip_suffix("</svg>").unwrap_or(inner).replace("<g class=\"tt\">", "<g>")
    }
}

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

/// To quarters of a pixel: edges that meet in the SVG meet in the PNG.
fn rounded(value: f64) -> f64 {
    (value * 4.0).round() / 4.0
}
