//! The one place where autograd meets a device: the operations a ViT's training step is made of.
//!
//! Every operation exists three times: as plain loops (`reference`, the truth), fast on the CPU (`cpu`) and, where a
//! kernel is written, on the GPU. Shapes are row-major and given in the arguments; a backend may trust them, the tape has
//! checked them. A gradient that is not asked for is `None`. Sums run in a fixed order: the same input gives the same bits.

use super::Sums;
use crate::Result;

/// A linear's sizes: y \[m, n\] = x \[m, k\] W^T, W \[n, k\].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearDims {
    /// Tokens.
    pub m: usize,
    /// Width of the input.
    pub k: usize,
    /// Width of the output.
    pub n: usize,
}

/// A low-rank adapter on rows `first_row .. first_row + rows` of a linear's weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdapterDims {
    /// First row of W that it changes.
    pub first_row: usize,
    /// Number of rows.
    pub rows: usize,
    /// Rank r.
    pub rank: usize,
    /// s = alpha / r, or alpha / sqrt r.
    pub scale: f64,
}

/// An adapter's values in one linear.
pub struct Adapter<'a, T> {
    /// Its place and size.
    pub dims: AdapterDims,
    /// A \[rank, k\].
    pub a: &'a T,
    /// B \[rows, rank\].
    pub b: &'a T,
    /// DoRA: g = magnitude / norm \[rows\]. Absent: LoRA, g = 1.
    pub gain: Option<&'a T>,
    /// drop(x) \[m, k\]. Absent: no dropout, drop(x) = x.
    pub dropped: Option<&'a T>,
}

/// The adapters of one linear.
pub struct LinearAdapters<'a, T> {
    /// Width of the linear's input: columns of every A.
    pub k: usize,
    /// Its adapters, as [`Backend::linear`] is given them.
    pub adapters: Vec<Adapter<'a, T>>,
}

/// What [`Backend::linear`] makes.
pub struct LinearOutput<T> {
    /// y \[m, n\].
    pub y: T,
    /// For each adapter t = drop(x) A^T \[m, rank\].
    pub t: Vec<T>,
    /// For each adapter with gain and dropout z = drop(x) W^T + s t B^T \[m, rows\], from which the gain's gradient comes;
    /// without dropout the backward pass takes it from y.
    pub z: Vec<Option<T>>,
}

/// What [`Backend::linear_backward`] reads.
pub struct LinearBackward<'a, T> {
    /// Sizes.
    pub dims: LinearDims,
    /// x \[m, k\]; absent when no asked-for gradient needs it.
    pub x: Option<&'a T>,
    /// W \[n, k\].
    pub w: &'a T,
    /// bias \[n\].
    pub bias: Option<&'a T>,
    /// y \[m, n\], present when an adapter has a gain and no dropout.
    pub y: Option<&'a T>,
    /// The adapters, as in the forward pass.
    pub adapters: Vec<Adapter<'a, T>>,
    /// t of each adapter.
    pub t: Vec<&'a T>,
    /// z of each adapter with gain and dropout.
    pub z: Vec<Option<&'a T>>,
    /// dL/dy \[m, n\].
    pub dy: &'a T,
    /// Whether dx is asked for.
    pub need_x: bool,
    /// Whether dW is asked for.
    pub need_w: bool,
    /// Whether db is asked for.
    pub need_bias: bool,
    /// For each adapter whether dA, dB (and dgain) are asked for.
    pub need_adapter: bool,
}

/// What [`Backend::linear_backward`] makes.
pub struct LinearGrads<T> {
    /// dx \[m, k\], without what flows through `dropped`.
    pub x: Option<T>,
    /// dW \[n, k\].
    pub w: Option<T>,
    /// db \[n\].
    pub bias: Option<T>,
    /// For each adapter its gradients.
    pub adapters: Vec<AdapterGrads<T>>,
}

/// One adapter's gradients.
pub struct AdapterGrads<T> {
    /// dA \[rank, k\].
    pub a: Option<T>,
    /// dB \[rows, rank\].
    pub b: Option<T>,
    /// dg \[rows\], when there is a gain.
    pub gain: Option<T>,
    /// d drop(x) \[m, k\], when there is dropout and dx is asked for.
    pub dropped: Option<T>,
}

/// What [`Backend::layer_norm_backward`] reads.
pub struct NormBackward<'a, T> {
    /// Tokens.
    pub rows: usize,
    /// Width.
    pub cols: usize,
    /// x \[rows, cols\].
    pub x: &'a T,
    /// weight \[cols\].
    pub weight: &'a T,
    /// mean \[rows\].
    pub mean: &'a T,
    /// 1 / sqrt(variance + eps) \[rows\].
    pub rstd: &'a T,
    /// dL/dy \[rows, cols\].
    pub dy: &'a T,
}

/// The gradient that came to LayerNorm's x along the residual connection.
pub struct Onto<'a, T> {
    /// \[rows, cols\].
    pub grad: T,
    /// gamma \[cols\], where x was made by a branch behind LayerScale: that branch's gradient is gamma times x's.
    pub gamma: Option<&'a T>,
}

/// What [`Backend::layer_norm_backward_onto`] makes.
pub struct NormGrads<T> {
    /// The whole gradient of x.
    pub x: T,
    /// gamma times it, where a backend makes that along the way.
    pub scaled: Option<T>,
    /// dweight and dbias, where they are asked for.
    pub params: Option<(T, T)>,
}

/// A batch of sequences under multi-head attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionDims {
    /// Images.
    pub batch: usize,
    /// Tokens an image.
    pub tokens: usize,
    /// Heads.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

/// How patch tokens and the others lie in a sequence: CLS, registers, patches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenDims {
    /// Images.
    pub batch: usize,
    /// Register tokens.
    pub registers: usize,
    /// Patch tokens.
    pub patches: usize,
    /// Width D.
    pub width: usize,
}

impl TokenDims {
    /// Tokens an image: 1 + registers + patches.
    pub fn tokens(&self) -> usize {
        1 + self.registers + self.patches
    }
}

/// AdamW's constants for one step (Loshchilov and Hutter 2019; torch's form and order of operations).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// First moment's decay rate.
    pub beta1: f64,
    /// Second moment's decay rate.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Steps taken, this one included: 1 at the first.
    pub step: u64,
}

/// The asymmetric loss's constants (Ridnik et al. 2021).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asymmetric {
    /// Focusing of positives, gamma+.
    pub gamma_positive: f64,
    /// Focusing of negatives, gamma-.
    pub gamma_negative: f64,
    /// How far the probabilities of negatives are shifted down: easier ones count for nothing.
    pub clip: f64,
    /// Weight k of the positives.
    pub positive_weight: f64,
}

/// What the loss of a tree of labels is made with. Logits and targets are `[rows, cols]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TreeLoss {
    /// Labels.
    pub cols: usize,
    /// Softmax heads, side by side from column 0 on; the labels behind them are sigmoids.
    pub heads: usize,
    /// Label smoothing of the heads.
    pub smoothing: f64,
    /// The loss of the sigmoids.
    pub single: Asymmetric,
}

/// One trained value in a step of AdamW.
pub struct AdamWItem<'a, T> {
    /// The value, updated.
    pub value: &'a mut T,
    /// Its gradient; what clipping leaves of it, or what it was.
    pub grad: &'a mut T,
    /// First moment, updated.
    pub m: &'a mut T,
    /// Second moment, updated.
    pub v: &'a mut T,
    /// Decoupled weight decay of this value.
    pub weight_decay: f64,
}

/// A part of an image that becomes a square: cropped, resized (bicubic, antialiased, as Pillow), perhaps mirrored.
#[derive(Clone, Copy, Debug)]
pub struct Crop<'a> {
    /// RGB, \[height, width, 3\].
    pub pixels: &'a [u8],
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// (left, top, width, height) of the part, in pixels; edges may lie between them.
    pub part: (f64, f64, f64, f64),
    /// Mirrored left to right.
    pub flip: bool,
}

/// Images on their way into a model.
pub enum Images<'a, B: Backend> {
    /// u8 \[batch, size, size, 3\].
    Squares(&'a [u8]),
    /// What a device makes squares of by itself.
    Crops(Vec<Crop<'a>>),
    /// Squares on the device, from [`Backend::stage_images`].
    Staged(&'a B::Buffer),
}

impl<'a, B: Backend> From<&'a [u8]> for Images<'a, B> {
    fn from(squares: &'a [u8]) -> Self {
        Self::Squares(squares)
    }
}

impl<'a, B: Backend> From<&'a Vec<u8>> for Images<'a, B> {
    fn from(squares: &'a Vec<u8>) -> Self {
        Self::Squares(squares)
    }
}

/// The mean of ImageNet's red, green and blue, of 1: what DINOv2's inputs are normalised by.
pub const IMAGENET_MEAN: [f64; 3] = [0.485, 0.456, 0.406];
/// Their standard deviations.
pub const IMAGENET_STD: [f64; 3] = [0.229, 0.224, 0.225];

/// A number that is known once the work queued before is done.
pub type LaterNumber = Box<dyn FnOnce() -> Result<f64>>;

/// A device and its operations. `Buffer` is a block of numbers there; cloning the backend clones a handle.
pub trait Backend: Clone + 'static {
    /// Numbers on the device.
    type Buffer: 'static;
    /// Work that can be queued again as a whole; `()` where there is no such thing.
    type Recording: 'static;
    /// What [`Backend::prepare_adapters`] makes; `()` where there is no such thing.
    type Prepared: 'static;

    /// Copies host values there.
    fn upload(&self, values: &[f32]) -> Result<Self::Buffer>;
    /// Copies values back.
    fn download(&self, buffer: &Self::Buffer) -> Result<Vec<f32>>;
    /// The largest rank of a DoRA adapter.
    fn max_dora_rank(&self) -> usize {
        usize::MAX
    }
    /// Overwrites a value with another of its length.
    fn write(&self, buffer: &mut Self::Buffer, values: &[f32]) -> Result<()> {
        *buffer = self.upload(values)?;
        Ok(())
    }
    /// Told of each weight \[rows, _\] that products will read, once, before the first pass: a backend may make copies now instead of then.
    fn prepare_weight(&self, _w: &Self::Buffer, _rows: usize) -> Result<()> {
        Ok(())
    }
    /// Told of a weight \[rows, _\] that nothing but products will read from now on: a backend may hold it in the form that they take, which need
    /// not be exact.
    fn release_values(&self, _w: &mut Self::Buffer, _rows: usize) -> Result<()> {
        Ok(())
    }
    /// Told of all adapters of a model, whose values stay as they are until [`Backend::release_adapters`]: a backend may make what products read
    /// of them now, once for all passes of a step, in the blocks of the step before. Returns a number of where these lie.
    fn prepare_adapters(
        &self,
        _list: &[LinearAdapters<'_, Self::Buffer>],
        _prepared: &mut Option<Self::Prepared>,
    ) -> Result<u64> {
        Ok(0)
    }
    /// The adapters' values may change from here on.
    fn release_adapters(&self) {}
    /// Bytes of what was prepared.
    fn prepared_bytes(&self, _prepared: &Self::Prepared) -> usize {
        0
    }
    /// The only number of a block as it is when all that is queued so far is done; nobody waits for that yet.
    fn download_later(&self, buffer: &Self::Buffer) -> Result<LaterNumber> {
        let number = self.download(buffer)?.first().copied().map_or(f64::NAN, f64::from);
        Ok(Box::new(move || Ok(number)))
    }
    /// Length in numbers.
    fn len(&self, buffer: &Self::Buffer) -> usize;
    /// Size of a block in bytes.
    fn bytes(&self, buffer: &Self::Buffer) -> usize;
    /// A copy on the device.
    fn copy(&self, buffer: &Self::Buffer) -> Result<Self::Buffer>;
    /// Overwrites one of that length with another, in its place.
    fn assign(&self, to: &mut Self::Buffer, from: &Self::Buffer) -> Result<()> {
        *to = self.copy(from)?;
        Ok(())
    }
    /// The most bytes that buffers held at once so far; 0 where the backend does not count.
    fn peak_bytes(&self) -> u64 {
        0
    }
    /// From here on the peak counts anew, from the buffers that there are.
    fn forget_peak(&self) {}
    /// The bytes that buffers hold now; 0 where the backend does not count.
    fn live_bytes(&self) -> u64 {
        0
    }
    /// Whether work is queued and done while this side goes on; otherwise a call returns when it is done.
    fn queues(&self) -> bool {
        false
    }
    /// Whether [`Backend::record`] records: then what a pass reads of a batch is staged first, outside of what is recorded.
    fn records(&self) -> bool {
        false
    }
    /// Does `work`, and records what it queues where that can be queued again. `work` may read nothing from the host and wait for nothing,
    /// and must give back every block that it takes.
    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Recording>> {
        work()?;
        Ok(None)
    }
    /// Queues recorded work again, with the values that its blocks hold now; false, and nothing is queued, where other memory is free than then.
    fn replay(&self, _recording: &Self::Recording) -> Result<bool> {
        Ok(false)
    }
    /// Where a block lies: recorded work goes to the same places. 0 where nothing is recorded.
    fn place(&self, _buffer: &Self::Buffer) -> u64 {
        0
    }
    /// acc += x.
    fn add_assign(&self, acc: &mut Self::Buffer, x: &Self::Buffer) -> Result<()>;
    /// x *= factor.
    fn scale_assign(&self, x: &mut Self::Buffer, factor: f64) -> Result<()>;
    /// The sum of squares, for clipping by the global norm.
    fn sum_squares(&self, x: &Self::Buffer) -> Result<f64>;
    /// The sum of squares over several buffers.
    fn sum_squares_all(&self, list: &[&Self::Buffer]) -> Result<f64> {
        list.iter().map(|x| self.sum_squares(x)).sum()
    }

    /// Normalised patches \[batch * (size / patch)^2, 3 * patch^2\] of u8 images \[batch, size, size, 3\]: (u8 / 255 - mean) / std,
    /// ImageNet's, columns ordered channel, row, column as a convolution's weight is.
    fn patches(&self, images: &[u8], batch: usize, size: usize, patch: usize) -> Result<Self::Buffer>;
    /// Whether [`Backend::crop_patches`] is there.
    fn crops(&self) -> bool {
        false
    }
    /// [`Backend::patches`] of squares that the device makes from crops.
    fn crop_patches(&self, crops: &[Crop<'_>], _size: usize, _patch: usize) -> Result<Self::Buffer> {
        Err(crate::Error::Internal(format!("{} crops for a device that takes finished squares", crops.len())))
    }
    /// Brings images to squares of `size` on the device, over those in `to` where it is as large; for devices that record.
    fn stage_images(&self, _images: &Images<'_, Self>, _size: usize, _to: &mut Option<Self::Buffer>) -> Result<()> {
        Err(crate::Error::Internal("images are staged for a device that records nothing".into()))
    }
    /// [`Backend::patches`] of staged images.
    fn staged_patches(&self, _s: &Self::Buffer, batch: usize, _size: usize, _patch: usize) -> Result<Self::Buffer> {
        Err(crate::Error::Internal(format!("{batch} staged images on a device that records nothing")))
    }
    /// Class indices \[rows\] on the device, as [`Backend::cross_entropy`] reads them, over those in `to` where it is as large.
    fn stage_labels(&self, labels: &[usize], to: &mut Option<Self::Buffer>) -> Result<()> {
        // Exact up to 2^24 classes.
        let labels: Vec<f32> = labels.iter().map(|&label| label as f32).collect();
        self.stage(&labels, to)
    }
    /// Numbers on the device, over those in `to` where it is as large.
    fn stage(&self, values: &[f32], to: &mut Option<Self::Buffer>) -> Result<()> {
        match to {
            Some(to) if self.len(to) == values.len() => self.write(to, values),
            _ => {
                // What was there goes first.
                *to = None;
                *to = Some(self.upload(values)?);
                Ok(())
            }
        }
    }

    /// y = x W^T + bias, adapters included: on an adapter's rows, with xd = drop(x),
    /// y = x W^T + bias + (g - 1) xd W^T + g s (xd A^T) B^T, which without dropout is g (x W^T + s (x A^T) B^T) + bias.
    /// Adapters do not overlap.
    fn linear(
        &self,
        dims: LinearDims,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        adapters: &[Adapter<'_, Self::Buffer>],
    ) -> Result<LinearOutput<Self::Buffer>>;
    /// The gradients of [`Backend::linear`]; none of them ever forms the dense dW of an adapter. `sums`: W, bias, then A, B and gain of each
    /// adapter.
    fn linear_backward(
        &self,
        args: LinearBackward<'_, Self::Buffer>,
        sums: Sums<Self::Buffer>,
    ) -> Result<LinearGrads<Self::Buffer>>;
    /// [`Backend::linear`], then GELU: (pre-activation and the rest, gelu of it).
    fn linear_gelu(
        &self,
        dims: LinearDims,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        adapters: &[Adapter<'_, Self::Buffer>],
    ) -> Result<(LinearOutput<Self::Buffer>, Self::Buffer)> {
        let made = self.linear(dims, x, w, bias, adapters)?;
        let activated = self.gelu(&made.y)?;
        Ok((made, activated))
    }
    /// gelu of [`Backend::linear`] alone.
    fn linear_activated(
        &self,
        dims: LinearDims,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        adapters: &[Adapter<'_, Self::Buffer>],
    ) -> Result<Self::Buffer> {
        Ok(self.linear_gelu(dims, x, w, bias, adapters)?.1)
    }
    /// [`Backend::linear`] behind LayerScale on a residual: y becomes residual + gamma * y. residual \[m, n\], gamma \[n\].
    #[allow(clippy::too_many_arguments)]
    fn linear_residual(
        &self,
        dims: LinearDims,
        x: &Self::Buffer,
        w: &Self::Buffer,
        bias: Option<&Self::Buffer>,
        adapters: &[Adapter<'_, Self::Buffer>],
        residual: &Self::Buffer,
        gamma: &Self::Buffer,
    ) -> Result<LinearOutput<Self::Buffer>> {
        let made = self.linear(dims, x, w, bias, adapters)?;
        let y = self.layer_scale(dims.m, dims.n, residual, &made.y, gamma)?;
        Ok(LinearOutput { y, ..made })
    }
    /// [`Backend::linear_backward`] of a linear whose input was gelu(h): its dx is dL/dh.
    fn linear_backward_gelu(
        &self,
        args: LinearBackward<'_, Self::Buffer>,
        h: &Self::Buffer,
        sums: Sums<Self::Buffer>,
    ) -> Result<LinearGrads<Self::Buffer>> {
        let mut grads = self.linear_backward(args, sums)?;
        if let Some(dx) = grads.x.take() {
            grads.x = Some(self.gelu_backward(h, &dx)?);
        }
        Ok(grads)
    }

    /// Row norms n_j = || W_j + s (B A)_j ||_2 of rows `first_row ..` of W \[n, k\] (DoRA, Liu et al. 2024, equation 5).
    fn dora_norm(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &Self::Buffer,
        a: &Self::Buffer,
        b: &Self::Buffer,
    ) -> Result<Self::Buffer>;
    /// (dA, dB) of the norms: with V = W + s B A and c = dn / n, dB = s (c V) A^T, dA = s B^T (c V).
    #[allow(clippy::too_many_arguments)]
    fn dora_norm_backward(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &Self::Buffer,
        a: &Self::Buffer,
        b: &Self::Buffer,
        norm: &Self::Buffer,
        dnorm: &Self::Buffer,
    ) -> Result<(Self::Buffer, Self::Buffer)>;
    /// g = magnitude / norm, elementwise.
    fn magnitude_rescale(&self, magnitude: &Self::Buffer, norm: &Self::Buffer) -> Result<Self::Buffer>;
    /// (dmagnitude, dnorm) = (dg / n, -dg m / n^2).
    fn magnitude_rescale_backward(
        &self,
        magnitude: &Self::Buffer,
        norm: &Self::Buffer,
        dgain: &Self::Buffer,
    ) -> Result<(Self::Buffer, Self::Buffer)>;
    /// g (W + s B A) over an adapter's rows of W, written over them; the other rows stay. W \[n, k\].
    fn merge(
        &self,
        dims: AdapterDims,
        k: usize,
        w: &mut Self::Buffer,
        a: &Self::Buffer,
        b: &Self::Buffer,
        gain: Option<&Self::Buffer>,
    ) -> Result<()>;

    /// Inverted dropout: element i is kept, and divided by 1 - p, when a counter-based generator of (seed, first + i) says so; see
    /// [`crate::autograd::dropout_keeps`]. `first` is the place of x's first element in the whole batch, so that the mask does not depend on
    /// how that is cut. Its gradient is the same operation on dy.
    fn dropout(&self, x: &Self::Buffer, p: f64, seed: u64, first: u64) -> Result<Self::Buffer>;

    /// softmax(q k^T / sqrt head_dim) v. qkv \[batch * tokens, 3 * heads * head_dim\], q, k and v side by side, heads inside each; the
    /// result \[batch * tokens, heads * head_dim\] and each row's log-sum-exp \[batch, heads, tokens\].
    fn attention(&self, dims: AttentionDims, qkv: &Self::Buffer) -> Result<(Self::Buffer, Self::Buffer)>;
    /// dqkv, laid out as qkv.
    fn attention_backward(
        &self,
        dims: AttentionDims,
        qkv: &Self::Buffer,
        out: &Self::Buffer,
        log_sum_exp: &Self::Buffer,
        dout: &Self::Buffer,
    ) -> Result<Self::Buffer>;

    /// LayerNorm over rows of x \[rows, cols\]: (y, mean \[rows\], 1 / sqrt(variance + eps) \[rows\]).
    fn layer_norm(
        &self,
        rows: usize,
        cols: usize,
        x: &Self::Buffer,
        weight: &Self::Buffer,
        bias: &Self::Buffer,
        eps: f64,
    ) -> Result<(Self::Buffer, Self::Buffer, Self::Buffer)>;
    /// (dx, dweight and dbias) of LayerNorm; `need` says (x, weight and bias). `sums`: weight, bias.
    #[allow(clippy::type_complexity)]
    fn layer_norm_backward(
        &self,
        args: NormBackward<'_, Self::Buffer>,
        need: (bool, bool),
        sums: Sums<Self::Buffer>,
    ) -> Result<(Option<Self::Buffer>, Option<(Self::Buffer, Self::Buffer)>)>;
    /// The same with dx added to the gradient that came to x along the residual connection; `weights` says whether dweight and dbias are asked
    /// for.
    fn layer_norm_backward_onto(
        &self,
        args: NormBackward<'_, Self::Buffer>,
        weights: bool,
        sums: Sums<Self::Buffer>,
        mut onto: Onto<'_, Self::Buffer>,
    ) -> Result<NormGrads<Self::Buffer>> {
        let (dx, params) = self.layer_norm_backward(args, (true, weights), sums)?;
        if let Some(dx) = dx {
            self.add_assign(&mut onto.grad, &dx)?;
        }
        Ok(NormGrads { x: onto.grad, scaled: None, params })
    }

    /// GELU in its erf form: x (1 + erf(x / sqrt 2)) / 2.
    fn gelu(&self, x: &Self::Buffer) -> Result<Self::Buffer>;
    /// dx of GELU.
    fn gelu_backward(&self, x: &Self::Buffer, dy: &Self::Buffer) -> Result<Self::Buffer>;
    /// SwiGLU: silu(gate) * up from h \[rows, 2 * width\] = gate | up.
    fn swiglu(&self, rows: usize, width: usize, h: &Self::Buffer) -> Result<Self::Buffer>;
    /// dh of SwiGLU \[rows, 2 * width\].
    fn swiglu_backward(&self, rows: usize, width: usize, h: &Self::Buffer, dy: &Self::Buffer) -> Result<Self::Buffer>;
    /// LayerScale and the residual: x + gamma * h, gamma \[cols\], x and h \[rows, cols\].
    fn layer_scale(
        &self,
        rows: usize,
        cols: usize,
        x: &Self::Buffer,
        h: &Self::Buffer,
        gamma: &Self::Buffer,
    ) -> Result<Self::Buffer>;
    /// (dh, dgamma); dx is dy itself. `h` is present when dgamma is asked for. `sums`: gamma.
    #[allow(clippy::too_many_arguments, clippy::type_complexity)]
    fn layer_scale_backward(
        &self,
        rows: usize,
        cols: usize,
        h: Option<&Self::Buffer>,
        gamma: &Self::Buffer,
        dy: &Self::Buffer,
        need: (bool, bool),
        sums: Sums<Self::Buffer>,
    ) -> Result<(Option<Self::Buffer>, Option<Self::Buffer>)>;

    /// Positions for another grid: row 0 (CLS) stays, rows 1.. become matrix \[to, from\] times them. pos \[1 + from, width\].
    fn resample_positions(
        &self,
        from: usize,
        to: usize,
        width: usize,
        pos: &Self::Buffer,
        matrix: &Self::Buffer,
    ) -> Result<Self::Buffer>;
    /// dpos \[1 + from, width\].
    fn resample_positions_backward(
        &self,
        from: usize,
        to: usize,
        width: usize,
        matrix: &Self::Buffer,
        dy: &Self::Buffer,
    ) -> Result<Self::Buffer>;
    /// The sequences \[batch * tokens, width\]: CLS + position 0, registers (without a position), patches + their positions.
    /// patches \[batch * patches, width\], cls \[width\], pos \[1 + patches, width\], registers \[registers, width\].
    fn assemble_tokens(
        &self,
        dims: TokenDims,
        patches: &Self::Buffer,
        cls: &Self::Buffer,
        pos: &Self::Buffer,
        registers: Option<&Self::Buffer>,
    ) -> Result<Self::Buffer>;
    /// (dpatches, dcls, dpos, dregisters). `sums`: cls, pos, registers.
    #[allow(clippy::type_complexity)]
    fn assemble_tokens_backward(
        &self,
        dims: TokenDims,
        dy: &Self::Buffer,
        sums: Sums<Self::Buffer>,
    ) -> Result<(Self::Buffer, Self::Buffer, Self::Buffer, Option<Self::Buffer>)>;
    /// The head's input: CLS, or CLS beside the mean of the patches, \[batch, width or 2 width\].
    fn pool(&self, dims: TokenDims, with_mean: bool, x: &Self::Buffer) -> Result<Self::Buffer>;
    /// dx \[batch * tokens, width\] of the pooling; zero for registers.
    fn pool_backward(&self, dims: TokenDims, with_mean: bool, dy: &Self::Buffer) -> Result<Self::Buffer>;

    /// Softmax cross-entropy with label smoothing, summed over the rows of logits \[rows, classes\] and divided by `denominator`:
    /// (loss \[1\], dlogits). `labels` \[rows\] from [`Backend::stage_labels`]; `weights` \[classes\]: what a row's loss is multiplied by, by
    /// its label. `sums`: the loss, its rows one after the other.
    #[allow(clippy::too_many_arguments)]
    fn cross_entropy(
        &self,
        classes: usize,
        logits: &Self::Buffer,
        labels: &Self::Buffer,
        weights: Option<&Self::Buffer>,
        smoothing: f64,
        denominator: f64,
        sums: Sums<Self::Buffer>,
    ) -> Result<(Self::Buffer, Self::Buffer)>;
    /// Binary cross-entropy of sigmoids against targets of the logits' shape, summed over all entries whose target is not negative and divided
    /// by `denominator`: (loss \[1\], dlogits). `sums`: the loss.
    fn binary_cross_entropy(
        &self,
        logits: &Self::Buffer,
        targets: &Self::Buffer,
        denominator: f64,
        sums: Sums<Self::Buffer>,
    ) -> Result<(Self::Buffer, Self::Buffer)>;
    /// Of each row the mean cross-entropy of the heads that hold a positive target, plus the asymmetric loss of the columns behind the heads
    /// (negative targets count for nothing); summed over rows and divided by `denominator`: (loss \[1\], dlogits). `begins` \[heads + 1\] from
    /// [`Backend::stage_labels`]: the first column of each head, and of what is behind them. `sums`: the loss.
    fn tree_loss(
        &self,
        loss: TreeLoss,
        logits: &Self::Buffer,
        targets: &Self::Buffer,
        begins: &Self::Buffer,
        denominator: f64,
        sums: Sums<Self::Buffer>,
    ) -> Result<(Self::Buffer, Self::Buffer)>;

    /// One AdamW step in place: value *= 1 - lr wd, then the bias-corrected update. `m` and `v` are the moments.
    fn adamw(
        &self,
        step: AdamW,
        value: &mut Self::Buffer,
        grad: &Self::Buffer,
        m: &mut Self::Buffer,
        v: &mut Self::Buffer,
    ) -> Result<()>;
    /// One AdamW step of several values; `step`'s weight decay gives way to each item's own.
    fn adamw_all(&self, step: AdamW, items: &mut [AdamWItem<'_, Self::Buffer>]) -> Result<()> {
        for item in items {
            let step = AdamW { weight_decay: item.weight_decay, ..step };
            self.adamw(step, item.value, item.grad, item.m, item.v)?;
        }
        Ok(())
    }
    /// One AdamW step of several values, their gradients multiplied by min(1, most / (norm + 1e-6)) first where there is a `most`, as
    /// torch's clip_grad_norm_ does. Returns their norm, for later; where it is not finite, nothing changes.
    fn adamw_clipped(
        &self,
        step: AdamW,
        items: &mut [AdamWItem<'_, Self::Buffer>],
        most: Option<f64>,
    ) -> Result<LaterNumber> {
        let norm = self.sum_squares_all(&items.iter().map(|item| &*item.grad).collect::<Vec<_>>())?.sqrt();
        let later = Box::new(move || Ok(norm));
        if !norm.is_finite() {
            return Ok(later);
        }
        let factor = most.map_or(1.0, |most| most / (norm + 1e-6));
        if factor < 1.0 {
            items.iter_mut().try_for_each(|item| self.scale_assign(item.grad, factor))?;
        }
        self.adamw_all(step, items)?;
        Ok(later)
    }
}

/// Whether dropout with probability `p` keeps element `index`: a hash of (seed, index) against p, so that the backward pass and any other
/// device find the same mask without storing it. The mixing is SplitMix64's (Steele et al. 2014).
pub fn dropout_keeps(seed: u64, index: u64, p: f64) -> bool {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    // The top 24 bits as a fraction in [0, 1): exact in f32 too, so that every device decides alike.
    ((z >> 40) as f64) * (1.0 / (1u64 << 24) as f64) >= p
}
