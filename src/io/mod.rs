//! Files in and out.

pub mod atomic;
pub mod chart;
pub mod tensorboard;
