//! What a matrix product's buffers must be, and its launch parameters.

use super::{Epilogue, Layout, LoraAdapter, MAX_ADAPTERS, MAX_RANK_IN_LOOP, Matmul, RankProduct};
use crate::gpu::{Buf, DType, Device};
use crate::kernels::check::{dimension, length};
use crate::kernels::cut::Rows;
use crate::kernels::params::{PeftkGemmAdapter, PeftkGemmParams};
use crate::{Error, Result};

impl Matmul<'_> {
    /// That every buffer is what the kernel of this layout, dtype and epilogue takes.
    pub(super) fn check(&self, device: &Device, c: &Buf) -> Result<()> {
        let Self { layout, m, n, k, .. } = *self;
        let op = "matmul";
        let dtype = self.a.buf.dtype();
        if !matches!(dtype, DType::F32 | DType::Bf16) {
            return Err(Error::shape("matmul A", "f32 or bf16", dtype));
        }
        let fits = match self.epilogue {
            Epilogue::Plain => true,
            Epilogue::Gelu { .. } | Epilogue::ScaleResidual { .. } => layout == Layout::Nt,
            Epilogue::GeluBackward { .. } => layout == Layout::Nn,
        };
        let fused = self.second.is_some() || self.bias.is_some();
        if !fits || (layout == Layout::Tn && fused) || (layout != Layout::Nt && !self.adapters.is_empty()) {
            return Err(Error::Internal(format!("matmul {layout:?}: no kernel fuses this: {:?}", self.epilogue)));
        }
        let (a_rows, a_cols) = if layout == Layout::Tn { (k, m) } else { (m, k) };
        let (b_rows, b_cols) = if layout == Layout::Nt { (n, k) } else { (k, n) };
        for (name, operand, rows, cols) in [("A", &self.a, a_rows, a_cols), ("B", &self.b, b_rows, b_cols)] {
            if operand.stride < cols {
                return Err(Error::shape(
                    format!("matmul {name}'s stride"),
                    format!("at least {cols}"),
                    operand.stride,
                ));
            }
            length(op, name, operand.buf, device, dtype, operand.first + (rows - 1) * operand.stride + cols)?;
        }
        if let Some(second) = &self.second {
            length(op, "A2", second.a, device, dtype, m * second.k)?;
            length(op, "B2", second.b, device, dtype, n * second.k)?;
        }
        if let Some(bias) = self.bias {
            length(op, "bias", bias, device, DType::F32, n)?;
        }
        let mut c_dtype = if layout == Layout::Tn { DType::F32 } else { dtype };
        match &self.epilogue {
            Epilogue::Plain | Epilogue::Gelu { aux: None } => {}
            Epilogue::Gelu { aux: Some(aux) } => length(op, "aux", aux, device, dtype, m * n)?,
            Epilogue::GeluBackward { aux } => length(op, "aux", aux, device, dtype, m * n)?,
            Epilogue::ScaleResidual { residual, gamma } => {
                if dtype == DType::Bf16 && residual.dtype() == DType::F32 {
                    c_dtype = DType::F32;
                }
                length(op, "residual", residual, device, c_dtype, m * n)?;
                length(op, "gamma", gamma, device, DType::F32, n)?;
            }
        }
        self.check_adapters(device, dtype)?;
        if let Some((rows, cols)) = self.sum.size
            && (rows > m || cols > n)
        {
            return Err(Error::shape("matmul's C", format!("at most [{m}, {n}]"), [rows, cols]));
        }
        let size = if layout == Layout::Tn { self.size() } else { (m, n) };
        if let Some(gain) = self.sum.gain {
            length(op, "gain", gain, device, DType::F32, size.0)?;
        }
        length(op, "C", c, device, c_dtype, size.0 * size.1)
    }

    fn check_adapters(&self, device: &Device, dtype: DType) -> Result<()> {
        let op = "matmul's adapter";
        if self.adapters.len() > MAX_ADAPTERS {
            return Err(Error::shape("matmul's adapters", format!("at most {MAX_ADAPTERS}"), self.adapters.len()));
        }
        let mut free_from = 0;
        for adapter in &self.adapters {
            let LoraAdapter { first_row, rows, rank_padded, .. } = *adapter;
            if first_row < free_from || rows == 0 || first_row + rows > self.n {
                let found = format!("{first_row} .. {}", first_row + rows);
                return Err(Error::shape(
                    format!("{op}'s columns"),
                    format!("within {free_from} .. {}", self.n),
                    found,
                ));
            }
            free_from = first_row + rows;
            let in_loop = matches!(adapter.t, RankProduct::InLoop { .. });
            if rank_padded == 0 || rank_padded % 16 != 0 || (in_loop && rank_padded > MAX_RANK_IN_LOOP) {
                return Err(Error::shape(
                    format!("{op}'s padded rank"),
                    "a multiple of 16, in the loop 16 or 32",
                    rank_padded,
                ));
            }
            length(op, "B", adapter.b, device, dtype, rows * rank_padded)?;
            if let Some(gain) = adapter.gain {
                length(op, "gain", gain, device, DType::F32, rows)?;
            }
            match &adapter.t {
                RankProduct::InLoop { a, t } => {
                    length(op, "A", a, device, dtype, rank_padded * self.k)?;
                    if let Some(t) = t {
                        length(op, "t", t, device, dtype, self.m * rank_padded)?;
                    }
                }
                RankProduct::Given(t) => length(op, "t", t, device, dtype, self.m * rank_padded)?,
            }
        }
        Ok(())
    }

    /// The launch's parameters, of one part.
    pub(super) fn params(&self, c: &Buf) -> Result<PeftkGemmParams> {
        let size = |name: &str, size: usize| dimension("matmul", name, size);
        let mut adapters = [<PeftkGemmAdapter as bytemuck::Zeroable>::zeroed(); MAX_ADAPTERS];
        for (to, adapter) in adapters.iter_mut().zip(&self.adapters) {
            let (a, t) = match &adapter.t {
                RankProduct::InLoop { a, t } => (a.address(), t.as_ref().map_or(0, |t| t.address())),
                RankProduct::Given(t) => (0, t.address()),
            };
            *to = PeftkGemmAdapter {
                a,
                b: adapter.b.address(),
                gain: adapter.gain.map_or(0, Buf::address),
                t,
                scale: adapter.scale,
                // Within n, which is checked.
                first_row: adapter.first_row as u32,
                rows: adapter.rows as u32,
                rank_padded: size("padded rank", adapter.rank_padded)?,
            };
        }
        let (residual, gamma, aux) = match &self.epilogue {
            Epilogue::Plain => (0, 0, 0),
            Epilogue::Gelu { aux } => (0, 0, aux.as_deref().map_or(0, Buf::address)),
            Epilogue::GeluBackward { aux } => (0, 0, aux.address()),
            Epilogue::ScaleResidual { residual, gamma } => (residual.address(), gamma.address(), 0),
        };
        let k = size("k", self.k)?;
        Ok(PeftkGemmParams {
            a: self.a.address(),
            b: self.b.address(),
            a2: self.second.map_or(0, |second| second.a.address()),
            b2: self.second.map_or(0, |second| second.b.address()),
            c: c.address(),
            bias: self.bias.map_or(0, Buf::address),
            residual,
            gamma,
            aux,
            adapters,
            m: size("m", self.m)?,
            n: size("n", self.n)?,
            k,
            k2: self.second.map_or(Ok(0), |second| size("k2", second.k))?,
            lda: size("A's stride", self.a.stride)?,
            ldb: size("B's stride", self.b.stride)?,
            cut: Rows::all(self.k).cut("matmul", self.k)?,
        })
    }
}
