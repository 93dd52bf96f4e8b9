//! Attention forward and backward.

use peftk::Result;
use peftk::autograd::{AttentionDims, Backend};

use crate::{Case, Random, check};

struct Attention {
    dims: AttentionDims,
    qkv: Vec<f32>,
    dout: Vec<f32>,
}

impl Case for Attention {
    fn run<B: Backend>(&self, backend: &B) -> Result<Vec<(String, B::Buffer)>> {
        let (qkv, dout) = (backend.upload(&self.qkv)?, backend.upload(&self.dout)?);
        let (out, log_sum_exp) = backend.attention(self.dims, &qkv)?;
        let dqkv = backend.attention_backward(self.dims, &qkv, &out, &log_sum_exp, &dout)?;
        Ok(vec![("out".to_owned(), out), ("log-sum-exp".to_owned(), log_sum_exp), ("dqkv".to_owned(), dqkv)])
    }
}

fn case(random: &mut Random, batch: usize, tokens: usize, heads: usize, head_dim: usize, std: f64) -> Attention {
    let width = batch * tokens * heads * head_dim;
    let dims = AttentionDims { batch, tokens, heads, head_dim };
    Attention { dims, qkv: random.normal(3 * width, std), dout: random.normal(width, 1.0) }
}

#[test]
fn at_odd_sizes() {
    let random = &mut Random::fresh();
    for (batch, tokens, heads, head_dim) in
        [(1, 1, 1, 64), (3, 2, 2, 32), (2, 17, 3, 64), (1, 257, 2, 64), (2, 261, 1, 32), (1, 700, 1, 16)]
    {
        let what = format!("batch {batch}, tokens {tokens}, heads {heads}, head_dim {head_dim}");
        check(&what, 1e-5, &case(random, batch, tokens, heads, head_dim, 1.0));
    }
}

#[test]
fn with_scores_far_apart() {
    // Scores of hundreds: the largest is subtracted before exp, and the log-sum-exp carries it to the backward pass.
    let random = &mut Random::fresh();
    check("large scores", 2e-4, &case(random, 1, 40, 2, 64, 8.0));
}
