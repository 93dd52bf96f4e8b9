//! One colour a strategy in every chart, of Okabe and Ito's, which the colour-blind tell apart; ranks of one strategy differ by their dashes.

use crate::compare::results::{Results, Variant};
use crate::config::Strategy;

/// How a variant is drawn.
pub struct Style {
    /// The variant's name.
    pub name: String,
    pub colour: &'static str,
    /// Of lines, as SVG has it; empty for none.
    pub dash: &'static str,
}

const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];

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
