//! Meta's and timm's tensors, where query, key and value are packed in one linear.

use std::collections::BTreeSet;

use super::state::{HostTensor, StateDict};
use crate::vit::VitConfig;
use crate::vit::names::{Linear, MASK_TOKEN};
use crate::{Error, Result};

/// Meta's training code stores blocks in chunks, `blocks.CHUNK.N.`; N counts through all chunks. Returns the names
/// without the chunk.
pub(super) fn without_chunks(tensors: StateDict) -> StateDict {
    let plain = |name: &str| -> Option<String> {
        let rest = name.strip_prefix("blocks.")?;
        let (chunk, rest) = rest.split_once('.')?;
        chunk.parse::<usize>().ok()?;
        let (block, _) = rest.split_once('.')?;
        block.parse::<usize>().ok()?;
        Some(format!("blocks.{rest}"))
    };
    // Two spellings of one block must not hide each other: the second keeps its name and is refused as left over.
    let given: BTreeSet<String> = tensors.keys().cloned().collect();
    let mut out = StateDict::new();
    for (name, tensor) in tensors {
        let free = plain(&name).filter(|plain| !given.contains(plain) && !out.contains_key(plain));
        out.insert(free.unwrap_or(name), tensor);
    }
    out
}

/// Every tensor of a model under Meta's or timm's names. `cls_position`: whether positions start with CLS's.
pub(super) fn expected(config: &VitConfig, timm: bool, cls_position: bool) -> Vec<(String, Vec<usize>)> {
    let (hidden, mlp, patch) = (config.hidden, config.mlp_hidden, config.patch);
    let positions = config.stored_grid().pow(2) + usize::from(cls_position);
    let mut list =
        vec![("cls_token".to_owned(), vec![1, 1, hidden]), ("pos_embed".to_owned(), vec![1, positions, hidden])];
    if config.registers > 0 {
        list.push((if timm { "reg_token" } else { "register_tokens" }.to_owned(), vec![1, config.registers, hidden]));
    }
    list.push(("patch_embed.proj.weight".to_owned(), vec![hidden, 3, patch, patch]));
    list.push(("patch_embed.proj.bias".to_owned(), vec![hidden]));
    let first_rows = if config.swiglu { 2 * mlp } else { mlp };
    let (first, second) = if config.swiglu && !timm { ("w12", "w3") } else { ("fc1", "fc2") };
    for layer in 0..config.layers {
        let mut pair = |path: &str, weight: Vec<usize>| {
            let bias = vec![weight[0]];
            list.push((format!("blocks.{layer}.{path}.weight"), weight));
            list.push((format!("blocks.{layer}.{path}.bias"), bias));
        };
        pair("norm1", vec![hidden]);
        pair("attn.qkv", vec![3 * hidden, hidden]);
        pair("attn.proj", vec![hidden, hidden]);
        pair("norm2", vec![hidden]);
        pair(&format!("mlp.{first}"), vec![first_rows, hidden]);
        pair(&format!("mlp.{second}"), vec![hidden, mlp]);
        list.push((format!("blocks.{layer}.ls1.gamma"), vec![hidden]));
        list.push((format!("blocks.{layer}.ls2.gamma"), vec![hidden]));
    }
    list.push(("norm.weight".to_owned(), vec![hidden]));
    list.push(("norm.bias".to_owned(), vec![hidden]));
    list
}

/// Canonical tensors from checked ones. Where CLS has no position of its own, its position becomes zero.
pub(super) fn unpack(tensors: StateDict, config: &VitConfig, cls_position: bool) -> Result<StateDict> {
    let mut state = StateDict::new();
    for (name, mut tensor) in tensors {
        if name == "pos_embed" && !cls_position {
            tensor.data.splice(0..0, std::iter::repeat_n(0.0, config.hidden));
            tensor.shape[1] += 1;
        }
        let Some(block) = name.strip_prefix("blocks.") else {
            state.insert(outside_blocks(&name)?, tensor);
            continue;
        };
        let (layer, path) = block.split_once('.').unwrap_or((block, ""));
        if let Some(part) = path.strip_prefix("attn.qkv.") {
            for (linear, third) in [Linear::Query, Linear::Key, Linear::Value].into_iter().zip(thirds(tensor)) {
                state.insert(format!("encoder.layer.{layer}.{}.{part}", linear.v4_path()), third);
            }
        } else {
            state.insert(format!("encoder.layer.{layer}.{}", inside_block(path, config)?), tensor);
        }
    }
    Ok(state)
}

/// A tensor cut in three along its first extent.
fn thirds(tensor: HostTensor) -> [HostTensor; 3] {
    let mut shape = tensor.shape;
    shape[0] /= 3;
    let size = tensor.data.len() / 3;
    let third = |i: usize| HostTensor { shape: shape.clone(), data: tensor.data[i * size..(i + 1) * size].to_vec() };
    [third(0), third(1), third(2)]
}

fn outside_blocks(name: &str) -> Result<String> {
    let canonical = match name {
        "cls_token" => "embeddings.cls_token",
        "pos_embed" => "embeddings.position_embeddings",
        "register_tokens" | "reg_token" => "embeddings.register_tokens",
        "mask_token" => MASK_TOKEN,
        "patch_embed.proj.weight" => "embeddings.patch_embeddings.projection.weight",
        "patch_embed.proj.bias" => "embeddings.patch_embeddings.projection.bias",
        "norm.weight" => "layernorm.weight",
        "norm.bias" => "layernorm.bias",
        _ => return Err(Error::Internal(format!("no canonical name for {}", super::quoted(name)))),
    };
    Ok(canonical.to_owned())
}

fn inside_block(path: &str, config: &VitConfig) -> Result<String> {
    let (module, part) = path.rsplit_once('.').unwrap_or((path, ""));
    let canonical = match module {
        "norm1" | "norm2" => module,
        "ls1" => return Ok("layer_scale1.lambda1".to_owned()),
        "ls2" => return Ok("layer_scale2.lambda1".to_owned()),
        "attn.proj" => Linear::Output.v4_path(),
        "mlp.fc1" | "mlp.w12" if config.swiglu => Linear::WeightsIn.v4_path(),
        "mlp.fc2" | "mlp.w3" if config.swiglu => Linear::WeightsOut.v4_path(),
        "mlp.fc1" | "mlp.fc2" => module,
        _ => return Err(Error::Internal(format!("no canonical name for {}", super::quoted(path)))),
    };
    Ok(format!("{canonical}.{part}"))
}
