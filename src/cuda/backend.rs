//! Each operation of autograd's backend, as launches.

use super::buffer::OperandCopy;
use super::linear::{self, After, Forward};
use super::optimizer::trained;
use super::{Cuda, CudaBuffer, Prepared};
use crate::autograd::{
    AdamW, AdamWItem, Adapter, AdapterDims, AttentionDims, Backend, Crop, Images, LaterNumber, LinearAdapters,
    LinearBackward, LinearDims, LinearGrads, LinearOutput, NormBackward, NormGrads, Onto, Sums, TokenDims, TreeLoss,
};
use crate::gpu::{Buf, DType, Recording};
use crate::kernels::cut::Rows;
use crate::kernels::layer_norm::LayerNormDx;
use crate::kernels::{
    attention, dora_norm, dora_norm_backward, layer_norm, layer_scale, loss, magnitude_rescale, merge, pointwise,
    tokens,
};
use std::rc::Rc;

use crate::{Error, Result};

/// What [`crate::autograd::dropout_keeps`] adds to the seed for the next element.
const DROPOUT_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Backend for Cuda {
    type Buffer = CudaBuffer;
    type Recording = Recording;
    type Prepared = Rc<Prepared>;

    fn upload(&self, values: &[f32]) -> Result<CudaBuffer> {
        Ok(CudaBuffer::new(Buf::from_f32(&self.device, values, DType::F32)?))
    }

    fn download(&self, buffer: &CudaBuffer) -> Result<Vec<f32>> {
        if buffer.len != buffer.data.len() {
            return Err(Error::Internal("a padded block has no plain form".into()));
        }
        buffer.data.to_f32()
    }

    fn download_later(&self, buffer: &CudaBuffer) -> Result<LaterNumber> {
        let later = buffer.data.read_later()?;
        Ok(Box::new(move || Ok(later.get::<f32>()?.first().copied().map_or(f64::NAN, f64::from))))
    }

    fn max_dora_rank(&self) -> usize {
        dora_norm::MAX_RANK
    }

    fn write(&self, buffer: &mut CudaBuffer, values: &[f32]) -> Result<()> {
        buffer.data.write(values)?;
        self.refresh_operand(buffer)
    }

    fn prepare_weight(&self, w: &CudaBuffer, rows: usize) -> Result<()> {
        self.operand(w, rows, self.activations).map(drop)
    }

    fn release_values(&self, w: &mut CudaBuffer, rows: usize) -> Result<()> {
        let Some(copy) = w.operand.take() else { return Ok(()) };
        match Rc::try_unwrap(copy.buf) {
            Ok(buf) if copy.rows == rows => w.data = buf,
            // It is read just now: both stay.
            Ok(buf) => *w.operand.borrow_mut() = Some(OperandCopy { buf: Rc::new(buf), rows: copy.rows }),
            Err(buf) => *w.operand.borrow_mut() = Some(OperandCopy { buf, rows: copy.rows }),
        }
        Ok(())
    }

    fn prepare_adapters(
        &self,
        list: &[LinearAdapters<'_, CudaBuffer>],
        prepared: &mut Option<Rc<Prepared>>,
    ) -> Result<u64> {
        self.prepare(list, prepared)
    }

    fn release_adapters(&self) {
        self.release();
    }

    fn prepared_bytes(&self, prepared: &Rc<Prepared>) -> usize {
        prepared.bytes()
    }

    fn len(&self, buffer: &CudaBuffer) -> usize {
        buffer.len
    }

    fn bytes(&self, buffer: &CudaBuffer) -> usize {
        buffer.bytes()
    }

    fn copy(&self, buffer: &CudaBuffer) -> Result<CudaBuffer> {
        let mut copy = self.buf(buffer.dtype(), buffer.data.len())?;
        copy.copy_from(&buffer.data)?;
        Ok(CudaBuffer::padded(copy, buffer.len))
    }

    fn assign(&self, to: &mut CudaBuffer, from: &CudaBuffer) -> Result<()> {
        to.data.copy_from(&from.data)
    }

    fn peak_bytes(&self) -> u64 {
        self.device.usage().peak
    }

    fn forget_peak(&self) {
        self.device.forget_peak();
    }

    fn live_bytes(&self) -> u64 {
        self.device.usage().in_use
    }

    fn queues(&self) -> bool {
        true
    }

    fn records(&self) -> bool {
        self.device.records()
    }

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Recording>> {
        self.device.record(work)
    }

    fn replay(&self, recording: &Recording) -> Result<bool> {
        self.device.replay(recording)
    }

    fn place(&self, buffer: &CudaBuffer) -> u64 {
        buffer.place()
    }

    fn add_assign(&self, acc: &mut CudaBuffer, x: &CudaBuffer) -> Result<()> {
        pointwise::add_assign(&self.device, x.len, &mut acc.data, &x.data)
    }

    fn scale_assign(&self, x: &mut CudaBuffer, factor: f64) -> Result<()> {
        pointwise::scale_assign(&self.device, x.len, &mut x.data, factor as f32)
    }

    fn sum_squares(&self, x: &CudaBuffer) -> Result<f64> {
        self.sum_squares_all(&[x])
    }

    fn sum_squares_all(&self, list: &[&CudaBuffer]) -> Result<f64> {
        self.run_sum_squares(list)
    }

    fn patches(&self, images: &[u8], batch: usize, size: usize, patch: usize) -> Result<CudaBuffer> {
        self.patches_of_squares(images, batch, size, patch)
    }

    fn crops(&self) -> bool {
        true
    }

    fn crop_patches(&self, crops: &[Crop<'_>], size: usize, patch: usize) -> Result<CudaBuffer> {
        self.patches_of_crops(crops, size, patch)
    }

    fn stage_images(&self, images: &Images<'_, Self>, size: usize, to: &mut Option<CudaBuffer>) -> Result<()> {
        self.stage_squares(images, size, to)
    }

    fn staged_patches(&self, squares: &CudaBuffer, batch: usize, size: usize, patch: usize) -> Result<CudaBuffer> {
        self.patches_on_device(&squares.data, batch, size, patch)
    }

    fn stage_labels(&self, labels: &[usize], to: &mut Option<CudaBuffer>) -> Result<()> {
        // The tape has checked them against the number of classes.
        let labels: Vec<i32> = labels.iter().map(|&label| label as i32).collect();
        if to.as_ref().is_none_or(|to| to.len != labels.len()) {
            *to = None;
            *to = Some(CudaBuffer::new(self.buf(DType::I32, labels.len())?));
        }
        to.as_mut().map_or(Ok(()), |to| to.data.write(&labels))
    }

    fn linear(
        &self,
        dims: LinearDims,
        x: &CudaBuffer,
        w: &CudaBuffer,
        bias: Option<&CudaBuffer>,
        adapters: &[Adapter<'_, CudaBuffer>],
    ) -> Result<LinearOutput<CudaBuffer>> {
        Ok(self.run_linear(&Forward { dims, x, w, bias, adapters }, After::Nothing)?.0)
    }

    fn linear_gelu(
        &self,
        dims: LinearDims,
        x: &CudaBuffer,
        w: &CudaBuffer,
        bias: Option<&CudaBuffer>,
        adapters: &[Adapter<'_, CudaBuffer>],
    ) -> Result<(LinearOutput<CudaBuffer>, CudaBuffer)> {
        let (made, activated) = self.run_linear(&Forward { dims, x, w, bias, adapters }, After::Gelu)?;
        Ok((made, linear::required(activated, "gelu's output")?))
    }

    fn linear_activated(
        &self,
        dims: LinearDims,
        x: &CudaBuffer,
        w: &CudaBuffer,
        bias: Option<&CudaBuffer>,
        adapters: &[Adapter<'_, CudaBuffer>],
    ) -> Result<CudaBuffer> {
        Ok(self.run_linear(&Forward { dims, x, w, bias, adapters }, After::GeluAlone)?.0.y)
    }

    fn linear_residual(
        &self,
        dims: LinearDims,
        x: &CudaBuffer,
        w: &CudaBuffer,
        bias: Option<&CudaBuffer>,
        adapters: &[Adapter<'_, CudaBuffer>],
        residual: &CudaBuffer,
        gamma: &CudaBuffer,
    ) -> Result<LinearOutput<CudaBuffer>> {
        Ok(self.run_linear(&Forward { dims, x, w, bias, adapters }, After::Residual(residual, gamma))?.0)
    }

    fn linear_backward(
        &self,
        args: LinearBackward<'_, CudaBuffer>,
        sums: Sums<CudaBuffer>,
    ) -> Result<LinearGrads<CudaBuffer>> {
        self.run_linear_backward(&args, None, sums)
    }

    fn linear_backward_gelu(
        &self,
        args: LinearBackward<'_, CudaBuffer>,
        h: &CudaBuffer,
        sums: Sums<CudaBuffer>,
    ) -> Result<LinearGrads<CudaBuffer>> {
        self.run_linear_backward(&args, Some(h), sums)
    }

    fn dora_norm(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &CudaBuffer,
        a: &CudaBuffer,
        b: &CudaBuffer,
    ) -> Result<CudaBuffer> {
        let mut norm = self.buf(DType::F32, dims.rows)?;
        dora_norm::dora_norm(&self.device, adapter_rows(dims, k), &w.data, &a.data, &b.data, &mut norm)?;
        Ok(CudaBuffer::new(norm))
    }

    fn dora_norm_backward(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &CudaBuffer,
        a: &CudaBuffer,
        b: &CudaBuffer,
        norm: &CudaBuffer,
        dnorm: &CudaBuffer,
    ) -> Result<(CudaBuffer, CudaBuffer)> {
        let (mut da, mut db) = (self.buf(DType::F32, dims.rank * k)?, self.buf(DType::F32, dims.rows * dims.rank)?);
        dora_norm_backward::dora_norm_backward(
            &self.device,
            adapter_rows(dims, k),
            &w.data,
            &a.data,
            &b.data,
            &norm.data,
            &dnorm.data,
            false,
            &mut da,
            &mut db,
        )?;
        Ok((CudaBuffer::new(da), CudaBuffer::new(db)))
    }

    fn magnitude_rescale(&self, magnitude: &CudaBuffer, norm: &CudaBuffer) -> Result<CudaBuffer> {
        let mut gain = self.buf(DType::F32, magnitude.len)?;
        magnitude_rescale::magnitude_rescale(&self.device, magnitude.len, &magnitude.data, &norm.data, &mut gain)?;
        Ok(CudaBuffer::new(gain))
    }

    fn magnitude_rescale_backward(
        &self,
        magnitude: &CudaBuffer,
        norm: &CudaBuffer,
        dgain: &CudaBuffer,
    ) -> Result<(CudaBuffer, CudaBuffer)> {
        let (mut dm, mut dn) = (self.buf(DType::F32, magnitude.len)?, self.buf(DType::F32, magnitude.len)?);
        magnitude_rescale::magnitude_rescale_backward(
            &self.device,
            magnitude.len,
            &magnitude.data,
            &norm.data,
            &dgain.data,
            &mut dm,
            &mut dn,
        )?;
        Ok((CudaBuffer::new(dm), CudaBuffer::new(dn)))
    }

    fn merge(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &mut CudaBuffer,
        a: &CudaBuffer,
        b: &CudaBuffer,
        gain: Option<&CudaBuffer>,
    ) -> Result<()> {
        w.operand.take();
        merge::merge(&self.device, adapter_rows(dims, k), &mut w.data, &a.data, &b.data, gain.map(|g| &g.data))
    }

    fn dropout(&self, x: &CudaBuffer, p: f64, seed: u64, first: u64) -> Result<CudaBuffer> {
        // The generator steps by the same amount for an element as for the seed.
        let seed = seed.wrapping_add(first.wrapping_mul(DROPOUT_STEP));
        let mut y = self.buf(x.dtype(), x.data.len())?;
        pointwise::dropout(&self.device, x.len, &x.data, p, seed, &mut y)?;
        Ok(CudaBuffer::padded(y, x.len))
    }

    fn attention(&self, dims: AttentionDims, qkv: &CudaBuffer) -> Result<(CudaBuffer, CudaBuffer)> {
        let mut out = self.buf(qkv.dtype(), qkv.len / 3)?;
        let mut lse = self.buf(DType::F32, dims.batch * dims.heads * dims.tokens)?;
        attention::attention_forward(&self.device, dims, &qkv.data, &mut out, &mut lse)?;
        Ok((CudaBuffer::new(out), CudaBuffer::new(lse)))
    }

    fn attention_backward(
        &self,
        dims: AttentionDims,
        qkv: &CudaBuffer,
        out: &CudaBuffer,
        log_sum_exp: &CudaBuffer,
        dout: &CudaBuffer,
    ) -> Result<CudaBuffer> {
        let mut dqkv = self.buf(qkv.dtype(), qkv.len)?;
        attention::attention_backward(
            &self.device,
            dims,
            &qkv.data,
            &out.data,
            &log_sum_exp.data,
            &dout.data,
            &mut dqkv,
        )?;
        Ok(CudaBuffer::new(dqkv))
    }

    fn layer_norm(
        &self,
        rows: usize,
        cols: usize,
        x: &CudaBuffer,
        weight: &CudaBuffer,
        bias: &CudaBuffer,
        eps: f64,
    ) -> Result<(CudaBuffer, CudaBuffer, CudaBuffer)> {
        let mut y = self.activation(rows * cols)?;
        let (mut mean, mut rstd) = (self.buf(DType::F32, rows)?, self.buf(DType::F32, rows)?);
        layer_norm::layer_norm_forward(
            &self.device,
            rows,
            cols,
            eps as f32,
            &x.data,
            &weight.data,
            &bias.data,
            &mut y,
            Some((&mut mean, &mut rstd)),
        )?;
        Ok((CudaBuffer::new(y), CudaBuffer::new(mean), CudaBuffer::new(rstd)))
    }

    fn layer_norm_backward(
        &self,
        args: NormBackward<'_, CudaBuffer>,
        need: (bool, bool),
        sums: Sums<CudaBuffer>,
    ) -> Result<(Option<CudaBuffer>, Option<(CudaBuffer, CudaBuffer)>)> {
        let mut dx = need.0.then(|| self.buf(args.x.dtype(), args.rows * args.cols)).transpose()?;
        let to = dx.as_mut().map_or(LayerNormDx::None, LayerNormDx::Write);
        let made = self.norm_backward(args, to, need.1, sums)?;
        Ok((dx.map(CudaBuffer::new), made))
    }

    fn layer_norm_backward_onto(
        &self,
        args: NormBackward<'_, CudaBuffer>,
        weights: bool,
        sums: Sums<CudaBuffer>,
        onto: Onto<'_, CudaBuffer>,
    ) -> Result<NormGrads<CudaBuffer>> {
        let mut x = onto.grad;
        // Where its weights are trained so is gamma, but for a model that nobody has.
        let gamma = onto.gamma.filter(|_| !weights);
        let mut scaled = gamma.map(|_| self.buf(args.dy.dtype(), args.rows * args.cols)).transpose()?;
        let to = match (gamma, &mut scaled) {
            (Some(gamma), Some(scaled)) => LayerNormDx::AddToScaled { dx: &mut x.data, gamma: &gamma.data, scaled },
            _ => LayerNormDx::AddTo(&mut x.data),
        };
        let params = self.norm_backward(args, to, weights, sums)?;
        Ok(NormGrads { x, scaled: scaled.map(CudaBuffer::new), params })
    }

    fn gelu(&self, x: &CudaBuffer) -> Result<CudaBuffer> {
        self.gelu_of(x)
    }

    fn gelu_backward(&self, x: &CudaBuffer, dy: &CudaBuffer) -> Result<CudaBuffer> {
        self.gelu_backward_of(x, dy)
    }

    fn swiglu(&self, rows: usize, width: usize, h: &CudaBuffer) -> Result<CudaBuffer> {
        let mut y = self.buf(h.dtype(), rows * width)?;
        pointwise::swiglu_forward(&self.device, rows, width, &h.data, &mut y)?;
        Ok(CudaBuffer::new(y))
    }

    fn swiglu_backward(&self, rows: usize, width: usize, h: &CudaBuffer, dy: &CudaBuffer) -> Result<CudaBuffer> {
        let mut dh = self.buf(h.dtype(), rows * 2 * width)?;
        pointwise::swiglu_backward(&self.device, rows, width, &h.data, &dy.data, &mut dh)?;
        Ok(CudaBuffer::new(dh))
    }

    fn layer_scale(
        &self,
        rows: usize,
        cols: usize,
        x: &CudaBuffer,
        h: &CudaBuffer,
        gamma: &CudaBuffer,
    ) -> Result<CudaBuffer> {
        self.layer_scale_of(rows, cols, x, h, gamma)
    }

    fn layer_scale_backward(
        &self,
        rows: usize,
        cols: usize,
        h: Option<&CudaBuffer>,
        gamma: &CudaBuffer,
        dy: &CudaBuffer,
        need: (bool, bool),
        mut sums: Sums<CudaBuffer>,
    ) -> Result<(Option<CudaBuffer>, Option<CudaBuffer>)> {
        let mut dh = need.0.then(|| self.activation(rows * cols)).transpose()?;
        let mut summed = Rows { count: rows, granule: sums.granule(rows), add: false };
        let mut dgamma = match need.1 {
            true => {
                let [dgamma] = self.sum_blocks(&mut sums, [(0, cols)], &mut summed.add)?;
                Some(dgamma)
            }
            false => None,
        };
        let with_h = h.map(|h| &h.data).zip(dgamma.as_mut());
        layer_scale::layer_scale_backward(&self.device, summed, cols, &gamma.data, &dy.data, dh.as_mut(), with_h)?;
        Ok((dh.map(CudaBuffer::new), dgamma.map(CudaBuffer::new)))
    }

    fn resample_positions(
        &self,
        from: usize,
        to: usize,
        width: usize,
        pos: &CudaBuffer,
        matrix: &CudaBuffer,
    ) -> Result<CudaBuffer> {
        let mut out = self.buf(DType::F32, (1 + to) * width)?;
        tokens::resample_positions_forward(&self.device, from, to, width, &pos.data, &matrix.data, &mut out)?;
        Ok(CudaBuffer::new(out))
    }

    fn resample_positions_backward(
        &self,
        from: usize,
        to: usize,
        width: usize,
        matrix: &CudaBuffer,
        dy: &CudaBuffer,
    ) -> Result<CudaBuffer> {
        let mut dpos = self.buf(DType::F32, (1 + from) * width)?;
        tokens::resample_positions_backward(&self.device, from, to, width, &matrix.data, &dy.data, &mut dpos)?;
        Ok(CudaBuffer::new(dpos))
    }

    fn assemble_tokens(
        &self,
        dims: TokenDims,
        patches: &CudaBuffer,
        cls: &CudaBuffer,
        pos: &CudaBuffer,
        registers: Option<&CudaBuffer>,
    ) -> Result<CudaBuffer> {
        let mut x = self.buf(self.residual, dims.batch * dims.tokens() * dims.width)?;
        tokens::assemble_tokens_forward(
            &self.device,
            dims,
            &patches.data,
            &cls.data,
            &pos.data,
            registers.map(|registers| &registers.data),
            &mut x,
        )?;
        Ok(CudaBuffer::new(x))
    }

    fn assemble_tokens_backward(
        &self,
        dims: TokenDims,
        dy: &CudaBuffer,
        mut sums: Sums<CudaBuffer>,
    ) -> Result<(CudaBuffer, CudaBuffer, CudaBuffer, Option<CudaBuffer>)> {
        let TokenDims { batch, registers, patches, width } = dims;
        let mut dpatches = self.activation(batch * patches * width)?;
        let mut add = false;
        let sizes = [(0, width), (1, (1 + patches) * width), (2, (registers * width).max(1))];
        let [mut dcls, mut dpos, mut dregisters] = self.sum_blocks(&mut sums, sizes, &mut add)?;
        let grads = tokens::TokenGrads {
            patches: Some(&mut dpatches),
            cls: Some(&mut dcls),
            pos: Some(&mut dpos),
            registers: Some(&mut dregisters).filter(|_| registers > 0),
        };
        tokens::assemble_tokens_backward(&self.device, dims, &dy.data, grads, add)?;
        let [dpatches, dcls, dpos, dregisters] = [dpatches, dcls, dpos, dregisters].map(CudaBuffer::new);
        Ok((dpatches, dcls, dpos, Some(dregisters).filter(|_| registers > 0)))
    }

    fn pool(&self, dims: TokenDims, with_mean: bool, x: &CudaBuffer) -> Result<CudaBuffer> {
        let width = if with_mean { 2 * dims.width } else { dims.width };
        let mut out = self.buf(DType::F32, dims.batch * width)?;
        tokens::pool_forward(&self.device, dims, with_mean, &x.data, &mut out)?;
        Ok(CudaBuffer::new(out))
    }

    fn pool_backward(&self, dims: TokenDims, with_mean: bool, dy: &CudaBuffer) -> Result<CudaBuffer> {
        let mut dx = self.activation(dims.batch * dims.tokens() * dims.width)?;
        tokens::pool_backward(&self.device, dims, with_mean, &dy.data, &mut dx)?;
        Ok(CudaBuffer::new(dx))
    }

    fn cross_entropy(
        &self,
        classes: usize,
        logits: &CudaBuffer,
        labels: &CudaBuffer,
        weights: Option<&CudaBuffer>,
        smoothing: f64,
        denominator: f64,
        mut sums: Sums<CudaBuffer>,
    ) -> Result<(CudaBuffer, CudaBuffer)> {
        let mut add = false;
        let [mut loss] = self.sum_blocks(&mut sums, [(0, 1)], &mut add)?;
        let mut dlogits = self.buf(DType::F32, logits.len)?;
        loss::cross_entropy(
            &self.device,
            loss::LogitDims::whole(labels.len, classes),
            &logits.data,
            &labels.data,
            weights.map(|weights| &weights.data),
            smoothing,
            denominator,
            &mut loss,
            &mut dlogits,
            add,
        )?;
        Ok((CudaBuffer::new(loss), CudaBuffer::new(dlogits)))
    }

    fn binary_cross_entropy(
        &self,
        logits: &CudaBuffer,
        targets: &CudaBuffer,
        denominator: f64,
        mut sums: Sums<CudaBuffer>,
    ) -> Result<(CudaBuffer, CudaBuffer)> {
        let mut add = false;
        let [mut loss] = self.sum_blocks(&mut sums, [(0, 1)], &mut add)?;
        let mut dlogits = self.buf(DType::F32, logits.len)?;
        loss::binary_cross_entropy(
            &self.device,
            loss::LogitDims::whole(sums.images(), logits.len / sums.images()),
            &logits.data,
            &targets.data,
            denominator,
            &mut loss,
            &mut dlogits,
            add,
        )?;
        Ok((CudaBuffer::new(loss), CudaBuffer::new(dlogits)))
    }

    fn tree_loss(
        &self,
        tree: TreeLoss,
        logits: &CudaBuffer,
        targets: &CudaBuffer,
        begins: &CudaBuffer,
        denominator: f64,
        mut sums: Sums<CudaBuffer>,
    ) -> Result<(CudaBuffer, CudaBuffer)> {
        let mut add = false;
        let [mut loss] = self.sum_blocks(&mut sums, [(0, 1)], &mut add)?;
        let mut dlogits = self.buf(DType::F32, logits.len)?;
        let rows = logits.len / tree.cols.max(1);
        loss::tree_loss(
            &self.device,
            tree,
            rows,
            &logits.data,
            &targets.data,
            &begins.data,
            denominator,
            &mut loss,
            &mut dlogits,
            add,
        )?;
        Ok((CudaBuffer::new(loss), CudaBuffer::new(dlogits)))
    }

    fn adamw(
        &self,
        step: AdamW,
        value: &mut CudaBuffer,
        grad: &CudaBuffer,
        m: &mut CudaBuffer,
        v: &mut CudaBuffer,
    ) -> Result<()> {
        // The kernel only reads the gradient, which the items of several values hold for writing.
        let shadow = self.shadow_of(value);
        self.run_adamw(step, &[trained(value, grad, m, v, shadow.as_deref(), step.weight_decay)], None)?;
        if shadow.is_none() { self.refresh_operand(value) } else { Ok(()) }
    }

    fn adamw_all(&self, step: AdamW, items: &mut [AdamWItem<'_, CudaBuffer>]) -> Result<()> {
        self.adamw_items(step, items, None).map(drop)
    }

    fn adamw_clipped(
        &self,
        step: AdamW,
        items: &mut [AdamWItem<'_, CudaBuffer>],
        most: Option<f64>,
    ) -> Result<LaterNumber> {
        self.adamw_items(step, items, Some(most))
    }
}

impl Cuda {
    /// One launch; (dweight, dbias) where they are asked for.
    fn norm_backward(
        &self,
        args: NormBackward<'_, CudaBuffer>,
        dx: LayerNormDx<'_>,
        weights: bool,
        mut sums: Sums<CudaBuffer>,
    ) -> Result<Option<(CudaBuffer, CudaBuffer)>> {
        let NormBackward { rows, cols, x, weight, mean, rstd, dy } = args;
        let mut summed = Rows { count: rows, granule: sums.granule(rows), add: false };
        let mut params = match weights {
            true => {
                let [weight, bias] = self.sum_blocks(&mut sums, [(0, cols), (1, cols)], &mut summed.add)?;
                Some((weight, bias))
            }
            false => None,
        };
        let inputs = layer_norm::LayerNormInputs {
            x: &x.data,
            weight: &weight.data,
            mean: &mean.data,
            rstd: &rstd.data,
            dy: &dy.data,
        };
        let to = params.as_mut().map(|(dweight, dbias)| (dweight, dbias));
        layer_norm::layer_norm_backward(&self.device, summed, cols, inputs, dx, to)?;
        Ok(params.map(|(weight, bias)| (CudaBuffer::new(weight), CudaBuffer::new(bias))))
    }
}

fn adapter_rows(dims: AdapterDims, k: usize) -> dora_norm::AdapterRows {
    let AdapterDims { first_row, rows, rank, scale } = dims;
    dora_norm::AdapterRows { first_row, rows, cols: k, rank, scale: scale as f32 }
}
