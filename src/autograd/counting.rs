//! A backend that computes nothing and counts: every operation only makes blocks of the right length, and a ledger knows how many bytes live at
//! once. A training step run on it is that step's memory plan, by construction.

use std::cell::Cell;
use std::rc::Rc;

use super::{
    AdamW, Adapter, AdapterDims, AdapterGrads, AttentionDims, Backend, DoraAdapter, GainBackward, GainGrads,
    LinearBackward, LinearDims, LinearGrads, LinearOutput, NormBackward, Sums, TokenDims, TreeLoss,
};
use crate::Result;

/// Bytes alive now and at most.
#[derive(Debug, Default)]
struct Ledger {
    live: Cell<usize>,
    peak: Cell<usize>,
}

/// The counting backend, of 4-byte numbers as the CPU's.
#[derive(Clone, Debug, Default)]
pub struct Counting {
    ledger: Rc<Ledger>,
}

/// A block that is a length.
#[derive(Debug)]
pub struct Block {
    len: usize,
    ledger: Rc<Ledger>,
}

impl Drop for Block {
    fn drop(&mut self) {
        self.ledger.live.set(self.ledger.live.get() - self.len * size_of::<f32>());
    }
}

impl Counting {
    /// A ledger of zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// A block of `len` numbers, counted.
    pub fn block(&self, len: usize) -> Block {
        let live = self.ledger.live.get() + len * size_of::<f32>();
        self.ledger.live.set(live);
        self.ledger.peak.set(self.ledger.peak.get().max(live));
        Block { len, ledger: self.ledger.clone() }
    }

    fn like(&self, other: &Block) -> Block {
        self.block(other.len)
    }
}

impl Backend for Counting {
    type Buffer = Block;
    type Recording = ();
    type Prepared = ();

    fn upload(&self, values: &[f32]) -> Result<Block> {
        Ok(self.block(values.len()))
    }

    /// Zeros: nothing that decides a size may depend on a value.
    fn download(&self, buffer: &Block) -> Result<Vec<f32>> {
        Ok(vec![0.0; buffer.len])
    }

    fn len(&self, buffer: &Block) -> usize {
        buffer.len
    }

    fn bytes(&self, buffer: &Block) -> usize {
        buffer.len * size_of::<f32>()
    }

    fn forget_peak(&self) {
        self.ledger.peak.set(self.ledger.live.get());
    }

    fn peak_bytes(&self) -> u64 {
        self.ledger.peak.get() as u64
    }

    fn live_bytes(&self) -> u64 {
        self.ledger.live.get() as u64
    }

    fn copy(&self, buffer: &Block) -> Result<Block> {
        Ok(self.like(buffer))
    }

    fn add_assign(&self, _acc: &mut Block, _x: &Block) -> Result<()> {
        Ok(())
    }

    fn scale_assign(&self, _x: &mut Block, _factor: f64) -> Result<()> {
        Ok(())
    }

    fn sum_squares(&self, _x: &Block) -> Result<f64> {
        Ok(0.0)
    }

    fn patches(&self, _images: &[u8], batch: usize, size: usize, patch: usize) -> Result<Block> {
        let side = size / patch;
        Ok(self.block(batch * side * side * 3 * patch * patch))
    }

    fn linear(
        &self,
        dims: LinearDims,
        _x: &Block,
        _w: &Block,
        _bias: Option<&Block>,
        adapters: &[Adapter<'_, Block>],
    ) -> Result<LinearOutput<Block>> {
        let z = |a: &Adapter<'_, Block>| {
            (a.gain.is_some() && a.dropped.is_some()).then(|| self.block(dims.m * a.dims.rows))
        };
        Ok(LinearOutput {
            y: self.block(dims.m * dims.n),
            t: adapters.iter().map(|a| self.block(dims.m * a.dims.rank)).collect(),
            z: adapters.iter().map(z).collect(),
        })
    }

    fn linear_backward(&self, args: LinearBackward<'_, Block>, mut sums: Sums<Block>) -> Result<LinearGrads<Block>> {
        let LinearDims { m, k, n } = args.dims;
        // The effective weights that dy is multiplied by: one for all adapters without dropout, the branch of each DoRA with it.
        let effective = args.need_x.then(|| {
            let merged = args.adapters.iter().any(|a| a.dropped.is_none()).then(|| self.block(n * k));
            let is_branch = |a: &&Adapter<'_, Block>| a.dropped.is_some() && a.gain.is_some();
            let branches = args.adapters.iter().filter(is_branch).map(|a| self.block(a.dims.rows * k));
            (merged, branches.collect::<Vec<_>>())
        });
        let x = args.need_x.then(|| self.block(m * k));
        let dropped = |a: &Adapter<'_, Block>| (args.need_x && a.dropped.is_some()).then(|| self.block(m * k));
        let dropped: Vec<_> = args.adapters.iter().map(dropped).collect();
        drop(effective);
        let mut sum = |place, length: usize| sums.take(place).map_or_else(|| self.block(length), |to| to.block);
        let w = args.need_w.then(|| sum(0, n * k));
        let bias = args.need_bias.then(|| sum(1, n));
        let mut adapters = Vec::new();
        for (index, (a, dropped)) in args.adapters.iter().zip(dropped).enumerate() {
            let mut of = |offset, length| args.need_adapter.then(|| sum(2 + 3 * index + offset, length));
            let (da, db) = (of(0, a.dims.rank * k), of(1, a.dims.rows * a.dims.rank));
            let gain = a.gain.and_then(|_| of(2, a.dims.rows));
            adapters.push(AdapterGrads { a: da, b: db, gain, dropped });
        }
        Ok(LinearGrads { x, w, bias, adapters })
    }

    fn dora_gains(&self, list: &[DoraAdapter<'_, Block>]) -> Result<Vec<(Block, Block)>> {
        Ok(list.iter().map(|adapter| (self.block(adapter.dims.rows), self.block(adapter.dims.rows))).collect())
    }

    fn dora_gains_backward(
        &self,
        list: &[GainBackward<'_, Block>],
        mut sums: Sums<Block>,
    ) -> Result<Vec<GainGrads<Block>>> {
        let gradients = list.iter().enumerate().map(|(place, gain)| {
            let dn = gain.need_norm.then(|| self.like(gain.magnitude));
            (sums.take(place).map_or_else(|| self.like(gain.magnitude), |to| to.block), dn)
        });
        Ok(gradients.collect())
    }

    fn dora_norm_backward(
        &self,
        _dims: AdapterDims,
        _k: usize,
        _w: &Block,
        a: &Block,
        b: &Block,
        _norm: &Block,
        _dnorm: &Block,
    ) -> Result<(Block, Block)> {
        Ok((self.like(a), self.like(b)))
    }

    fn merge(
        &self,
        _dims: AdapterDims,
        _k: usize,
        _w: &mut Block,
        _a: &Block,
        _b: &Block,
        _gain: Option<&Block>,
    ) -> Result<()> {
        Ok(())
    }

    fn dropout(&self, x: &Block, _p: f64, _seed: u64, _first: u64) -> Result<Block> {
        Ok(self.like(x))
    }

    fn attention(&self, dims: AttentionDims, qkv: &Block) -> Result<(Block, Block)> {
        Ok((self.block(qkv.len / 3), self.block(dims.batch * dims.heads * dims.tokens)))
    }

    fn attention_backward(
        &self,
        _dims: AttentionDims,
        qkv: &Block,
        _out: &Block,
        _log_sum_exp: &Block,
        _dout: &Block,
    ) -> Result<Block> {
        Ok(self.like(qkv))
    }

    fn layer_norm(
        &self,
        rows: usize,
        _cols: usize,
        x: &Block,
        _weight: &Block,
        _bias: &Block,
        _eps: f64,
    ) -> Result<(Block, Block, Block)> {
        Ok((self.like(x), self.block(rows), self.block(rows)))
    }

    fn layer_norm_backward(
        &self,
        args: NormBackward<'_, Block>,
        need: (bool, bool),
        mut sums: Sums<Block>,
    ) -> Result<(Option<Block>, Option<(Block, Block)>)> {
        let mut sum = |place| sums.take(place).map_or_else(|| self.block(args.cols), |to| to.block);
        Ok((need.0.then(|| self.like(args.x)), need.1.then(|| (sum(0), sum(1)))))
    }

    fn gelu(&self, x: &Block) -> Result<Block> {
        Ok(self.like(x))
    }

    fn gelu_backward(&self, x: &Block, _dy: &Block) -> Result<Block> {
        Ok(self.like(x))
    }

    fn swiglu(&self, rows: usize, width: usize, _h: &Block) -> Result<Block> {
        Ok(self.block(rows * width))
    }

    fn swiglu_backward(&self, _rows: usize, _width: usize, h: &Block, _dy: &Block) -> Result<Block> {
        Ok(self.like(h))
    }

    fn layer_scale(&self, _rows: usize, _cols: usize, x: &Block, _h: &Block, _gamma: &Block) -> Result<Block> {
        Ok(self.like(x))
    }

    fn layer_scale_backward(
        &self,
        _rows: usize,
        cols: usize,
        _h: Option<&Block>,
        _gamma: &Block,
        dy: &Block,
        need: (bool, bool),
        mut sums: Sums<Block>,
    ) -> Result<(Option<Block>, Option<Block>)> {
        let dgamma = need.1.then(|| sums.take(0).map_or_else(|| self.block(cols), |to| to.block));
        Ok((need.0.then(|| self.like(dy)), dgamma))
    }

    fn resample_positions(
        &self,
        _from: usize,
        to: usize,
        width: usize,
        _pos: &Block,
        _matrix: &Block,
    ) -> Result<Block> {
        Ok(self.block((1 + to) * width))
    }

    fn resample_positions_backward(
        &self,
        from: usize,
        _to: usize,
        width: usize,
        _matrix: &Block,
        _dy: &Block,
    ) -> Result<Block> {
        Ok(self.block((1 + from) * width))
    }

    fn assemble_tokens(
        &self,
        dims: TokenDims,
        _patches: &Block,
        _cls: &Block,
        _pos: &Block,
        _registers: Option<&Block>,
    ) -> Result<Block> {
        Ok(self.block(dims.batch * dims.tokens() * dims.width))
    }

    fn assemble_tokens_backward(
        &self,
        dims: TokenDims,
        _dy: &Block,
        mut sums: Sums<Block>,
    ) -> Result<(Block, Block, Block, Option<Block>)> {
        let mut sum = |place, length: usize| sums.take(place).map_or_else(|| self.block(length), |to| to.block);
        let registers = (dims.registers > 0).then(|| sum(2, dims.registers * dims.width));
        let patches = self.block(dims.batch * dims.patches * dims.width);
        Ok((patches, sum(0, dims.width), sum(1, (1 + dims.patches) * dims.width), registers))
    }

    fn pool(&self, dims: TokenDims, with_mean: bool, _x: &Block) -> Result<Block> {
        Ok(self.block(dims.batch * dims.width * (1 + usize::from(with_mean))))
    }

    fn pool_backward(&self, dims: TokenDims, _with_mean: bool, _dy: &Block) -> Result<Block> {
        Ok(self.block(dims.batch * dims.tokens() * dims.width))
    }

    fn cross_entropy(
        &self,
        _classes: usize,
        logits: &Block,
        _labels: &Block,
        _weights: Option<&Block>,
        _smoothing: f64,
        _denominator: f64,
        mut sums: Sums<Block>,
    ) -> Result<(Block, Block)> {
        Ok((sums.take(0).map_or_else(|| self.block(1), |to| to.block), self.like(logits)))
    }

    fn binary_cross_entropy(
        &self,
        logits: &Block,
        _targets: &Block,
        _denominator: f64,
        mut sums: Sums<Block>,
    ) -> Result<(Block, Block)> {
        Ok((sums.take(0).map_or_else(|| self.block(1), |to| to.block), self.like(logits)))
    }

    fn tree_loss(
        &self,
        _loss: TreeLoss,
        logits: &Block,
        _targets: &Block,
        _begins: &Block,
        _denominator: f64,
        mut sums: Sums<Block>,
    ) -> Result<(Block, Block)> {
        Ok((sums.take(0).map_or_else(|| self.block(1), |to| to.block), self.like(logits)))
    }

    fn adamw(&self, _step: AdamW, _value: &mut Block, _grad: &Block, _m: &mut Block, _v: &mut Block) -> Result<()> {
        Ok(())
    }
}
