//! A backbone of random weights by seed, for training from scratch and for tests.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::state::{HostTensor, StateDict};
use crate::vit::VitConfig;
use crate::vit::names::expected_tensors;

/// Standard deviation of weights, positions and tokens, as DINOv2 starts them. Its truncated normal is cut at -2 and 2,
/// a hundred deviations out, so it is a plain normal.
const STD: f64 = 0.02;

/// Weights as DINOv2 starts training: linears, the patch projection, positions and tokens from a normal of standard
/// deviation 0.02, biases zero, LayerNorms one, LayerScale at `config.layerscale_value`.
///
/// The same seed gives the same bits: each tensor draws from a stream of its own, numbered by its place in the model.
pub fn random(config: &VitConfig, seed: u64) -> StateDict {
    let tensors = expected_tensors(config).into_iter().enumerate();
    tensors
        .map(|(place, (name, shape))| {
            let tensor = if name.ends_with(".bias") {
                HostTensor::filled(&shape, 0.0)
            } else if name.contains("layer_scale") {
                HostTensor::filled(&shape, config.layerscale_value as f32)
            } else if name.ends_with("norm1.weight") || name.ends_with("norm2.weight") || name == "layernorm.weight" {
                HostTensor::filled(&shape, 1.0)
            } else {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream(place as u64);
                let count = shape.iter().product();
                HostTensor { data: (0..count).map(|_| normal(&mut rng) as f32).collect(), shape }
            };
            (name, tensor)
        })
        .collect()
}

/// One value of N(0, STD) by Marsaglia's polar method.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    loop {
        let (u, v) = (rng.random::<f64>() * 2.0 - 1.0, rng.random::<f64>() * 2.0 - 1.0);
        let s = u * u + v * v;
        if s < 1.0 && s > 0.0 {
            return u * (-2.0 * s.ln() / s).sqrt() * STD;
        }
    }
}
