//! Adapters as matrix products read them: rounded, padded to a multiple of 16 ranks, made from the masters in each pass.

use super::{Cuda, CudaBuffer};
use crate::Result;
use crate::autograd::Adapter;
use crate::gpu::{Buf, DType};
use crate::kernels::adapter_pack::{AdapterPack, adapter_pack, padded_rank};

/// What the forward pass reads of one adapter.
pub(super) struct Packed {
    /// The rank rounded up.
    pub(super) rank: usize,
    /// A \[rank, k\].
    pub(super) a: Buf,
    /// B \[rows, rank\].
    pub(super) b: Buf,
}

/// What the backward pass reads of some adapters of one linear.
pub(super) struct PackedBackward {
    /// All A below each other \[sum of ranks, k\].
    pub(super) a: Buf,
    /// s g B of each \[rows, rank\].
    pub(super) bg: Vec<Buf>,
    /// The sum of the padded ranks.
    pub(super) width: usize,
}

impl Cuda {
    /// For the forward pass.
    pub(super) fn pack(&self, k: usize, adapters: &[Adapter<'_, CudaBuffer>], dtype: DType) -> Result<Vec<Packed>> {
        let mut packed = Vec::with_capacity(adapters.len());
        for adapter in adapters {
            let rank = padded_rank(adapter.dims.rank);
            packed.push(Packed { rank, a: self.buf(dtype, rank * k)?, b: self.buf(dtype, adapter.dims.rows * rank)? });
        }
        let mut items: Vec<_> = adapters
            .iter()
            .zip(&mut packed)
            .map(|(adapter, Packed { a, b, .. })| AdapterPack {
                a_packed: Some(a),
                b_packed: Some(b),
                ..masters(adapter)
            })
            .collect();
        if !items.is_empty() {
            adapter_pack(&self.device, dtype, k, &mut items, None)?;
        }
        Ok(packed)
    }

    /// For the backward pass; at least one adapter. Under dropout s g B is the same.
    pub(super) fn pack_backward(
        &self,
        k: usize,
        adapters: &[Adapter<'_, CudaBuffer>],
        dtype: DType,
    ) -> Result<PackedBackward> {
        let width = adapters.iter().map(|adapter| padded_rank(adapter.dims.rank)).sum();
        let mut a = self.buf(dtype, width * k)?;
        let mut bg = Vec::with_capacity(adapters.len());
        for adapter in adapters {
            bg.push(self.buf(dtype, adapter.dims.rows * padded_rank(adapter.dims.rank))?);
        }
        let mut items: Vec<_> = adapters
            .iter()
            .zip(&mut bg)
            .map(|(adapter, bg)| AdapterPack { bg_packed: Some(bg), ..masters(adapter) })
            .collect();
        adapter_pack(&self.device, dtype, k, &mut items, Some(&mut a))?;
        Ok(PackedBackward { a, bg, width })
    }
}

fn masters<'a>(adapter: &Adapter<'a, CudaBuffer>) -> AdapterPack<'a> {
    AdapterPack {
        rows: adapter.dims.rows,
        rank: adapter.dims.rank,
        scale: adapter.dims.scale as f32,
        a: &adapter.a.data,
        b: &adapter.b.data,
        gain: adapter.gain.map(|gain| &gain.data),
        a_packed: None,
        b_packed: None,
        bg_packed: None,
    }
}
