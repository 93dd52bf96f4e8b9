//! Reading and writing weights: backbones (transformers, Meta, timm, Meta's .pth), safetensors, the hub's cache.
//!
//! [`load`] turns whatever `--backbone` names into one [`Backbone`] under canonical names; [`save_transformers`] writes
//! one back as transformers would.

pub mod atomic;
pub mod chart;
mod hf_config;
pub mod hub;
pub mod lettering;
mod load;
mod naming;
mod naming_packed;
mod pickle;
mod pickle_value;
mod pth;
mod random;
mod spec;
pub mod state;
pub mod tensor_file;
pub mod tensorboard;
mod transformers;

pub use load::{RANDOM_SEED, load};
pub use random::random;
pub use spec::BackboneSpec;
pub use state::{Backbone, Classifier, HostTensor, StateDict};
pub use transformers::{save_task, save_transformers};

/// A name that came out of a file, quoted for an error line: control characters escaped, so that it stays one line, and
/// cut where it is absurdly long.
pub(crate) fn quoted(name: &str) -> String {
    let mut text: String = name.chars().take(120).flat_map(char::escape_debug).collect();
    if name.chars().nth(120).is_some() {
        text.push_str("...");
    }
    format!("'{text}'")
}

/// A foreign error's text as one line.
pub(crate) fn one_line(error: impl std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
