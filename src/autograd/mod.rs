//! Reverse-mode differentiation: a tape over device-agnostic operations.
//!
//! A [`Tape`] records operations on [`Tensor`]s; what each keeps for its backward pass is a list of arrays that
//! [`Tape::saved_by_op`] counts in bytes. The device is a [`Backend`]; nothing above this module asks which.

mod backend;
mod counting;
mod ops;
mod tape;
mod tensor;

pub use backend::*;
pub use counting::{Block as CountedBlock, Counting};
pub use ops::{Activated, AdapterInput, LinearInput};
pub use tape::{BackwardFn, InputGrads, Needs, Tape, Tensor};
pub use tensor::{Array, Derived, Grads, Param, ParamId, Params};
