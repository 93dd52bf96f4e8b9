//! Which names a file's tensors go by, the shape they imply, and their canonical form.

use super::naming_packed;
use super::quoted;
use super::state::{Classifier, HostTensor, StateDict, check_tensors};
use crate::vit::names::{MASK_TOKEN, expected_tensors};
use crate::vit::{Family, VitConfig};
use crate::{Error, Result};

/// Largest patch, MLP and grid of patches that are believed of a file without config.json.
const MAX_PATCH: usize = 1 << 10;
const MAX_MLP: usize = 1 << 20;
const MAX_GRID: usize = 1 << 12;

/// How a file names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// transformers' names behind a prefix: none, `dinov2.` or `dinov2_with_registers.`.
    Transformers(&'static str),
    /// Meta's names: packed query, key and value.
    Meta,
    /// timm's: Meta's, but `reg_token`, no mask token, and SwiGLU's linears called `fc1` and `fc2`.
    Timm,
}

impl Naming {
    /// Finds the naming. `source` names the file in errors.
    pub(super) fn detect(tensors: &StateDict, source: &str) -> Result<Self> {
        for prefix in ["", "dinov2.", "dinov2_with_registers."] {
            if tensors.keys().any(|name| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("embeddings.")))
            {
                return Ok(Self::Transformers(prefix));
            }
        }
        if !tensors.keys().any(|name| name.starts_with("blocks.") || name == "pos_embed") {
            let example =
                tensors.keys().next().map_or("it has no tensor".into(), |name| format!("it has {}", quoted(name)));
            return Err(Error::input(format!(
                "{source}: not a DINOv2 by its tensors' names ({example}); expected transformers', Meta's or timm's names"
            )));
        }
        // Meta's files always carry the mask token, timm's never do; the rest only makes sure.
        let meta = |name: &String| name == "mask_token" || name == "register_tokens" || name.contains(".mlp.w12.");
        Ok(if tensors.keys().any(meta) { Self::Meta } else { Self::Timm })
    }

    /// The rule by which files of this naming resize positions.
    pub(super) fn family(self) -> Family {
        match self {
            Self::Transformers(_) => Family::Transformers,
            Self::Meta => Family::Meta,
            Self::Timm => Family::Timm,
        }
    }

    /// The model's shape as its tensors give it; heads are 64 wide, as in every published size.
    pub(super) fn infer(self, tensors: &StateDict, source: &str) -> Result<VitConfig> {
        let get = |name: String| {
            tensors.get(&name).ok_or_else(|| Error::input(format!("{source}: tensor {} is missing", quoted(&name))))
        };
        let odd = |name: &str, tensor: &HostTensor, expected: &str| {
            Error::input(format!("{source}: tensor {} has shape {:?}, expected {expected}", quoted(name), tensor.shape))
        };
        let names = self.landmarks();
        let cls = get(names.cls.clone())?;
        let &[1, 1, hidden] = &cls.shape[..] else { return Err(odd(&names.cls, cls, "[1, 1, D]")) };
        if hidden == 0 || hidden % 64 != 0 {
            return Err(odd(&names.cls, cls, "[1, 1, D] with D a multiple of the heads' width 64"));
        }
        let projection = get(names.projection.clone())?;
        // An empty tensor may claim any extents, so those that are calculated with are bounded first.
        let &[_, _, patch @ 1..=MAX_PATCH, _] = &projection.shape[..] else {
            return Err(odd(&names.projection, projection, "[D, 3, patch, patch]"));
        };
        let position = get(names.positions.clone())?;
        let stored = position.shape.get(1).copied().unwrap_or(0);
        // timm's models with registers keep no position for CLS: it is added to the token already.
        let grid = match (square_root(stored.saturating_sub(1)), square_root(stored)) {
            (Some(grid), _) => grid,
            (None, Some(grid)) if self == Self::Timm => grid,
            _ => return Err(odd(&names.positions, position, "[1, 1 + n * n, D]")),
        };
        let registers = match tensors.get(&names.registers) {
            Some(tensor) => tensor.shape.get(1).copied().unwrap_or(0),
            None => 0,
        };
        let blocks = tensors.keys().filter_map(|name| name.strip_prefix(&names.block)?.split('.').next()?.parse().ok());
        let layers = blocks.max().map_or(0, |last: usize| last.saturating_add(1));
        if layers == 0 || layers > tensors.len() {
            return Err(Error::input(format!(
                "{source}: tensor {} is missing",
                quoted(&format!("{}0.norm1.weight", names.block))
            )));
        }
        let last_linear =
            names.last_linear.iter().find(|path| tensors.contains_key(&format!("{}0.{path}", names.block)));
        let last_name = format!("{}0.{}", names.block, last_linear.unwrap_or(&names.last_linear[0]));
        let last = get(last_name.clone())?;
        let &[_, mlp_hidden @ 1..=MAX_MLP] = &last.shape[..] else { return Err(odd(&last_name, last, "[D, F]")) };
        let first_rows = tensors.get(&format!("{}0.mlp.fc1.weight", names.block)).and_then(|fc1| fc1.shape.first());
        let swiglu = match self {
            Self::Timm => first_rows.is_some_and(|&rows| rows == 2 * mlp_hidden),
            _ => last_linear.is_some_and(|path| !path.contains("fc2")),
        };
        Ok(VitConfig {
            hidden,
            layers,
            heads: hidden / 64,
            mlp_hidden,
            swiglu,
            registers,
            patch,
            image_size: grid * patch,
            layer_norm_eps: 1e-6,
            layerscale_value: 1.0,
            family: self.family(),
        })
    }

    /// Checks a file's tensors against the shape and brings them to canonical names; the head that lay among them comes
    /// apart.
    ///
    /// Beside the backbone's own tensors these are taken, and nothing else: `mask_token` (pretraining's, in transformers'
    /// and Meta's files), `classifier.*` (transformers' image classifier), `head.*` (timm's, on CLS alone).
    pub(super) fn canonical(
        self,
        mut tensors: StateDict,
        config: &VitConfig,
        source: &str,
    ) -> Result<(StateDict, Option<Classifier>)> {
        let head = match self {
            Self::Transformers(_) => Some("classifier."),
            Self::Meta => None,
            Self::Timm => Some("head."),
        };
        let classifier = match head {
            Some(prefix) => Classifier::take(&mut tensors, prefix, source)?,
            None => None,
        };
        if let Some(classifier) = &classifier {
            classifier.check(config.hidden, source)?;
        }
        let mask = vec![1, config.hidden];
        let state = match self {
            Self::Transformers(prefix) => {
                let expected: Vec<_> = expected_tensors(config)
                    .into_iter()
                    .map(|(name, shape)| (format!("{prefix}{name}"), shape))
                    .collect();
                check_tensors(source, &tensors, &expected, &[(format!("{prefix}{MASK_TOKEN}"), mask)])?;
                tensors.into_iter().map(|(name, tensor)| (name[prefix.len()..].to_owned(), tensor)).collect()
            }
            Self::Meta | Self::Timm => {
                let timm = self == Self::Timm;
                let cls_position = !timm
                    || tensors.get("pos_embed").and_then(|t| t.shape.get(1)) != Some(&config.stored_grid().pow(2));
                let expected = naming_packed::expected(config, timm, cls_position);
                let optional = if timm { vec![] } else { vec![("mask_token".to_owned(), mask)] };
                check_tensors(source, &tensors, &expected, &optional)?;
                naming_packed::unpack(tensors, config, cls_position)?
            }
        };
        Ok((state, classifier))
    }

    fn landmarks(self) -> Landmarks {
        match self {
            Self::Transformers(prefix) => Landmarks {
                cls: format!("{prefix}embeddings.cls_token"),
                positions: format!("{prefix}embeddings.position_embeddings"),
                registers: format!("{prefix}embeddings.register_tokens"),
                projection: format!("{prefix}embeddings.patch_embeddings.projection.weight"),
                block: format!("{prefix}encoder.layer."),
                last_linear: ["mlp.fc2.weight", "mlp.weights_out.weight"],
            },
            Self::Meta | Self::Timm => Landmarks {
                cls: "cls_token".into(),
                positions: "pos_embed".into(),
                registers: if self == Self::Meta { "register_tokens" } else { "reg_token" }.into(),
                projection: "patch_embed.proj.weight".into(),
                block: "blocks.".into(),
                last_linear: ["mlp.fc2.weight", "mlp.w3.weight"],
            },
        }
    }
}

/// The tensors that tell a model's shape.
struct Landmarks {
    cls: String,
    positions: String,
    registers: String,
    projection: String,
    /// What stands before a block's number.
    block: String,
    /// The MLP's second linear: GELU's, SwiGLU's.
    last_linear: [&'static str; 2],
}

fn square_root(count: usize) -> Option<usize> {
    let root = count.isqrt();
    ((1..=MAX_GRID).contains(&root) && root * root == count).then_some(root)
}
