//! Names of the weights: the linears an adapter can sit on, and every tensor of a backbone with its shape.
//!
//! Three spellings meet here. Backbone files keep the names of transformers 4 on disk (`attention.attention.query`),
//! which are this crate's own (canonical) names. Adapters name modules, in transformers 4 as on disk, in transformers 5
//! by new names (`attention.q_proj`), where SwiGLU's packed first linear became two modules.

use std::ops::Range;

use super::VitConfig;

/// A linear of one transformer block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Linear {
    /// Attention's query projection, [D, D].
    Query,
    /// Attention's key projection, [D, D].
    Key,
    /// Attention's value projection, [D, D].
    Value,
    /// Attention's output projection, [D, D].
    Output,
    /// First linear of the GELU MLP, [F, D].
    Fc1,
    /// Second linear of the GELU MLP, [D, F].
    Fc2,
    /// SwiGLU's packed first linear, gate above value, [2 F, D].
    WeightsIn,
    /// The gate: the first half of the rows of [`Linear::WeightsIn`], [F, D].
    GateProj,
    /// The value: the second half of the rows of [`Linear::WeightsIn`], [F, D].
    UpProj,
    /// SwiGLU's second linear, [D, F].
    WeightsOut,
}

impl Linear {
    /// Every linear, in the order of a block's forward pass.
    pub const ALL: [Self; 10] = [
        Self::Query,
        Self::Key,
        Self::Value,
        Self::Output,
        Self::Fc1,
        Self::Fc2,
        Self::WeightsIn,
        Self::GateProj,
        Self::UpProj,
        Self::WeightsOut,
    ];

    /// Module path inside a block as transformers 5 names it; `mlp.weights_in` keeps its old name, because that module
    /// no longer exists there.
    pub fn v5_path(self) -> &'static str {
        match self {
            Self::Query => "attention.q_proj",
            Self::Key => "attention.k_proj",
            Self::Value => "attention.v_proj",
            Self::Output => "attention.o_proj",
            Self::Fc1 => "mlp.fc1",
            Self::Fc2 => "mlp.fc2",
            Self::WeightsIn => "mlp.weights_in",
            Self::GateProj => "mlp.gate_proj",
            Self::UpProj => "mlp.up_proj",
            Self::WeightsOut => "mlp.down_proj",
        }
    }

    /// Module path inside a block as transformers 4 names it, which is also the path in a backbone file; both halves of
    /// SwiGLU's first linear are `mlp.weights_in` (see [`Linear::rows`]).
    pub fn v4_path(self) -> &'static str {
        match self {
            Self::Query => "attention.attention.query",
            Self::Key => "attention.attention.key",
            Self::Value => "attention.attention.value",
            Self::Output => "attention.output.dense",
            Self::Fc1 => "mlp.fc1",
            Self::Fc2 => "mlp.fc2",
            Self::WeightsIn | Self::GateProj | Self::UpProj => "mlp.weights_in",
            Self::WeightsOut => "mlp.weights_out",
        }
    }

    /// Path of the canonical tensors that hold this linear, without `.weight` or `.bias`.
    pub fn canonical(self, layer: usize) -> String {
        format!("encoder.layer.{layer}.{}", self.v4_path())
    }

    /// The weight's shape (out, in).
    pub fn shape(self, config: &VitConfig) -> (usize, usize) {
        let (hidden, mlp) = (config.hidden, config.mlp_hidden);
        match self {
            Self::Query | Self::Key | Self::Value | Self::Output => (hidden, hidden),
            Self::Fc1 | Self::GateProj | Self::UpProj => (mlp, hidden),
            Self::WeightsIn => (2 * mlp, hidden),
            Self::Fc2 | Self::WeightsOut => (hidden, mlp),
        }
    }

    /// The rows of the canonical weight (and entries of its bias) that are this linear's: all of them but for SwiGLU's
    /// gate and value.
    pub fn rows(self, config: &VitConfig) -> Range<usize> {
        let out = self.shape(config).0;
        if self == Self::UpProj { out..2 * out } else { 0..out }
    }

    /// Whether a model of this shape has the linear.
    pub fn is_in(self, config: &VitConfig) -> bool {
        match self {
            Self::Query | Self::Key | Self::Value | Self::Output => true,
            Self::Fc1 | Self::Fc2 => !config.swiglu,
            Self::WeightsIn | Self::GateProj | Self::UpProj | Self::WeightsOut => config.swiglu,
        }
    }
}

/// Canonical name of the optional mask token [1, D]: pretraining's, unused here, kept to be written back.
pub const MASK_TOKEN: &str = "embeddings.mask_token";

/// Every tensor of a backbone under its canonical name with its shape, in the order of the forward pass; the optional
/// [`MASK_TOKEN`] is not among them.
pub fn expected_tensors(config: &VitConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, patch, grid) = (config.hidden, config.patch, config.stored_grid());
    let mut list = vec![
        ("embeddings.cls_token".to_owned(), vec![1, 1, hidden]),
        ("embeddings.position_embeddings".to_owned(), vec![1, 1 + grid * grid, hidden]),
    ];
    if config.registers > 0 {
        list.push(("embeddings.register_tokens".to_owned(), vec![1, config.registers, hidden]));
    }
    let projection = "embeddings.patch_embeddings.projection";
    list.push((format!("{projection}.weight"), vec![hidden, 3, patch, patch]));
    list.push((format!("{projection}.bias"), vec![hidden]));
    for layer in 0..config.layers {
        push_block(&mut list, config, layer);
    }
    push_pair(&mut list, "layernorm", None, hidden);
    list
}

fn push_block(list: &mut Vec<(String, Vec<usize>)>, config: &VitConfig, layer: usize) {
    let block = format!("encoder.layer.{layer}");
    let hidden = config.hidden;
    let linear = |list: &mut Vec<_>, linear: Linear| {
        let (out, input) = linear.shape(config);
        push_pair(list, &linear.canonical(layer), Some(input), out);
    };
    push_pair(list, &format!("{block}.norm1"), None, hidden);
    for attention in [Linear::Query, Linear::Key, Linear::Value, Linear::Output] {
        linear(list, attention);
    }
    list.push((format!("{block}.layer_scale1.lambda1"), vec![hidden]));
    push_pair(list, &format!("{block}.norm2"), None, hidden);
    let mlp = if config.swiglu { [Linear::WeightsIn, Linear::WeightsOut] } else { [Linear::Fc1, Linear::Fc2] };
    for part in mlp {
        linear(list, part);
    }
    list.push((format!("{block}.layer_scale2.lambda1"), vec![hidden]));
}

/// `.weight` ([out, input], or [out] for a norm) and `.bias` [out].
fn push_pair(list: &mut Vec<(String, Vec<usize>)>, path: &str, input: Option<usize>, out: usize) {
    list.push((format!("{path}.weight"), input.map_or(vec![out], |input| vec![out, input])));
    list.push((format!("{path}.bias"), vec![out]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_published_models() {
        let count = |name: &str| -> usize {
            let config = VitConfig::named(name).unwrap();
            expected_tensors(&config).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
        };
        // As transformers' Dinov2Model counts its parameters at 518 pixels, less the mask token.
        assert_eq!(count("small"), 22_056_192);
        assert_eq!(count("base"), 86_579_712);
        assert_eq!(count("large"), 304_367_616);
        assert_eq!(count("giant"), 1_136_479_232);
        assert_eq!(count("small-reg"), 22_056_192 + 4 * 384);
    }

    #[test]
    fn gate_and_up_split_the_rows_of_weights_in() {
        let config = VitConfig::named("giant").unwrap();
        assert_eq!(Linear::GateProj.rows(&config), 0..4096);
        assert_eq!(Linear::UpProj.rows(&config), 4096..8192);
        assert_eq!(Linear::WeightsIn.rows(&config), 0..8192);
        assert_eq!(Linear::UpProj.canonical(3), "encoder.layer.3.mlp.weights_in");
        assert!(Linear::UpProj.is_in(&config) && !Linear::Fc1.is_in(&config));
    }
}
