//! One colour a strategy in every chart, of Okabe and Ito's, which the colour-blind tell apart; ranks of one strategy differ by their dashes.

use crate::compare::results::{Results, Variant};
use crate::config::Strategy;

/// How a variant is drawn.
pub struct Style {
    /// The variant's name.
    pub name: String,
    pub colour: &'static str,
    /// Of lines: (drawn, left out) in pixels; none for a whole line.
    pub dash: Option<(f64, f64)>,
}

const DASHES: [Option<(f64, f64)>; 4] = [None, Some((8.0, 5.0)), Some((2.0, 4.0)), Some((14.0, 6.0))];

/// The strategy's colour.
pub fn colour(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Full => "#d55e00",
        Strategy::Freeze => "#009e73",
        Strategy::Lora => "#0072b2",
        Strategy::Dora => "#cc79a7",
    }
}

/// A style a variant, in their order.
pub fn of(results: &Results) -> Vec<Style> {
    let variants = &results.variants;
    let style = |(i, variant): (usize, &Variant)| {
        let before = variants[..i].iter().filter(|other| other.strategy == variant.strategy).count();
        Style { name: variant.name.clone(), colour: colour(variant.strategy), dash: DASHES[before % DASHES.len()] }
    };
    variants.iter().enumerate().map(style).collect()
}
