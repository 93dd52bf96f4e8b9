//! AdamW and the gradient's norm over all trained values at once.

use std::rc::Rc;

use super::{Cuda, CudaBuffer};
use crate::Result;
use crate::autograd::{AdamW, AdamWItem};
use crate::gpu::{Buf, DType};
use crate::kernels::adamw::{self, AdamWTable, GRAD_NORM_LEN, Trained};

impl Cuda {
    /// One step of every item in one launch, which also writes the copies that products read; padded ones are made anew after it.
    pub(super) fn run_adamw(&self, step: AdamW, items: &mut [AdamWItem<'_, CudaBuffer>]) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let shadows: Vec<Option<Rc<Buf>>> = items
            .iter()
            .map(|item| {
                let copy = item.value.operand.borrow();
                copy.as_ref().filter(|copy| copy.buf.len() == item.value.len).map(|copy| copy.buf.clone())
            })
            .collect();
        let list: Vec<_> = items
            .iter()
            .zip(&shadows)
            .map(|(item, shadow)| Trained {
                value: &item.value.data,
                grad: &item.grad.data,
                m: &item.m.data,
                v: &item.v.data,
                shadow: shadow.as_deref(),
                length: item.value.len,
                weight_decay: item.weight_decay,
            })
            .collect();
        let table = AdamWTable::new(&self.device, &list)?;
        let hyper = Buf::from_f32(&self.device, &adamw::hyper(step), DType::F32)?;
        adamw::adamw_multi(&self.device, &table, &hyper, None)?;
        drop(list);
        for (item, shadow) in items.iter().zip(shadows) {
            if shadow.is_none() {
                self.refresh_operand(item.value)?;
            }
        }
        Ok(())
    }

    /// The sum of squares over several f32 buffers, in a fixed order.
    pub(super) fn run_sum_squares(&self, list: &[&CudaBuffer]) -> Result<f64> {
        if list.is_empty() {
            return Ok(0.0);
        }
        let list: Vec<_> = list
            .iter()
            .map(|buffer| Trained {
                value: &buffer.data,
                grad: &buffer.data,
                m: &buffer.data,
                v: &buffer.data,
                shadow: None,
                length: buffer.len,
                weight_decay: 0.0,
            })
            .collect();
        let table = AdamWTable::new(&self.device, &list)?;
        let mut result = self.buf(DType::F32, GRAD_NORM_LEN)?;
        adamw::grad_norm(&self.device, &table, 0.0, &mut result)?;
        let norm = adamw::read_grad_norm(&result.to_f32()?)?;
        Ok(f64::from(norm.sum_squares))
    }
}
