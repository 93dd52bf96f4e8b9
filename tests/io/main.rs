//! Reading and writing backbones and adapters, on small models made here.

mod adapter_errors;
mod adapters;
mod backbone_errors;
mod backbones;
mod common;
mod corrupt;
mod hub;
mod pth;
