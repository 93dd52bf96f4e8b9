//! What a classifier looked at: from attention to a relevance for each patch, and from that to a picture.
//!
//! Two methods. **Attention rollout** (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", equation 1) follows attention
//! back through the blocks; it knows no label. The **gradient-weighted** variant (Chefer, Gur and Wolf 2021, "Generic Attention-model
//! Explainability", equations 5 and 6) weighs each probability of attention by what it does for one label's logit.
//!
//! No attention kernel returns its probabilities. They are computed again here, on the host in f32, from the queries and keys that a pass over
//! the model shows ([`crate::vit::Vit::observed_features`]); the gradient of a probability is dL/dA = dO V^T, from the gradient dO of what
//! attention made. So the device computes what it computes in training, and nothing else.

mod attention;
mod maps;
mod names;
mod picture;

pub use attention::{BlockAttention, rollout};
pub use maps::Explainer;
pub use names::FileNames;
pub use picture::overlay;
