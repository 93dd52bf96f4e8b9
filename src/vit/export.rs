//! A model's values back on the host, under their names on disk.

use super::linear::Linear;
use super::{Vit, names};
use crate::Result;
use crate::adapter::{AdapterFile, AdapterModule};
use crate::autograd::{AdapterDims, Backend, DoraAdapter, Params};
use crate::io::state::{Classifier, HostTensor, StateDict};

/// The head's weight and bias.
pub fn classifier<B: Backend>(vit: &Vit, params: &Params<B>) -> Result<Classifier> {
    let tensor = |id| -> Result<HostTensor> {
        Ok(HostTensor { shape: params.get(id).value.shape().to_vec(), data: params.download(id)? })
    };
    Ok(Classifier { weight: tensor(vit.head.weight)?, bias: tensor(vit.head.bias)? })
}

/// The adapters as they are now, under `template`'s configuration.
pub fn adapter<B: Backend>(vit: &Vit, params: &Params<B>, template: &AdapterFile) -> Result<AdapterFile> {
    let mut modules = Vec::new();
    for (linear, adapter) in vit.adapters() {
        let AdapterDims { rows, rank, .. } = adapter.dims;
        let k = params.get(linear.weight).value.shape()[1];
        let magnitude = match adapter.magnitude {
            Some(id) => Some(HostTensor { shape: vec![rows], data: params.download(id)? }),
            None => None,
        };
        modules.push(AdapterModule {
            layer: adapter.layer,
            linear: adapter.site,
            a: HostTensor { shape: vec![rank, k], data: params.download(adapter.a)? },
            b: HostTensor { shape: vec![rows, rank], data: params.download(adapter.b)? },
            magnitude,
        });
    }
    Ok(AdapterFile { config: template.config.clone(), modules, classifier: Some(classifier(vit, params)?) })
}

/// The backbone's values under transformers' names on disk, adapters merged into their weights: W' = g (W + s B A). Values that the model holds in another
/// form than the file (positions resampled for its input, the mask token) come from `original`.
pub fn backbone<B: Backend>(vit: &Vit, params: &Params<B>, original: &StateDict) -> Result<StateDict> {
    let mut state = StateDict::new();
    let mut put = |name: String, data: Vec<f32>| {
        let shape = original.get(&name).map_or_else(|| vec![data.len()], |tensor| tensor.shape.clone());
        state.insert(name, HostTensor { shape, data });
    };
    let mut packed = Vec::new();
    for (layer, block) in vit.blocks.iter().enumerate() {
        use names::Linear::{Fc1, Fc2, Key, Output, Query, Value, WeightsIn, WeightsOut};
        let (mlp_in, mlp_out) = if block.swiglu { (WeightsIn, WeightsOut) } else { (Fc1, Fc2) };
        packed.extend([
            (layer, vec![Query, Key, Value], &block.qkv),
            (layer, vec![Output], &block.output),
            (layer, vec![mlp_in], &block.mlp_in),
            (layer, vec![mlp_out], &block.mlp_out),
        ]);
    }
    for (layer, parts, linear) in &packed {
        // What nobody trained and nothing is merged into is the file's.
        if linear.adapters.is_empty() && !params.get(linear.weight).trainable && !params.get(linear.bias).trainable {
            continue;
        }
        let (weight, bias) = (merged(linear, params)?, params.download(linear.bias)?);
        let (w_len, b_len) = (weight.len() / parts.len(), bias.len() / parts.len());
        for ((part, w), b) in parts.iter().zip(weight.chunks_exact(w_len)).zip(bias.chunks_exact(b_len)) {
            let path = part.canonical(*layer);
            put(format!("{path}.weight"), w.to_vec());
            put(format!("{path}.bias"), b.to_vec());
        }
    }
    for (id, param) in params.iter() {
        let own = original.contains_key(&param.name) && !packed.iter().any(|(.., l)| l.weight == id || l.bias == id);
        if own && param.trainable {
            put(param.name.clone(), params.download(id)?);
        }
    }
    for (name, tensor) in original {
        if !state.contains_key(name) {
            state.insert(name.clone(), tensor.clone());
        }
    }
    Ok(state)
}

/// A linear's weight with its adapters merged into it, from f32.
fn merged<B: Backend>(linear: &Linear, params: &Params<B>) -> Result<Vec<f32>> {
    let backend = params.backend();
    let weight = &params.get(linear.weight).value;
    if linear.adapters.is_empty() {
        return weight.download(backend);
    }
    let k = weight.shape()[1];
    let mut out = backend.copy(weight.buffer())?;
    for adapter in &linear.adapters {
        let [a, b] = [adapter.a, adapter.b].map(|id| params.get(id).value.buffer());
        let gain = match adapter.magnitude {
            Some(id) => {
                let magnitude = params.get(id).value.buffer();
                let adapter = DoraAdapter { dims: adapter.dims, k, w: weight.buffer(), a, b, magnitude };
                backend.dora_gains(&[adapter])?.pop().map(|(_, gain)| gain)
            }
            None => None,
        };
        backend.merge(adapter.dims, k, &mut out, a, b, gain.as_ref())?;
    }
    backend.download(&out)
}
