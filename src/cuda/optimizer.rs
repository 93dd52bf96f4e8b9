//! AdamW and the gradient's norm over all trained values at once.

use std::rc::Rc;

use super::{Cuda, CudaBuffer};
use crate::Result;
use crate::autograd::{AdamW, AdamWItem, LaterNumber};
use crate::gpu::{Buf, DType};
use crate::kernels::adamw::{self, AdamWTable, GRAD_NORM_LEN, Trained};

impl Cuda {
    /// One step of every item in one launch, which also writes the copies that products read; padded ones are made anew after it. With
    /// `clip` the gradients' norm is found first, without waiting for it: their factor is applied, and a norm that is not finite keeps
    /// everything as it was. Returns that norm, for later.
    pub(super) fn adamw_items(
        &self,
        step: AdamW,
        items: &mut [AdamWItem<'_, CudaBuffer>],
        clip: Option<Option<f64>>,
    ) -> Result<LaterNumber> {
        let shadows: Vec<_> = items.iter().map(|item| self.shadow_of(item.value)).collect();
        let list: Vec<_> = items
            .iter()
            .zip(&shadows)
            .map(|(item, shadow)| trained(item.value, item.grad, item.m, item.v, shadow.as_deref(), item.weight_decay))
            .collect();
        let norm = self.run_adamw(step, &list, clip)?;
        drop(list);
        for (item, shadow) in items.iter().zip(shadows) {
            if shadow.is_none() {
                self.refresh_operand(item.value)?;
            }
        }
        let Some(norm) = norm else { return Ok(Box::new(|| Ok(0.0))) };
        let later = norm.read_later()?;
        Ok(Box::new(move || Ok(f64::from(adamw::read_grad_norm(&later.get::<f32>()?)?.sum_squares).sqrt())))
    }

    /// The launches; with `clip` the norm is in what is returned.
    pub(super) fn run_adamw(
        &self,
        step: AdamW,
        list: &[Trained<'_>],
        clip: Option<Option<f64>>,
    ) -> Result<Option<Buf>> {
        if list.is_empty() {
            return Ok(None);
        }
        let table = AdamWTable::for_step(&self.device, list, step)?;
        let norm = match clip {
            Some(most) => {
                let mut norm = self.buf(DType::F32, GRAD_NORM_LEN)?;
                adamw::grad_norm(&self.device, &table, most.unwrap_or(0.0), &mut norm)?;
                Some(norm)
            }
            None => None,
        };
        adamw::adamw_step(&self.device, &table, norm.as_ref())?;
        Ok(norm)
    }

    /// A value's copy that the optimiser can write, if it has one without padding.
    pub(super) fn shadow_of(&self, value: &CudaBuffer) -> Option<Rc<Buf>> {
        value.operand.borrow().as_ref().filter(|copy| copy.buf.len() == value.len).map(|copy| copy.buf.clone())
    }

    /// The sum of squares over several f32 buffers, in a fixed order.
    pub(super) fn run_sum_squares(&self, list: &[&CudaBuffer]) -> Result<f64> {
        if list.is_empty() {
            return Ok(0.0);
        }
        let list: Vec<_> = list.iter().map(|buffer| trained(buffer, buffer, buffer, buffer, None, 0.0)).collect();
        let table = AdamWTable::new(&self.device, &list)?;
        let mut result = self.buf(DType::F32, GRAD_NORM_LEN)?;
        adamw::grad_norm(&self.device, &table, 0.0, &mut result)?;
        let norm = adamw::read_grad_norm(&result.to_f32()?)?;
        Ok(f64::from(norm.sum_squares))
    }
}

/// One line of the table.
pub(super) fn trained<'a>(
    value: &'a CudaBuffer,
    grad: &'a CudaBuffer,
    m: &'a CudaBuffer,
    v: &'a CudaBuffer,
    shadow: Option<&'a Buf>,
    weight_decay: f64,
) -> Trained<'a> {
    let (value, length) = (&value.data, value.len);
    Trained { value, grad: &grad.data, m: &m.data, v: &v.data, shadow, length, weight_decay }
}
