//! The CPU backend: every operation on f32 with all cores. Work is cut by sizes alone and partial sums are added in order, so that the
//! result does not depend on the number of threads.

mod attention;
mod buffer;
mod dora;
mod elementwise;
mod gemm;
mod linear;
mod linear_backward;
mod linear_weight;
mod loss;
mod math;
mod mlp;
mod norm;
mod threads;
mod tokens;

pub use buffer::Buffer;

use crate::Result;
use crate::autograd::{
    AdamW, Adapter, AdapterDims, AttentionDims, Backend, DoraAdapter, GainBackward, GainGrads, LinearBackward,
    LinearDims, LinearGrads, LinearOutput, NormBackward, SumTo, Sums, TokenDims, TreeLoss,
};

/// The CPU; a clone shares its threads and its memory.
#[derive(Clone, Debug)]
pub struct Cpu {
    threads: threads::Threads,
    pool: buffer::Pool,
}

impl Cpu {
    /// A backend of `threads` threads, by default one a core. Fails when they cannot be started.
    pub fn new(threads: Option<usize>) -> Result<Self> {
        Ok(Self { threads: threads::Threads::new(threads)?, pool: buffer::Pool::default() })
    }

    /// The block that a sum goes to, holding what it begins with.
    fn sum_block(&self, sums: &mut Sums<Buffer>, place: usize, len: usize) -> Buffer {
        match sums.take(place) {
            Some(SumTo { block, add: true }) => block,
            Some(SumTo { mut block, add: false }) => {
                block.fill(0.0);
                block
            }
            None => self.pool.zeros(len),
        }
    }

    fn loss_sum(&self, sums: &mut Sums<Buffer>, losses: Vec<f32>) -> Buffer {
        let mut sum = self.sum_block(sums, 0, 1);
        losses.iter().for_each(|loss| sum[0] += loss);
        sum
    }
}

impl Backend for Cpu {
    type Buffer = Buffer;
    type Recording = ();
    type Prepared = ();

    fn upload(&self, values: &[f32]) -> Result<Buffer> {
        Ok(self.pool.holding(values))
    }
    fn download(&self, buffer: &Buffer) -> Result<Vec<f32>> {
        Ok(buffer.to_vec())
    }
    fn len(&self, buffer: &Buffer) -> usize {
        (**buffer).len()
    }
    fn bytes(&self, buffer: &Buffer) -> usize {
        size_of_val(&**buffer)
    }
    fn peak_bytes(&self) -> u64 {
        self.pool.peak_bytes()
    }
    fn copy(&self, buffer: &Buffer) -> Result<Buffer> {
        Ok(self.pool.holding(buffer))
    }
    fn assign(&self, to: &mut Buffer, from: &Buffer) -> Result<()> {
        to.copy_from_slice(from);
        Ok(())
    }
    fn add_assign(&self, acc: &mut Buffer, x: &Buffer) -> Result<()> {
        elementwise::add_assign(self, acc, x);
        Ok(())
    }
    fn scale_assign(&self, x: &mut Buffer, factor: f64) -> Result<()> {
        elementwise::scale_assign(self, x, factor as f32);
        Ok(())
    }
    fn sum_squares(&self, x: &Buffer) -> Result<f64> {
        Ok(elementwise::sum_squares(self, x))
    }
    fn patches(&self, images: &[u8], batch: usize, size: usize, patch: usize) -> Result<Buffer> {
        Ok(tokens::patches(self, images, batch, size, patch))
    }
    fn linear(
        &self,
        dims: LinearDims,
        x: &Buffer,
        w: &Buffer,
        bias: Option<&Buffer>,
        adapters: &[Adapter<'_, Buffer>],
    ) -> Result<LinearOutput<Buffer>> {
        Ok(linear::linear(self, dims, x, w, bias.map(|bias| &bias[..]), adapters))
    }
    fn linear_backward(&self, args: LinearBackward<'_, Buffer>, sums: Sums<Buffer>) -> Result<LinearGrads<Buffer>> {
        Ok(linear_backward::linear_backward(self, &args, sums))
    }
    fn dora_gains(&self, list: &[DoraAdapter<'_, Buffer>]) -> Result<Vec<(Buffer, Buffer)>> {
        Ok(list.iter().map(|adapter| dora::gain(self, adapter)).collect())
    }
    fn dora_gains_backward(
        &self,
        list: &[GainBackward<'_, Buffer>],
        mut sums: Sums<Buffer>,
    ) -> Result<Vec<GainGrads<Buffer>>> {
        let gradients = list.iter().enumerate().map(|(place, gain)| {
            let (dm, dn) = dora::gain_backward(self, gain);
            (sums.finish(place, dm, |to, dm| elementwise::add_assign(self, to, dm)), dn)
        });
        Ok(gradients.collect())
    }
    #[allow(clippy::too_many_arguments)]
    fn dora_norm_backward(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &Buffer,
        a: &Buffer,
        b: &Buffer,
        norm: &Buffer,
        dnorm: &Buffer,
    ) -> Result<(Buffer, Buffer)> {
        Ok(dora::dora_norm_backward(self, dims, k, &dora::NormInputs { w, a, b, norm, dnorm }))
    }
    fn merge(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &mut Buffer,
        a: &Buffer,
        b: &Buffer,
        gain: Option<&Buffer>,
    ) -> Result<()> {
        dora::merge(self, dims, k, w, (a, b), gain.map(|gain| &gain[..]));
        Ok(())
    }
    fn dropout(&self, x: &Buffer, p: f64, seed: u64, first: u64) -> Result<Buffer> {
        Ok(elementwise::dropout(self, x, p, seed, first))
    }
    fn attention(&self, dims: AttentionDims, qkv: &Buffer) -> Result<(Buffer, Buffer)> {
        Ok(attention::attention(self, dims, qkv))
    }
    fn attention_backward(
        &self,
        dims: AttentionDims,
        qkv: &Buffer,
        out: &Buffer,
        log_sum_exp: &Buffer,
        dout: &Buffer,
    ) -> Result<Buffer> {
        Ok(attention::attention_backward(self, dims, qkv, out, log_sum_exp, dout))
    }
    fn layer_norm(
        &self,
        rows: usize,
        cols: usize,
        x: &Buffer,
        weight: &Buffer,
        bias: &Buffer,
        eps: f64,
    ) -> Result<(Buffer, Buffer, Buffer)> {
        Ok(norm::layer_norm(self, (rows, cols), x, weight, bias, eps))
    }
    #[allow(clippy::type_complexity)]
    fn layer_norm_backward(
        &self,
        args: NormBackward<'_, Buffer>,
        need: (bool, bool),
        sums: Sums<Buffer>,
    ) -> Result<(Option<Buffer>, Option<(Buffer, Buffer)>)> {
        Ok(norm::layer_norm_backward(self, &args, need, sums))
    }
    fn gelu(&self, x: &Buffer) -> Result<Buffer> {
        Ok(mlp::gelu(self, x))
    }
    fn gelu_backward(&self, x: &Buffer, dy: &Buffer) -> Result<Buffer> {
        Ok(mlp::gelu_backward(self, x, dy))
    }
    fn swiglu(&self, _rows: usize, width: usize, h: &Buffer) -> Result<Buffer> {
        Ok(mlp::swiglu(self, width, h))
    }
    fn swiglu_backward(&self, _rows: usize, width: usize, h: &Buffer, dy: &Buffer) -> Result<Buffer> {
        Ok(mlp::swiglu_backward(self, width, h, dy))
    }
    fn layer_scale(&self, _rows: usize, cols: usize, x: &Buffer, h: &Buffer, gamma: &Buffer) -> Result<Buffer> {
        Ok(mlp::layer_scale(self, cols, x, h, gamma))
    }
    #[allow(clippy::type_complexity)]
    fn layer_scale_backward(
        &self,
        _rows: usize,
        cols: usize,
        h: Option<&Buffer>,
        gamma: &Buffer,
        dy: &Buffer,
        need: (bool, bool),
        sums: Sums<Buffer>,
    ) -> Result<(Option<Buffer>, Option<Buffer>)> {
        Ok(mlp::layer_scale_backward(self, cols, h.map(|h| &h[..]), gamma, dy, need, sums))
    }
    fn resample_positions(
        &self,
        from: usize,
        to: usize,
        width: usize,
        pos: &Buffer,
        matrix: &Buffer,
    ) -> Result<Buffer> {
        Ok(tokens::resample_positions(self, (from, to), width, pos, matrix))
    }
    fn resample_positions_backward(
        &self,
        from: usize,
        to: usize,
        width: usize,
        matrix: &Buffer,
        dy: &Buffer,
    ) -> Result<Buffer> {
        Ok(tokens::resample_positions_backward(self, (from, to), width, matrix, dy))
    }
    fn assemble_tokens(
        &self,
        dims: TokenDims,
        patches: &Buffer,
        cls: &Buffer,
        pos: &Buffer,
        registers: Option<&Buffer>,
    ) -> Result<Buffer> {
        Ok(tokens::assemble_tokens(self, dims, patches, cls, pos, registers.map(|r| &r[..])))
    }
    #[allow(clippy::type_complexity)]
    fn assemble_tokens_backward(
        &self,
        dims: TokenDims,
        dy: &Buffer,
        sums: Sums<Buffer>,
    ) -> Result<(Buffer, Buffer, Buffer, Option<Buffer>)> {
        Ok(tokens::assemble_tokens_backward(self, dims, dy, sums))
    }
    fn pool(&self, dims: TokenDims, with_mean: bool, x: &Buffer) -> Result<Buffer> {
        Ok(tokens::pool(self, dims, with_mean, x))
    }
    fn pool_backward(&self, dims: TokenDims, with_mean: bool, dy: &Buffer) -> Result<Buffer> {
        Ok(tokens::pool_backward(self, dims, with_mean, dy))
    }
    fn cross_entropy(
        &self,
        classes: usize,
        logits: &Buffer,
        labels: &Buffer,
        weights: Option<&Buffer>,
        smoothing: f64,
        denominator: f64,
        mut sums: Sums<Buffer>,
    ) -> Result<(Buffer, Buffer)> {
        let rows = sums.granule(labels.len());
        let weights = weights.map(|weights| &weights[..]);
        let (losses, dlogits) = loss::cross_entropy(classes, logits, labels, weights, smoothing, denominator, rows);
        Ok((self.loss_sum(&mut sums, losses), self.pool.holding(&dlogits)))
    }
    fn binary_cross_entropy(
        &self,
        logits: &Buffer,
        targets: &Buffer,
        denominator: f64,
        mut sums: Sums<Buffer>,
    ) -> Result<(Buffer, Buffer)> {
        let (losses, dlogits) = loss::binary_cross_entropy(logits, targets, denominator, sums.granule(targets.len()));
        Ok((self.loss_sum(&mut sums, losses), self.pool.holding(&dlogits)))
    }
    fn tree_loss(
        &self,
        loss: TreeLoss,
        logits: &Buffer,
        targets: &Buffer,
        begins: &Buffer,
        denominator: f64,
        mut sums: Sums<Buffer>,
    ) -> Result<(Buffer, Buffer)> {
        let rows = sums.granule(logits.len() / loss.cols.max(1));
        let (losses, dlogits) = loss::tree_loss(loss, begins, logits, targets, denominator, rows);
        Ok((self.loss_sum(&mut sums, losses), self.pool.holding(&dlogits)))
    }
    fn adamw(&self, step: AdamW, value: &mut Buffer, grad: &Buffer, m: &mut Buffer, v: &mut Buffer) -> Result<()> {
        elementwise::adamw(self, step, value, grad, m, v);
        Ok(())
    }
}
