//! From weights on the host to a model on a device, and back.

use super::block::{Block, Norm};
use super::linear::{Linear, SiteAdapter};
use super::positions::resampling_matrix;
use super::{Vit, VitConfig, names};
use crate::adapter::AdapterFile;
use crate::autograd::{AdapterDims, Backend, ParamId, Params};
use crate::config::Pool;
use crate::io::state::{Classifier, HostTensor, StateDict};
use crate::{Error, Result};

/// What the model is made from besides its weights.
pub struct BuildOptions<'a> {
    /// Train the backbone too (`full`).
    pub train_backbone: bool,
    /// Train the adapters and the head; false for evaluation.
    pub train: bool,
    /// Adapters to put on.
    pub adapter: Option<&'a AdapterFile>,
    /// DoRA: differentiate through the norm.
    pub dora_norm_grad: bool,
    /// Head input.
    pub pool: Pool,
    /// Side of the input in pixels.
    pub input_size: usize,
}

/// Puts a model on the device of `params`. `state` is read tensor by tensor and emptied as it goes, so that a large backbone lies on the host
/// once; tensors that no part of the model took are an error, as are missing and misshapen ones.
pub fn build<B: Backend>(
    params: &mut Params<B>,
    config: &VitConfig,
    mut state: StateDict,
    head: &Classifier,
    options: &BuildOptions<'_>,
) -> Result<Vit> {
    if options.input_size == 0 || !options.input_size.is_multiple_of(config.patch) {
        return Err(Error::input(format!(
            "--input-size {}: expected a positive multiple of {}, the patch size",
            options.input_size, config.patch
        )));
    }
    // The mask token belongs to pre-training; it is kept for export only.
    state.remove("embeddings.mask_token");
    let mut builder = Builder { params, state: &mut state, config, options };
    let d = config.hidden;
    let patch = builder.plain_linear("embeddings.patch_embeddings.projection", d, 3 * config.patch * config.patch)?;
    let cls = builder.tensor("embeddings.cls_token", &[d])?;
    let (positions, resample) = builder.positions()?;
    let registers = match config.registers {
        0 => None,
        r => Some(builder.tensor("embeddings.register_tokens", &[r, d])?),
    };
    let blocks = (0..config.layers).map(|layer| builder.block(layer)).collect::<Result<Vec<_>>>()?;
    let norm = builder.norm("layernorm".into())?;
    let head = builder.head(head)?;
    if let Some(name) = state.keys().next() {
        return Err(Error::input(format!("backbone: unexpected tensor '{name}': no part of the model takes it")));
    }
    let (config, pool, input_size) = (config.clone(), options.pool, options.input_size);
    let mut vit = Vit { config, patch, cls, positions, resample, registers, blocks, norm, head, pool, input_size };
    vit.number_derived();
    Ok(vit)
}

struct Builder<'a, B: Backend> {
    params: &'a mut Params<B>,
    state: &'a mut StateDict,
    config: &'a VitConfig,
    options: &'a BuildOptions<'a>,
}

impl<B: Backend> Builder<'_, B> {
    fn take(&mut self, name: &str, elements: usize) -> Result<HostTensor> {
        let tensor =
            self.state.remove(name).ok_or_else(|| Error::input(format!("backbone: tensor '{name}' is missing")))?;
        if tensor.data.len() != elements {
            return Err(Error::shape(format!("backbone tensor '{name}'"), elements, &tensor.shape));
        }
        Ok(tensor)
    }

    /// One of the backbone's own values, under its name.
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<ParamId> {
        let tensor = self.take(name, shape.iter().product())?;
        self.params.add(name, &tensor.data, shape, self.options.train_backbone)
    }

    fn prepare(&self, weight: ParamId, rows: usize) -> Result<()> {
        self.params.backend().prepare_weight(self.params.get(weight).value.buffer(), rows)
    }

    /// In training a frozen weight that only products read is held in their form alone; what is written to disk comes from the file.
    fn release(&mut self, weight: ParamId, rows: usize) -> Result<()> {
        if !self.options.train || self.options.train_backbone {
            return Ok(());
        }
        let backend = self.params.backend().clone();
        match self.params.get_mut(weight).value.buffer_mut() {
            Some(buffer) => backend.release_values(buffer, rows),
            None => Ok(()),
        }
    }

    fn plain_linear(&mut self, path: &str, n: usize, k: usize) -> Result<Linear> {
        let weight = self.tensor(&format!("{path}.weight"), &[n, k])?;
        self.prepare(weight, n)?;
        self.release(weight, n)?;
        let bias = self.tensor(&format!("{path}.bias"), &[n])?;
        Ok(Linear { weight, bias, adapters: Vec::new() })
    }

    fn norm(&mut self, path: String) -> Result<Norm> {
        let d = self.config.hidden;
        Ok(Norm {
            weight: self.tensor(&format!("{path}.weight"), &[d])?,
            bias: self.tensor(&format!("{path}.bias"), &[d])?,
            eps: self.config.layer_norm_eps,
        })
    }

    /// Trained positions keep the stored grid and are resampled in every pass; frozen ones are resampled here, once.
    fn positions(&mut self) -> Result<(ParamId, Option<ParamId>)> {
        let (d, from) = (self.config.hidden, self.config.stored_grid());
        let name = "embeddings.position_embeddings";
        let to = self.options.input_size / self.config.patch;
        let (from, matrix) = (from * from, resampling_matrix(self.config, to));
        let tensor = self.take(name, (1 + from) * d)?;
        let Some(matrix) = matrix else {
            return Ok((self.params.add(name, &tensor.data, &[1 + from, d], self.options.train_backbone)?, None));
        };
        if self.options.train_backbone {
            let id = self.params.add(name, &tensor.data, &[1 + from, d], true)?;
            let matrix = self.params.add("positions.resample", &matrix, &[to * to, from], false)?;
            return Ok((id, Some(matrix)));
        }
        let backend = self.params.backend().clone();
        let (pos, matrix) = (backend.upload(&tensor.data)?, backend.upload(&matrix)?);
        let resampled = backend.resample_positions(from, to * to, d, &pos, &matrix)?;
        Ok((self.params.add(name, &backend.download(&resampled)?, &[1 + to * to, d], false)?, None))
    }

    fn block(&mut self, layer: usize) -> Result<Block> {
        let (d, f) = (self.config.hidden, self.config.mlp_hidden);
        let path = format!("encoder.layer.{layer}");
        let (mlp_in, mlp_out): (&[names::Linear], _) = if self.config.swiglu {
            (&[names::Linear::WeightsIn], names::Linear::WeightsOut)
        } else {
            (&[names::Linear::Fc1], names::Linear::Fc2)
        };
        let mlp_rows = if self.config.swiglu { 2 * f } else { f };
        use names::Linear::{Key, Output, Query, Value};
        Ok(Block {
            norm1: self.norm(format!("{path}.norm1"))?,
            qkv: self.packed_linear(layer, &[Query, Key, Value], d, d)?,
            output: self.packed_linear(layer, &[Output], d, d)?,
            scale1: self.tensor(&format!("{path}.layer_scale1.lambda1"), &[d])?,
            norm2: self.norm(format!("{path}.norm2"))?,
            mlp_in: self.packed_linear(layer, mlp_in, mlp_rows, d)?,
            mlp_out: self.packed_linear(layer, &[mlp_out], d, f)?,
            scale2: self.tensor(&format!("{path}.layer_scale2.lambda1"), &[d])?,
            swiglu: self.config.swiglu,
        })
    }

    /// Linears of `rows` rows each, one after the other in one weight, with the adapters that lie on them.
    fn packed_linear(&mut self, layer: usize, parts: &[names::Linear], rows: usize, k: usize) -> Result<Linear> {
        let (mut weight, mut bias) = (Vec::with_capacity(parts.len() * rows * k), Vec::new());
        for part in parts {
            let path = part.canonical(layer);
            weight.extend_from_slice(&self.take(&format!("{path}.weight"), rows * k)?.data);
            bias.extend_from_slice(&self.take(&format!("{path}.bias"), rows)?.data);
        }
        let path = match parts {
            [part] => part.canonical(layer),
            _ => format!("encoder.layer.{layer}.qkv"),
        };
        let (n, trainable) = (parts.len() * rows, self.options.train_backbone);
        let weight = self.params.add(format!("{path}.weight"), &weight, &[n, k], trainable)?;
        self.prepare(weight, n)?;
        let bias = self.params.add(format!("{path}.bias"), &bias, &[n], trainable)?;
        let mut linear = Linear { weight, bias, adapters: Vec::new() };
        let file = self.options.adapter;
        for module in file.into_iter().flat_map(|file| &file.modules).filter(|module| module.layer == layer) {
            let Some((first_row, rows)) = rows_of(module.linear, parts, self.config, rows) else { continue };
            linear.adapters.push(self.adapter(module, first_row, rows, k)?);
        }
        linear.adapters.sort_by_key(|adapter| adapter.dims.first_row);
        // DoRA's norm and gain read W itself.
        if linear.adapters.iter().all(|adapter| adapter.magnitude.is_none()) {
            self.release(linear.weight, n)?;
        }
        Ok(linear)
    }

    fn adapter(
        &mut self,
        module: &crate::adapter::AdapterModule,
        first_row: usize,
        rows: usize,
        k: usize,
    ) -> Result<SiteAdapter> {
        let config = match self.options.adapter {
            Some(file) => &file.config,
            None => return Err(Error::Internal("an adapter module without its file".into())),
        };
        let (layer, site) = (module.layer, module.linear);
        let path = format!("encoder.layer.{layer}.{}", site.v5_path());
        let rank = module.a.shape[0];
        let most = self.params.backend().max_dora_rank();
        if module.magnitude.is_some() && rank > most {
            return Err(Error::input(format!(
                "--rank {rank}: DoRA on a GPU takes ranks to {most}; use a smaller one, --strategy lora or --device cpu"
            )));
        }
        let train = self.options.train;
        let a = self.params.add(format!("{path}.lora_A"), &module.a.data, &[rank, k], train)?;
        let b = self.params.add(format!("{path}.lora_B"), &module.b.data, &[rows, rank], train)?;
        let magnitude = match &module.magnitude {
            Some(m) => Some(self.params.add(format!("{path}.lora_magnitude_vector"), &m.data, &[rows], train)?),
            None => None,
        };
        let dims = AdapterDims { first_row, rows, rank, scale: config.scale_of((layer, site)) };
        let norm_grad = self.options.dora_norm_grad;
        Ok(SiteAdapter { layer, site, dims, a, b, magnitude, dropout: config.dropout, norm_grad, gain_slot: 0 })
    }

    fn head(&mut self, head: &Classifier) -> Result<Linear> {
        let width = self.config.hidden * if self.options.pool == Pool::ClsMean { 2 } else { 1 };
        let classes = head.bias.data.len();
        if head.weight.shape != [classes, width] {
            return Err(Error::input(format!(
                "classifier: expected a weight of [{classes}, {width}], found {:?}: --pool must be what it was trained with",
                head.weight.shape
            )));
        }
        let train = self.options.train || self.options.train_backbone;
        let weight = self.params.add("classifier.weight", &head.weight.data, &[classes, width], train)?;
        let bias = self.params.add("classifier.bias", &head.bias.data, &[classes], train)?;
        Ok(Linear { weight, bias, adapters: Vec::new() })
    }
}

/// Which rows of a packed weight a named linear is; none when it is not part of it.
fn rows_of(linear: names::Linear, parts: &[names::Linear], config: &VitConfig, rows: usize) -> Option<(usize, usize)> {
    let place = parts.iter().position(|part| part.v4_path() == linear.v4_path())?;
    let inside = linear.rows(config);
    Some((place * rows + inside.start, inside.len()))
}
