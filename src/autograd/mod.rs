//! Reverse-mode differentiation: a tape over device-agnostic operations.

mod backend;

pub use backend::*;
