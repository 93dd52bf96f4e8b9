//! Numbers on the GPU: a block, its logical length, and a weight's copy in the type that products take.

use std::cell::RefCell;
use std::rc::Rc;

use crate::gpu::{Buf, DType};

/// A block of numbers. Its rows may be padded with zeros for the kernels' sake; `len` counts what is meant.
#[derive(Debug)]
pub struct CudaBuffer {
    pub(super) data: Buf,
    pub(super) len: usize,
    /// The same numbers as a product's operand.
    pub(super) operand: RefCell<Option<OperandCopy>>,
}

/// A weight in the type that products read, its rows padded with zeros.
#[derive(Debug)]
pub(super) struct OperandCopy {
    pub(super) buf: Rc<Buf>,
    pub(super) rows: usize,
}

impl CudaBuffer {
    /// All of a block.
    pub(super) fn new(data: Buf) -> Self {
        let len = data.len();
        Self::padded(data, len)
    }

    /// A block of which `len` elements are meant.
    pub(super) fn padded(data: Buf, len: usize) -> Self {
        Self { data, len, operand: RefCell::default() }
    }

    /// Type of the numbers.
    pub fn dtype(&self) -> DType {
        self.data.dtype()
    }

    /// Columns of a row in memory, of `rows` rows.
    pub(super) fn stride(&self, rows: usize) -> usize {
        self.data.len() / rows
    }

    /// One number of the places of the block and of its copy.
    pub(super) fn place(&self) -> u64 {
        let copy = self.operand.borrow().as_ref().map_or(0, |operand| operand.buf.address());
        self.data.address() ^ copy.rotate_left(32)
    }

    /// Bytes of the block and of its copy.
    pub(super) fn bytes(&self) -> usize {
        self.data.bytes() + self.operand.borrow().as_ref().map_or(0, |operand| operand.buf.bytes())
    }
}

/// A matrix as a product reads it.
pub(super) enum Operand<'a> {
    /// The value itself.
    Own(&'a Buf),
    /// Its copy in the operands' type.
    Copy(Rc<Buf>),
}

impl std::ops::Deref for Operand<'_> {
    type Target = Buf;

    fn deref(&self) -> &Buf {
        match self {
            Self::Own(buf) => buf,
            Self::Copy(buf) => buf,
        }
    }
}
