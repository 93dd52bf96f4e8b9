//! The operations as plain loops: the truth that the CPU's fast path and the kernels are tested against.

pub mod dora_norm;
