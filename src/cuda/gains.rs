//! DoRA's gains of all adapters at once, forward and back: a launch each for every 48 of them.

use super::{Cuda, CudaBuffer};
use crate::Result;
use crate::autograd::{AdapterDims, DoraAdapter, GainBackward, GainGrads, Sums};
use crate::gpu::DType;
use crate::kernels::dora_norm::{AdapterRows, DoraNormItem, dora_norm_batched};
use crate::kernels::magnitude_rescale::{GainGradients, magnitude_rescale_backward};

impl Cuda {
    pub(super) fn run_dora_gains(&self, list: &[DoraAdapter<'_, CudaBuffer>]) -> Result<Vec<(CudaBuffer, CudaBuffer)>> {
        if list.is_empty() {
            return Ok(Vec::new());
        }
        let mut made = Vec::with_capacity(list.len());
        for adapter in list {
            let rows = adapter.dims.rows;
            made.push((self.buf(DType::F32, rows)?, self.buf(DType::F32, rows)?));
        }
        let items = list.iter().zip(&mut made).map(|(adapter, (norm, gain))| DoraNormItem {
            adapter: adapter_rows(adapter.dims, adapter.k),
            w: &adapter.w.data,
            a: &adapter.a.data,
            b: &adapter.b.data,
            norm,
            gain: Some((&adapter.magnitude.data, gain)),
        });
        dora_norm_batched(&self.device, &mut items.collect::<Vec<_>>())?;
        Ok(made.into_iter().map(|(norm, gain)| (CudaBuffer::new(norm), CudaBuffer::new(gain))).collect())
    }

    pub(super) fn run_dora_gains_backward(
        &self,
        list: &[GainBackward<'_, CudaBuffer>],
        mut sums: Sums<CudaBuffer>,
    ) -> Result<Vec<GainGrads<CudaBuffer>>> {
        let mut made = Vec::with_capacity(list.len());
        for (place, gain) in list.iter().enumerate() {
            let (count, mut add) = (gain.magnitude.len, false);
            let [dm] = self.sum_blocks(&mut sums, [(place, count)], &mut add)?;
            let dn = gain.need_norm.then(|| self.buf(DType::F32, count)).transpose()?;
            made.push((dm, dn, add));
        }
        let gains = list.iter().zip(&mut made).map(|(gain, (dmagnitude, dnorm, add))| GainGradients {
            count: gain.magnitude.len,
            magnitude: &gain.magnitude.data,
            norm: &gain.norm.data,
            dgain: &gain.dgain.data,
            dmagnitude,
            add: *add,
            dnorm: dnorm.as_mut(),
        });
        let mut gains = gains.collect::<Vec<_>>();
        magnitude_rescale_backward(&self.device, &mut gains)?;
        drop(gains);
        Ok(made.into_iter().map(|(dm, dn, _)| (CudaBuffer::new(dm), dn.map(CudaBuffer::new))).collect())
    }
}

pub(super) fn adapter_rows(dims: AdapterDims, k: usize) -> AdapterRows {
    let AdapterDims { first_row, rows, rank, scale } = dims;
    AdapterRows { first_row, rows, cols: k, rank, scale: scale as f32 }
}
