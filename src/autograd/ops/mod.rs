//! The operations on a tape: each checks its shapes, runs on the device, and says what it keeps for its gradient.

mod attention;
mod dora;
mod linear;
mod linear_backward;
mod loss;
mod norm;
mod pointwise;
mod tokens;

pub use dora::DoraInput;
pub use linear::{Activated, AdapterInput, LinearInput};
pub(crate) use loss::{check_begins, check_labels};

use super::{Array, Backend};
use crate::{Error, Result};

/// Checks one shape.
fn expect<B: Backend>(op: &str, array: &Array<B>, shape: &[usize]) -> Result<()> {
    if array.shape() == shape { Ok(()) } else { Err(Error::shape(op, shape, array.shape())) }
}

/// Rows and columns of a value of any rank: all leading dimensions are rows.
fn rows_cols<B: Backend>(op: &str, array: &Array<B>) -> Result<(usize, usize)> {
    match array.shape().split_last() {
        Some((&cols, leading)) if cols > 0 => Ok((leading.iter().product(), cols)),
        _ => Err(Error::shape(op, "at least one dimension, the last not empty", array.shape())),
    }
}
