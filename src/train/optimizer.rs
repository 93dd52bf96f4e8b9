//! AdamW over a model's trained values.

use std::collections::BTreeMap;

use crate::autograd::{AdamW, AdamWItem, Array, Backend, Grads, LaterNumber, ParamId, Params};
use crate::gpu::profile;
use crate::{Error, Result};

/// Constants that stay the same over a run.
#[derive(Clone, Copy, Debug)]
pub struct Hyper {
    /// First moment's decay rate.
    pub beta1: f64,
    /// Second moment's decay rate.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay matrices alone: biases, norms, LayerScale, tokens and magnitudes stay undecayed.
    pub decay_matrices_only: bool,
    /// Largest global gradient norm.
    pub grad_clip: Option<f64>,
}

impl Hyper {
    /// torch's defaults with a weight decay.
    pub fn new(weight_decay: f64) -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, decay_matrices_only: false, grad_clip: None }
    }
}

/// A trained value's first and second moment.
struct Moments<B: Backend> {
    m: Array<B>,
    v: Array<B>,
}

/// A step that was queued.
pub struct Queued {
    step: u64,
    norm: LaterNumber,
}

impl Queued {
    /// The gradients' norm, once it is known.
    ///
    /// # Errors
    /// [`Error::NonFinite`] where it is no number: the step changed nothing.
    pub fn norm(self) -> Result<f64> {
        let norm = (self.norm)()?;
        if !norm.is_finite() {
            return Err(Error::NonFinite(format!("the gradient became {norm} at step {}", self.step)));
        }
        Ok(norm)
    }
}

/// AdamW (Loshchilov and Hutter 2019) with its state.
pub struct Optimizer<B: Backend> {
    hyper: Hyper,
    step: u64,
    moments: BTreeMap<ParamId, Moments<B>>,
}

impl<B: Backend> Optimizer<B> {
    /// Moments of zero for every trained value.
    pub fn new(params: &Params<B>, hyper: Hyper) -> Result<Self> {
        let mut moments = BTreeMap::new();
        for (id, param) in params.trainable() {
            let zero = || Array::upload(params.backend(), &vec![0.0; param.value.elements()], param.value.shape());
            moments.insert(id, Moments { m: zero()?, v: zero()? });
        }
        Ok(Self { hyper, step: 0, moments })
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// One step at a learning rate; clips by the global norm first where that is asked for, and returns that norm. A norm that is not finite
    /// is an error, and nothing changes.
    pub fn step(&mut self, params: &mut Params<B>, grads: &mut Grads<B>, lr: f64) -> Result<f64> {
        let norm = self.queue(params, grads, lr)?.norm();
        if norm.is_err() {
            self.step -= 1;
        }
        norm
    }

    /// The same without waiting for it.
    pub fn queue(&mut self, params: &mut Params<B>, grads: &mut Grads<B>, lr: f64) -> Result<Queued> {
        let _range = profile::range("optimiser");
        let backend = params.backend().clone();
        let step = AdamW {
            lr,
            beta1: self.hyper.beta1,
            beta2: self.hyper.beta2,
            eps: self.hyper.eps,
            weight_decay: self.hyper.weight_decay,
            step: self.step + 1,
        };
        let shared = || Error::Internal("a trained value is still in use while it is updated".into());
        let mut items = Vec::with_capacity(self.moments.len());
        let mut moments = self.moments.iter_mut();
        let mut values = params.iter_mut();
        // A value that took no part (no gradient) stays as it is, as torch leaves it.
        for grad in grads.iter_mut() {
            let (id, grad) = grad?;
            // Both are in the values' order, and go on from the one before.
            let (Some((_, moments)), Some((_, param))) =
                (moments.find(|(own, _)| **own == id), values.find(|(own, _)| *own == id))
            else {
                return Err(Error::Internal("a gradient of a value that is not trained".into()));
            };
            let decayed = !self.hyper.decay_matrices_only
                || (param.value.shape().len() > 1 && !param.name.starts_with("embeddings.position"))
                    && !param.name.ends_with("tokens");
            items.push(AdamWItem {
                value: param.value.buffer_mut().ok_or_else(shared)?,
                grad,
                m: moments.m.buffer_mut().ok_or_else(shared)?,
                v: moments.v.buffer_mut().ok_or_else(shared)?,
                weight_decay: if decayed { self.hyper.weight_decay } else { 0.0 },
            });
        }
        let norm = backend.adamw_clipped(step, &mut items, self.hyper.grad_clip)?;
        self.step += 1;
        Ok(Queued { step: self.step, norm })
    }

    /// The moments on the host, by parameter, for a checkpoint.
    pub fn state(&self, params: &Params<B>) -> Result<Vec<(String, Vec<f32>)>> {
        let mut list = Vec::new();
        for (id, moments) in &self.moments {
            let name = &params.get(*id).name;
            list.push((format!("m.{name}"), moments.m.download(params.backend())?));
            list.push((format!("v.{name}"), moments.v.download(params.backend())?));
        }
        Ok(list)
    }

    /// Takes a checkpoint's state back; `find` gives a tensor by its name.
    pub fn restore(
        &mut self,
        params: &Params<B>,
        step: u64,
        mut find: impl FnMut(&str, usize) -> Result<Vec<f32>>,
    ) -> Result<()> {
        self.step = step;
        for (id, moments) in &mut self.moments {
            let param = params.get(*id);
            // In place: other blocks would lie elsewhere in the planned memory, and what follows would reach beyond its end.
            let mut load = |kind: &str, array: &mut Array<B>| {
                let values = find(&format!("{kind}.{}", param.name), param.value.elements())?;
                match array.buffer_mut() {
                    Some(buffer) => params.backend().write(buffer, &values),
                    None => Err(Error::Internal("moments are still in use while they are loaded".into())),
                }
            };
            load("m", &mut moments.m)?;
            load("v", &mut moments.v)?;
        }
        Ok(())
    }
}
