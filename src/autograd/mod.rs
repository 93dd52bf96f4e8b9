//! Reverse-mode differentiation: a tape over device-agnostic operations.
//!
//! A [`Tape`] records operations on [`Tensor`]s; what each keeps for its backward pass is a list of arrays that
//! [`Tape::saved_by_op`] counts in bytes. The device is a [`Backend`]; nothing above this module asks which.

mod backend;
mod backward;
mod counting;
mod grads;
mod ops;
mod saved;
mod sums;
mod tape;
mod tensor;

pub use backend::*;
pub use counting::{Block as CountedBlock, Counting};
pub use grads::{Derived, Grads};
pub use ops::{Activated, AdapterInput, DoraInput, LinearInput};
pub(crate) use ops::{check_begins, check_labels};
pub use sums::{GRANULE_IMAGES, Needs, SumTo, Sums};
pub use tape::{BackwardFn, InputGrads, Tape, Tensor};
pub use tensor::{Array, Param, ParamId, Params};
