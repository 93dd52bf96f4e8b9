//! The launch parameters of every kernel, as kernels/params.h lays them out, with their sizes and offsets checked.
//!
//! Written by tools/bindgen: edit kernels/params.h, then run `make params`.

#[doc = " Rows in granules, and those in pieces: a piece is summed by one block, a granule's pieces are added up on their own, and the granules are\n  added one after the other to what was there. Where a granule begins and ends depends on the images alone, so the sum is the same whatever\n  part of a batch is seen at once."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkCut {
    #[doc = " Rows in all."]
    pub rows: u32,
    #[doc = " Rows of a granule; the last may have fewer."]
    pub granule: u32,
    #[doc = " Rows of a piece; the last of a granule may have fewer."]
    pub piece: u32,
    #[doc = " Pieces of a whole granule."]
    pub per_granule: u32,
    #[doc = " Pieces in all."]
    pub pieces: u32,
    #[doc = " 1: the sum is added to what is there; 0: written over it."]
    pub add: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkCut"][::core::mem::size_of::<PeftkCut>() - 24usize];
    ["Alignment of PeftkCut"][::core::mem::align_of::<PeftkCut>() - 4usize];
    ["Offset of field: PeftkCut::rows"][::core::mem::offset_of!(PeftkCut, rows) - 0usize];
    ["Offset of field: PeftkCut::granule"][::core::mem::offset_of!(PeftkCut, granule) - 4usize];
    ["Offset of field: PeftkCut::piece"][::core::mem::offset_of!(PeftkCut, piece) - 8usize];
    ["Offset of field: PeftkCut::per_granule"][::core::mem::offset_of!(PeftkCut, per_granule) - 12usize];
    ["Offset of field: PeftkCut::pieces"][::core::mem::offset_of!(PeftkCut, pieces) - 16usize];
    ["Offset of field: PeftkCut::add"][::core::mem::offset_of!(PeftkCut, add) - 20usize];
};
#[doc = " One low-rank adapter on columns `first_row .. first_row + rows` of the output (rows of W)."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkGemmAdapter {
    #[doc = " A, `[rank_padded, k]`, operand type, rows beyond `rank` zero; in-loop form only."]
    pub a: u64,
    #[doc = " B, `[rows, rank_padded]`, operand type, columns beyond `rank` zero."]
    pub b: u64,
    #[doc = " DoRA's g, `[rows]` f32; 0: g = 1."]
    pub gain: u64,
    #[doc = " t = x A^T, `[m, rank_padded]`, operand type: written by the in-loop form, read by the form with t given."]
    pub t: u64,
    #[doc = " s: t is multiplied by it, in f32 before rounding, where it meets B."]
    pub scale: f32,
    #[doc = " First output column."]
    pub first_row: u32,
    #[doc = " Output columns."]
    pub rows: u32,
    #[doc = " Rank rounded up to a multiple of 16; 0: no adapter here."]
    pub rank_padded: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkGemmAdapter"][::core::mem::size_of::<PeftkGemmAdapter>() - 48usize];
    ["Alignment of PeftkGemmAdapter"][::core::mem::align_of::<PeftkGemmAdapter>() - 8usize];
    ["Offset of field: PeftkGemmAdapter::a"][::core::mem::offset_of!(PeftkGemmAdapter, a) - 0usize];
    ["Offset of field: PeftkGemmAdapter::b"][::core::mem::offset_of!(PeftkGemmAdapter, b) - 8usize];
    ["Offset of field: PeftkGemmAdapter::gain"][::core::mem::offset_of!(PeftkGemmAdapter, gain) - 16usize];
    ["Offset of field: PeftkGemmAdapter::t"][::core::mem::offset_of!(PeftkGemmAdapter, t) - 24usize];
    ["Offset of field: PeftkGemmAdapter::scale"][::core::mem::offset_of!(PeftkGemmAdapter, scale) - 32usize];
    ["Offset of field: PeftkGemmAdapter::first_row"][::core::mem::offset_of!(PeftkGemmAdapter, first_row) - 36usize];
    ["Offset of field: PeftkGemmAdapter::rows"][::core::mem::offset_of!(PeftkGemmAdapter, rows) - 40usize];
    ["Offset of field: PeftkGemmAdapter::rank_padded"]
        [::core::mem::offset_of!(PeftkGemmAdapter, rank_padded) - 44usize];
};
#[doc = " C `[m, n]` = epilogue(A B), all row-major, f32 accumulation."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkGemmParams {
    #[doc = " First operand: nt, nn `[m, k]`; tn `[k, m]`."]
    pub a: u64,
    #[doc = " Second operand: nt `[n, k]`; nn, tn `[k, n]`."]
    pub b: u64,
    #[doc = " Second product added in the same accumulator: nt, nn `[m, k2]`; 0: none."]
    pub a2: u64,
    #[doc = " Its second operand: nt `[n, k2]`; nn `[k2, n]`."]
    pub b2: u64,
    #[doc = " The result `[m, n]`; tn with pieces: `[pieces, m, n]` f32."]
    pub c: u64,
    #[doc = " bias `[n]` f32; 0: none."]
    pub bias: u64,
    #[doc = " Residual input `[m, n]` (epilogue scale_residual), of c's type."]
    pub residual: u64,
    #[doc = " LayerScale's gamma `[n]` f32."]
    pub gamma: u64,
    #[doc = " gelu: the pre-activation `[m, n]` written, of the operand type, 0: not; gelu_backward: the pre-activation read."]
    pub aux: u64,
    #[doc = " Adapters by first row; those not there have rank_padded 0."]
    pub adapters: [PeftkGemmAdapter; 3usize],
    #[doc = " Rows of C."]
    pub m: u32,
    #[doc = " Columns of C."]
    pub n: u32,
    #[doc = " Depth of the product."]
    pub k: u32,
    #[doc = " Depth of the second product."]
    pub k2: u32,
    #[doc = " Row stride of A, elements."]
    pub lda: u32,
    #[doc = " Row stride of B, elements."]
    pub ldb: u32,
    #[doc = " tn: how k is cut, each piece summed on its own; one piece and nothing to add to: c is the result."]
    pub cut: PeftkCut,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkGemmParams"][::core::mem::size_of::<PeftkGemmParams>() - 264usize];
    ["Alignment of PeftkGemmParams"][::core::mem::align_of::<PeftkGemmParams>() - 8usize];
    ["Offset of field: PeftkGemmParams::a"][::core::mem::offset_of!(PeftkGemmParams, a) - 0usize];
    ["Offset of field: PeftkGemmParams::b"][::core::mem::offset_of!(PeftkGemmParams, b) - 8usize];
    ["Offset of field: PeftkGemmParams::a2"][::core::mem::offset_of!(PeftkGemmParams, a2) - 16usize];
    ["Offset of field: PeftkGemmParams::b2"][::core::mem::offset_of!(PeftkGemmParams, b2) - 24usize];
    ["Offset of field: PeftkGemmParams::c"][::core::mem::offset_of!(PeftkGemmParams, c) - 32usize];
    ["Offset of field: PeftkGemmParams::bias"][::core::mem::offset_of!(PeftkGemmParams, bias) - 40usize];
    ["Offset of field: PeftkGemmParams::residual"][::core::mem::offset_of!(PeftkGemmParams, residual) - 48usize];
    ["Offset of field: PeftkGemmParams::gamma"][::core::mem::offset_of!(PeftkGemmParams, gamma) - 56usize];
    ["Offset of field: PeftkGemmParams::aux"][::core::mem::offset_of!(PeftkGemmParams, aux) - 64usize];
    ["Offset of field: PeftkGemmParams::adapters"][::core::mem::offset_of!(PeftkGemmParams, adapters) - 72usize];
    ["Offset of field: PeftkGemmParams::m"][::core::mem::offset_of!(PeftkGemmParams, m) - 216usize];
    ["Offset of field: PeftkGemmParams::n"][::core::mem::offset_of!(PeftkGemmParams, n) - 220usize];
    ["Offset of field: PeftkGemmParams::k"][::core::mem::offset_of!(PeftkGemmParams, k) - 224usize];
    ["Offset of field: PeftkGemmParams::k2"][::core::mem::offset_of!(PeftkGemmParams, k2) - 228usize];
    ["Offset of field: PeftkGemmParams::lda"][::core::mem::offset_of!(PeftkGemmParams, lda) - 232usize];
    ["Offset of field: PeftkGemmParams::ldb"][::core::mem::offset_of!(PeftkGemmParams, ldb) - 236usize];
    ["Offset of field: PeftkGemmParams::cut"][::core::mem::offset_of!(PeftkGemmParams, cut) - 240usize];
};
#[doc = " The end of a tn product: C `[rows, cols]` (+)= scale gain_i times the sum of the pieces."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkGemmReduceParams {
    #[doc = " `[pieces, m, n]` f32, read."]
    pub parts: u64,
    #[doc = " C `[rows, cols]` f32, written."]
    pub c: u64,
    #[doc = " A factor a row, `[rows]` f32; 0: none."]
    pub gain: u64,
    #[doc = " A factor."]
    pub scale: f32,
    #[doc = " Rows of a piece."]
    pub m: u32,
    #[doc = " Columns of a piece."]
    pub n: u32,
    #[doc = " Rows of C, at most m."]
    pub rows: u32,
    #[doc = " Columns of C, at most n."]
    pub cols: u32,
    #[doc = " 0."]
    pub padding: u32,
    #[doc = " The pieces."]
    pub cut: PeftkCut,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkGemmReduceParams"][::core::mem::size_of::<PeftkGemmReduceParams>() - 72usize];
    ["Alignment of PeftkGemmReduceParams"][::core::mem::align_of::<PeftkGemmReduceParams>() - 8usize];
    ["Offset of field: PeftkGemmReduceParams::parts"][::core::mem::offset_of!(PeftkGemmReduceParams, parts) - 0usize];
    ["Offset of field: PeftkGemmReduceParams::c"][::core::mem::offset_of!(PeftkGemmReduceParams, c) - 8usize];
    ["Offset of field: PeftkGemmReduceParams::gain"][::core::mem::offset_of!(PeftkGemmReduceParams, gain) - 16usize];
    ["Offset of field: PeftkGemmReduceParams::scale"][::core::mem::offset_of!(PeftkGemmReduceParams, scale) - 24usize];
    ["Offset of field: PeftkGemmReduceParams::m"][::core::mem::offset_of!(PeftkGemmReduceParams, m) - 28usize];
    ["Offset of field: PeftkGemmReduceParams::n"][::core::mem::offset_of!(PeftkGemmReduceParams, n) - 32usize];
    ["Offset of field: PeftkGemmReduceParams::rows"][::core::mem::offset_of!(PeftkGemmReduceParams, rows) - 36usize];
    ["Offset of field: PeftkGemmReduceParams::cols"][::core::mem::offset_of!(PeftkGemmReduceParams, cols) - 40usize];
    ["Offset of field: PeftkGemmReduceParams::padding"]
        [::core::mem::offset_of!(PeftkGemmReduceParams, padding) - 44usize];
    ["Offset of field: PeftkGemmReduceParams::cut"][::core::mem::offset_of!(PeftkGemmReduceParams, cut) - 48usize];
};
#[doc = " A CUtensorMap as bytes: made by cuTensorMapEncodeTiled, read by the copy engine."]
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkTensorMap {
    #[doc = " The driver's opaque 128 bytes."]
    pub words: [u64; 16usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkTensorMap"][::core::mem::size_of::<PeftkTensorMap>() - 128usize];
    ["Alignment of PeftkTensorMap"][::core::mem::align_of::<PeftkTensorMap>() - 64usize];
    ["Offset of field: PeftkTensorMap::words"][::core::mem::offset_of!(PeftkTensorMap, words) - 0usize];
};
#[doc = " A matrix product whose operands the copy engine loads; every map is 2D, bf16 but for f32 residual and C, 128-byte swizzle, out of bounds reads zero."]
#[repr(C)]
#[repr(align(64))]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkSm90GemmParams {
    #[doc = " 0: A, 1: B, 2: a2, 3: b2; in-loop adapters instead of the second product: 2 + 2 i its A, 3 + 2 i its B. 8: C, 9: the residual, or\n the pre-activation read or written; both in boxes of 16 rows of 128 bytes. C of tn has none."]
    pub maps: [PeftkTensorMap; 10usize],
    #[doc = " Sizes, outputs and epilogue operands."]
    pub gemm: PeftkGemmParams,
    #[doc = " Padding to a multiple of 64 bytes."]
    pub reserved: [u64; 7usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkSm90GemmParams"][::core::mem::size_of::<PeftkSm90GemmParams>() - 1600usize];
    ["Alignment of PeftkSm90GemmParams"][::core::mem::align_of::<PeftkSm90GemmParams>() - 64usize];
    ["Offset of field: PeftkSm90GemmParams::maps"][::core::mem::offset_of!(PeftkSm90GemmParams, maps) - 0usize];
    ["Offset of field: PeftkSm90GemmParams::gemm"][::core::mem::offset_of!(PeftkSm90GemmParams, gemm) - 1280usize];
    ["Offset of field: PeftkSm90GemmParams::reserved"]
        [::core::mem::offset_of!(PeftkSm90GemmParams, reserved) - 1544usize];
};
#[doc = " softmax(scale q k^T) v for every image and head. All matrices are row-major without gaps."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAttentionForwardParams {
    #[doc = " q, k and v side by side, heads inside each: `[batch * tokens, 3 * heads * head_dim]`, read."]
    pub qkv: u64,
    #[doc = " The result, `[batch * tokens, heads * head_dim]`, qkv's type, written."]
    pub out: u64,
    #[doc = " Natural log-sum-exp of each row of the scaled scores, `[batch, heads, tokens]` f32, written."]
    pub lse: u64,
    #[doc = " What q k^T is multiplied by: 1 / sqrt(head_dim)."]
    pub scale: f32,
    #[doc = " scale * log2(e): what turns q k^T into exponents of 2."]
    pub exponent_scale: f32,
    #[doc = " Tokens an image, from 1."]
    pub tokens: u32,
    #[doc = " Heads."]
    pub heads: u32,
    #[doc = " Width of a head: 64 for the tensor-core kernels, 1 to 128 for the others."]
    pub head_dim: u32,
    #[doc = " Images times heads."]
    pub pairs: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAttentionForwardParams"][::core::mem::size_of::<PeftkAttentionForwardParams>() - 48usize];
    ["Alignment of PeftkAttentionForwardParams"][::core::mem::align_of::<PeftkAttentionForwardParams>() - 8usize];
    ["Offset of field: PeftkAttentionForwardParams::qkv"]
        [::core::mem::offset_of!(PeftkAttentionForwardParams, qkv) - 0usize];
    ["Offset of field: PeftkAttentionForwardParams::out"]
        [::core::mem::offset_of!(PeftkAttentionForwardParams, out) - 8usize];
    ["Offset of field: PeftkAttentionForwardParams::lse"]
        [::core::mem::offset_of!(PeftkAttentionForwardParams, lse) - 16usize];
    ["Offset of field: PeftkAttentionForwardParams::scale"]
        [::core::mem::offset_of!(PeftkAttentionForwardParams, scale) - 24usize];
    ["Offset of field: PeftkAttentionForwardParams::exponent_scale"]
        [::core::mem::offset_of!(PeftkAttentionForwardParams, exponent_scale) - 28usize];
    ["Offset of field: PeftkAttentionForwardParams::tokens"]
        [::core::mem::offset_of!(PeftkAttentionForwardParams, tokens) - 32usize];
    ["Offset of field: PeftkAttentionForwardParams::heads"]
        [::core::mem::offset_of!(PeftkAttentionForwardParams, heads) - 36usize];
    ["Offset of field: PeftkAttentionForwardParams::head_dim"]
        [::core::mem::offset_of!(PeftkAttentionForwardParams, head_dim) - 40usize];
    ["Offset of field: PeftkAttentionForwardParams::pairs"]
        [::core::mem::offset_of!(PeftkAttentionForwardParams, pairs) - 44usize];
};
#[doc = " dqkv of the same operation."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAttentionBackwardParams {
    #[doc = " As in the forward pass, read."]
    pub qkv: u64,
    #[doc = " The forward pass's result, read."]
    pub out: u64,
    #[doc = " Its log-sum-exp, f32, read."]
    pub lse: u64,
    #[doc = " The result's gradient, laid out as out, read."]
    pub dout: u64,
    #[doc = " qkv's gradient, laid out as qkv, every element written."]
    pub dqkv: u64,
    #[doc = " `[batch, heads, tokens, 2]` f32: a row's log-sum-exp and rowsum(dout * out), from the pass over queries to the pass over\n  keys; unused (0) where one launch does both."]
    pub workspace: u64,
    #[doc = " What q k^T is multiplied by: 1 / sqrt(head_dim)."]
    pub scale: f32,
    #[doc = " scale * log2(e): what turns q k^T into exponents of 2."]
    pub exponent_scale: f32,
    #[doc = " Tokens an image, from 1."]
    pub tokens: u32,
    #[doc = " Heads."]
    pub heads: u32,
    #[doc = " Width of a head: 64 for the tensor-core kernels, 1 to 128 for the others."]
    pub head_dim: u32,
    #[doc = " Images times heads."]
    pub pairs: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAttentionBackwardParams"][::core::mem::size_of::<PeftkAttentionBackwardParams>() - 72usize];
    ["Alignment of PeftkAttentionBackwardParams"][::core::mem::align_of::<PeftkAttentionBackwardParams>() - 8usize];
    ["Offset of field: PeftkAttentionBackwardParams::qkv"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, qkv) - 0usize];
    ["Offset of field: PeftkAttentionBackwardParams::out"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, out) - 8usize];
    ["Offset of field: PeftkAttentionBackwardParams::lse"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, lse) - 16usize];
    ["Offset of field: PeftkAttentionBackwardParams::dout"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, dout) - 24usize];
    ["Offset of field: PeftkAttentionBackwardParams::dqkv"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, dqkv) - 32usize];
    ["Offset of field: PeftkAttentionBackwardParams::workspace"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, workspace) - 40usize];
    ["Offset of field: PeftkAttentionBackwardParams::scale"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, scale) - 48usize];
    ["Offset of field: PeftkAttentionBackwardParams::exponent_scale"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, exponent_scale) - 52usize];
    ["Offset of field: PeftkAttentionBackwardParams::tokens"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, tokens) - 56usize];
    ["Offset of field: PeftkAttentionBackwardParams::heads"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, heads) - 60usize];
    ["Offset of field: PeftkAttentionBackwardParams::head_dim"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, head_dim) - 64usize];
    ["Offset of field: PeftkAttentionBackwardParams::pairs"]
        [::core::mem::offset_of!(PeftkAttentionBackwardParams, pairs) - 68usize];
};
#[doc = " y = (x - mean) rstd weight + bias for every row. R: the residual stream's type, T: the activations' type."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkLayerNormParams {
    #[doc = " x, `[rows, cols]` R, read."]
    pub x: u64,
    #[doc = " weight, `[cols]` f32, read."]
    pub weight: u64,
    #[doc = " bias, `[cols]` f32, read."]
    pub bias: u64,
    #[doc = " y, `[rows, cols]` T, written."]
    pub y: u64,
    #[doc = " The rows' means, `[rows]` f32, written; 0: not wanted."]
    pub mean: u64,
    #[doc = " 1 / sqrt(variance + eps), `[rows]` f32, written; 0: not wanted."]
    pub rstd: u64,
    #[doc = " Added to the variance."]
    pub eps: f32,
    #[doc = " Tokens."]
    pub rows: u32,
    #[doc = " Width, 1 to 8192."]
    pub cols: u32,
    #[doc = " Warps that share a row: the smallest of 1, 2, 4, 8, 16 with `cols <= 512 warps_per_row`."]
    pub warps_per_row: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkLayerNormParams"][::core::mem::size_of::<PeftkLayerNormParams>() - 64usize];
    ["Alignment of PeftkLayerNormParams"][::core::mem::align_of::<PeftkLayerNormParams>() - 8usize];
    ["Offset of field: PeftkLayerNormParams::x"][::core::mem::offset_of!(PeftkLayerNormParams, x) - 0usize];
    ["Offset of field: PeftkLayerNormParams::weight"][::core::mem::offset_of!(PeftkLayerNormParams, weight) - 8usize];
    ["Offset of field: PeftkLayerNormParams::bias"][::core::mem::offset_of!(PeftkLayerNormParams, bias) - 16usize];
    ["Offset of field: PeftkLayerNormParams::y"][::core::mem::offset_of!(PeftkLayerNormParams, y) - 24usize];
    ["Offset of field: PeftkLayerNormParams::mean"][::core::mem::offset_of!(PeftkLayerNormParams, mean) - 32usize];
    ["Offset of field: PeftkLayerNormParams::rstd"][::core::mem::offset_of!(PeftkLayerNormParams, rstd) - 40usize];
    ["Offset of field: PeftkLayerNormParams::eps"][::core::mem::offset_of!(PeftkLayerNormParams, eps) - 48usize];
    ["Offset of field: PeftkLayerNormParams::rows"][::core::mem::offset_of!(PeftkLayerNormParams, rows) - 52usize];
    ["Offset of field: PeftkLayerNormParams::cols"][::core::mem::offset_of!(PeftkLayerNormParams, cols) - 56usize];
    ["Offset of field: PeftkLayerNormParams::warps_per_row"]
        [::core::mem::offset_of!(PeftkLayerNormParams, warps_per_row) - 60usize];
};
#[doc = " dx, and where asked for the granules' sums of dweight and dbias."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkLayerNormBackwardParams {
    #[doc = " x, `[rows, cols]` R, read."]
    pub x: u64,
    #[doc = " weight, `[cols]` f32, read."]
    pub weight: u64,
    #[doc = " The rows' means, `[rows]` f32, read."]
    pub mean: u64,
    #[doc = " The rows' rstd, `[rows]` f32, read."]
    pub rstd: u64,
    #[doc = " dL/dy, `[rows, cols]` T, read."]
    pub dy: u64,
    #[doc = " A gradient that is added to dx, `[rows, cols]` R, read; it may be dx itself. 0: none."]
    pub add: u64,
    #[doc = " dL/dx, `[rows, cols]` R, written; 0: not wanted."]
    pub dx: u64,
    #[doc = " The pieces' sums, `[pieces, 2, cols]` f32: dweight, dbias; of the entries with weights only."]
    pub partial: u64,
    #[doc = " LayerScale's gamma of what made x, `[cols]` f32, read; where `scaled` is written."]
    pub gamma: u64,
    #[doc = " gamma dx, with what was added, `[rows, cols]` T, written; 0: not wanted."]
    pub scaled: u64,
    #[doc = " Tokens."]
    pub rows: u32,
    #[doc = " Width, 1 to 8192."]
    pub cols: u32,
    #[doc = " As in PeftkLayerNormParams."]
    pub warps_per_row: u32,
    #[doc = " 0."]
    pub padding: u32,
    #[doc = " How the rows are cut, in pieces of at most 32; of the entries with weights only."]
    pub cut: PeftkCut,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkLayerNormBackwardParams"][::core::mem::size_of::<PeftkLayerNormBackwardParams>() - 120usize];
    ["Alignment of PeftkLayerNormBackwardParams"][::core::mem::align_of::<PeftkLayerNormBackwardParams>() - 8usize];
    ["Offset of field: PeftkLayerNormBackwardParams::x"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, x) - 0usize];
    ["Offset of field: PeftkLayerNormBackwardParams::weight"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, weight) - 8usize];
    ["Offset of field: PeftkLayerNormBackwardParams::mean"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, mean) - 16usize];
    ["Offset of field: PeftkLayerNormBackwardParams::rstd"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, rstd) - 24usize];
    ["Offset of field: PeftkLayerNormBackwardParams::dy"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, dy) - 32usize];
    ["Offset of field: PeftkLayerNormBackwardParams::add"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, add) - 40usize];
    ["Offset of field: PeftkLayerNormBackwardParams::dx"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, dx) - 48usize];
    ["Offset of field: PeftkLayerNormBackwardParams::partial"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, partial) - 56usize];
    ["Offset of field: PeftkLayerNormBackwardParams::gamma"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, gamma) - 64usize];
    ["Offset of field: PeftkLayerNormBackwardParams::scaled"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, scaled) - 72usize];
    ["Offset of field: PeftkLayerNormBackwardParams::rows"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, rows) - 80usize];
    ["Offset of field: PeftkLayerNormBackwardParams::cols"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, cols) - 84usize];
    ["Offset of field: PeftkLayerNormBackwardParams::warps_per_row"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, warps_per_row) - 88usize];
    ["Offset of field: PeftkLayerNormBackwardParams::padding"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, padding) - 92usize];
    ["Offset of field: PeftkLayerNormBackwardParams::cut"]
        [::core::mem::offset_of!(PeftkLayerNormBackwardParams, cut) - 96usize];
};
#[doc = " Sums over pieces of at most 128 rows: of a, or of a (b - bias)."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkColumnSumParams {
    #[doc = " First column of a, `[rows, cols]` T with row stride `lda`, read."]
    pub a: u64,
    #[doc = " First column of b, `[rows, cols]` T with row stride `ldb`, read; entries column_dot only."]
    pub b: u64,
    #[doc = " Subtracted from b, `[cols]` f32; 0: nothing."]
    pub bias: u64,
    #[doc = " The sums, `[pieces, cols]` f32, written."]
    pub partial: u64,
    #[doc = " How the rows are cut."]
    pub cut: PeftkCut,
    #[doc = " 0."]
    pub padding: u32,
    #[doc = " Columns that are summed."]
    pub cols: u32,
    #[doc = " Row stride of a, elements."]
    pub lda: u32,
    #[doc = " Row stride of b, elements."]
    pub ldb: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkColumnSumParams"][::core::mem::size_of::<PeftkColumnSumParams>() - 72usize];
    ["Alignment of PeftkColumnSumParams"][::core::mem::align_of::<PeftkColumnSumParams>() - 8usize];
    ["Offset of field: PeftkColumnSumParams::a"][::core::mem::offset_of!(PeftkColumnSumParams, a) - 0usize];
    ["Offset of field: PeftkColumnSumParams::b"][::core::mem::offset_of!(PeftkColumnSumParams, b) - 8usize];
    ["Offset of field: PeftkColumnSumParams::bias"][::core::mem::offset_of!(PeftkColumnSumParams, bias) - 16usize];
    ["Offset of field: PeftkColumnSumParams::partial"]
        [::core::mem::offset_of!(PeftkColumnSumParams, partial) - 24usize];
    ["Offset of field: PeftkColumnSumParams::cut"][::core::mem::offset_of!(PeftkColumnSumParams, cut) - 32usize];
    ["Offset of field: PeftkColumnSumParams::padding"]
        [::core::mem::offset_of!(PeftkColumnSumParams, padding) - 56usize];
    ["Offset of field: PeftkColumnSumParams::cols"][::core::mem::offset_of!(PeftkColumnSumParams, cols) - 60usize];
    ["Offset of field: PeftkColumnSumParams::lda"][::core::mem::offset_of!(PeftkColumnSumParams, lda) - 64usize];
    ["Offset of field: PeftkColumnSumParams::ldb"][::core::mem::offset_of!(PeftkColumnSumParams, ldb) - 68usize];
};
#[doc = " The second stage of every sum over rows."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkReducePartialsParams {
    #[doc = " `[pieces, cols]` f32, read."]
    pub partial: u64,
    #[doc = " DoRA's g, `[cols]` f32, which the sums are divided by, or 0 where g is 0; address 0: no division."]
    pub gain: u64,
    #[doc = " The first `split` sums, f32, written."]
    pub out: u64,
    #[doc = " The other `cols - split` sums, f32, written."]
    pub out_rest: u64,
    #[doc = " Columns."]
    pub cols: u32,
    #[doc = " Columns that belong to `out`."]
    pub split: u32,
    #[doc = " The pieces."]
    pub cut: PeftkCut,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkReducePartialsParams"][::core::mem::size_of::<PeftkReducePartialsParams>() - 64usize];
    ["Alignment of PeftkReducePartialsParams"][::core::mem::align_of::<PeftkReducePartialsParams>() - 8usize];
    ["Offset of field: PeftkReducePartialsParams::partial"]
        [::core::mem::offset_of!(PeftkReducePartialsParams, partial) - 0usize];
    ["Offset of field: PeftkReducePartialsParams::gain"]
        [::core::mem::offset_of!(PeftkReducePartialsParams, gain) - 8usize];
    ["Offset of field: PeftkReducePartialsParams::out"]
        [::core::mem::offset_of!(PeftkReducePartialsParams, out) - 16usize];
    ["Offset of field: PeftkReducePartialsParams::out_rest"]
        [::core::mem::offset_of!(PeftkReducePartialsParams, out_rest) - 24usize];
    ["Offset of field: PeftkReducePartialsParams::cols"]
        [::core::mem::offset_of!(PeftkReducePartialsParams, cols) - 32usize];
    ["Offset of field: PeftkReducePartialsParams::split"]
        [::core::mem::offset_of!(PeftkReducePartialsParams, split) - 36usize];
    ["Offset of field: PeftkReducePartialsParams::cut"]
        [::core::mem::offset_of!(PeftkReducePartialsParams, cut) - 40usize];
};
#[doc = " LayerScale with its residual: y = x + gamma h."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkLayerScaleParams {
    #[doc = " x, `[rows, cols]` R, read."]
    pub x: u64,
    #[doc = " h, `[rows, cols]` T, read."]
    pub h: u64,
    #[doc = " gamma, `[cols]` f32, read."]
    pub gamma: u64,
    #[doc = " y, `[rows, cols]` R, written; it may be x itself."]
    pub y: u64,
    #[doc = " Tokens."]
    pub rows: u32,
    #[doc = " Width."]
    pub cols: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkLayerScaleParams"][::core::mem::size_of::<PeftkLayerScaleParams>() - 40usize];
    ["Alignment of PeftkLayerScaleParams"][::core::mem::align_of::<PeftkLayerScaleParams>() - 8usize];
    ["Offset of field: PeftkLayerScaleParams::x"][::core::mem::offset_of!(PeftkLayerScaleParams, x) - 0usize];
    ["Offset of field: PeftkLayerScaleParams::h"][::core::mem::offset_of!(PeftkLayerScaleParams, h) - 8usize];
    ["Offset of field: PeftkLayerScaleParams::gamma"][::core::mem::offset_of!(PeftkLayerScaleParams, gamma) - 16usize];
    ["Offset of field: PeftkLayerScaleParams::y"][::core::mem::offset_of!(PeftkLayerScaleParams, y) - 24usize];
    ["Offset of field: PeftkLayerScaleParams::rows"][::core::mem::offset_of!(PeftkLayerScaleParams, rows) - 32usize];
    ["Offset of field: PeftkLayerScaleParams::cols"][::core::mem::offset_of!(PeftkLayerScaleParams, cols) - 36usize];
};
#[doc = " dh = gamma dy, and where asked for the granules' sums of dgamma = sum dy h."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkLayerScaleBackwardParams {
    #[doc = " h, `[rows, cols]` T, read; 0 when dgamma is not wanted."]
    pub h: u64,
    #[doc = " gamma, `[cols]` f32, read."]
    pub gamma: u64,
    #[doc = " dL/dy, `[rows, cols]` R, read."]
    pub dy: u64,
    #[doc = " dL/dh, `[rows, cols]` T, written; 0: not wanted."]
    pub dh: u64,
    #[doc = " The pieces' sums, `[pieces, cols]` f32, written; 0: not wanted."]
    pub partial: u64,
    #[doc = " How the tokens are cut, in pieces of at most 128."]
    pub cut: PeftkCut,
    #[doc = " Width."]
    pub cols: u32,
    #[doc = " 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkLayerScaleBackwardParams"][::core::mem::size_of::<PeftkLayerScaleBackwardParams>() - 72usize];
    ["Alignment of PeftkLayerScaleBackwardParams"][::core::mem::align_of::<PeftkLayerScaleBackwardParams>() - 8usize];
    ["Offset of field: PeftkLayerScaleBackwardParams::h"]
        [::core::mem::offset_of!(PeftkLayerScaleBackwardParams, h) - 0usize];
    ["Offset of field: PeftkLayerScaleBackwardParams::gamma"]
        [::core::mem::offset_of!(PeftkLayerScaleBackwardParams, gamma) - 8usize];
    ["Offset of field: PeftkLayerScaleBackwardParams::dy"]
        [::core::mem::offset_of!(PeftkLayerScaleBackwardParams, dy) - 16usize];
    ["Offset of field: PeftkLayerScaleBackwardParams::dh"]
        [::core::mem::offset_of!(PeftkLayerScaleBackwardParams, dh) - 24usize];
    ["Offset of field: PeftkLayerScaleBackwardParams::partial"]
        [::core::mem::offset_of!(PeftkLayerScaleBackwardParams, partial) - 32usize];
    ["Offset of field: PeftkLayerScaleBackwardParams::cut"]
        [::core::mem::offset_of!(PeftkLayerScaleBackwardParams, cut) - 40usize];
    ["Offset of field: PeftkLayerScaleBackwardParams::cols"]
        [::core::mem::offset_of!(PeftkLayerScaleBackwardParams, cols) - 64usize];
    ["Offset of field: PeftkLayerScaleBackwardParams::padding"]
        [::core::mem::offset_of!(PeftkLayerScaleBackwardParams, padding) - 68usize];
};
#[doc = " y = f(x) over `count` elements."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkMapParams {
    #[doc = " x, read."]
    pub x: u64,
    #[doc = " y, written; it may be x itself."]
    pub y: u64,
    #[doc = " Elements."]
    pub count: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkMapParams"][::core::mem::size_of::<PeftkMapParams>() - 24usize];
    ["Alignment of PeftkMapParams"][::core::mem::align_of::<PeftkMapParams>() - 8usize];
    ["Offset of field: PeftkMapParams::x"][::core::mem::offset_of!(PeftkMapParams, x) - 0usize];
    ["Offset of field: PeftkMapParams::y"][::core::mem::offset_of!(PeftkMapParams, y) - 8usize];
    ["Offset of field: PeftkMapParams::count"][::core::mem::offset_of!(PeftkMapParams, count) - 16usize];
};
#[doc = " dx = dy f'(x) over `count` elements."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkMapBackwardParams {
    #[doc = " x, read."]
    pub x: u64,
    #[doc = " dL/dy, read."]
    pub dy: u64,
    #[doc = " dL/dx, written; it may be dy itself."]
    pub dx: u64,
    #[doc = " Elements."]
    pub count: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkMapBackwardParams"][::core::mem::size_of::<PeftkMapBackwardParams>() - 32usize];
    ["Alignment of PeftkMapBackwardParams"][::core::mem::align_of::<PeftkMapBackwardParams>() - 8usize];
    ["Offset of field: PeftkMapBackwardParams::x"][::core::mem::offset_of!(PeftkMapBackwardParams, x) - 0usize];
    ["Offset of field: PeftkMapBackwardParams::dy"][::core::mem::offset_of!(PeftkMapBackwardParams, dy) - 8usize];
    ["Offset of field: PeftkMapBackwardParams::dx"][::core::mem::offset_of!(PeftkMapBackwardParams, dx) - 16usize];
    ["Offset of field: PeftkMapBackwardParams::count"]
        [::core::mem::offset_of!(PeftkMapBackwardParams, count) - 24usize];
};
#[doc = " SwiGLU: y = silu(gate) up."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkSwigluParams {
    #[doc = " h = gate | up, `[rows, 2 width]`, read."]
    pub h: u64,
    #[doc = " dL/dy, `[rows, width]`, read; backward only."]
    pub dy: u64,
    #[doc = " y, `[rows, width]`; backward: dh, `[rows, 2 width]`; written."]
    pub out: u64,
    #[doc = " Tokens."]
    pub rows: u32,
    #[doc = " Width of y."]
    pub width: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkSwigluParams"][::core::mem::size_of::<PeftkSwigluParams>() - 32usize];
    ["Alignment of PeftkSwigluParams"][::core::mem::align_of::<PeftkSwigluParams>() - 8usize];
    ["Offset of field: PeftkSwigluParams::h"][::core::mem::offset_of!(PeftkSwigluParams, h) - 0usize];
    ["Offset of field: PeftkSwigluParams::dy"][::core::mem::offset_of!(PeftkSwigluParams, dy) - 8usize];
    ["Offset of field: PeftkSwigluParams::out"][::core::mem::offset_of!(PeftkSwigluParams, out) - 16usize];
    ["Offset of field: PeftkSwigluParams::rows"][::core::mem::offset_of!(PeftkSwigluParams, rows) - 24usize];
    ["Offset of field: PeftkSwigluParams::width"][::core::mem::offset_of!(PeftkSwigluParams, width) - 28usize];
};
#[doc = " x *= factor, or x = factor."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkScaleParams {
    #[doc = " x, read and written."]
    pub x: u64,
    #[doc = " Elements."]
    pub count: u64,
    #[doc = " The factor; in entry fill the value."]
    pub factor: f32,
    #[doc = " 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkScaleParams"][::core::mem::size_of::<PeftkScaleParams>() - 24usize];
    ["Alignment of PeftkScaleParams"][::core::mem::align_of::<PeftkScaleParams>() - 8usize];
    ["Offset of field: PeftkScaleParams::x"][::core::mem::offset_of!(PeftkScaleParams, x) - 0usize];
    ["Offset of field: PeftkScaleParams::count"][::core::mem::offset_of!(PeftkScaleParams, count) - 8usize];
    ["Offset of field: PeftkScaleParams::factor"][::core::mem::offset_of!(PeftkScaleParams, factor) - 16usize];
    ["Offset of field: PeftkScaleParams::padding"][::core::mem::offset_of!(PeftkScaleParams, padding) - 20usize];
};
#[doc = " Rows copied to another type and row stride; what is beyond `cols` in a written row becomes 0."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkCastParams {
    #[doc = " `[rows, cols]` with row stride `ld_source`, read."]
    pub source: u64,
    #[doc = " `[rows, ld_target]`, written."]
    pub target: u64,
    #[doc = " Rows."]
    pub rows: u32,
    #[doc = " Columns."]
    pub cols: u32,
    #[doc = " Row stride of the source, elements."]
    pub ld_source: u32,
    #[doc = " Row stride of the target, elements, at least `cols`."]
    pub ld_target: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkCastParams"][::core::mem::size_of::<PeftkCastParams>() - 32usize];
    ["Alignment of PeftkCastParams"][::core::mem::align_of::<PeftkCastParams>() - 8usize];
    ["Offset of field: PeftkCastParams::source"][::core::mem::offset_of!(PeftkCastParams, source) - 0usize];
    ["Offset of field: PeftkCastParams::target"][::core::mem::offset_of!(PeftkCastParams, target) - 8usize];
    ["Offset of field: PeftkCastParams::rows"][::core::mem::offset_of!(PeftkCastParams, rows) - 16usize];
    ["Offset of field: PeftkCastParams::cols"][::core::mem::offset_of!(PeftkCastParams, cols) - 20usize];
    ["Offset of field: PeftkCastParams::ld_source"][::core::mem::offset_of!(PeftkCastParams, ld_source) - 24usize];
    ["Offset of field: PeftkCastParams::ld_target"][::core::mem::offset_of!(PeftkCastParams, ld_target) - 28usize];
};
#[doc = " Inverted dropout: y = x / (1 - p) where the hash of (seed, index) is large enough, else 0."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkDropoutParams {
    #[doc = " x, read."]
    pub x: u64,
    #[doc = " y, written; it may be x itself."]
    pub y: u64,
    #[doc = " Elements."]
    pub count: u64,
    #[doc = " The mask's seed."]
    pub seed: u64,
    #[doc = " Element i is kept when the hash's upper 24 bits are at least this: p 2^24, rounded up."]
    pub threshold: u32,
    #[doc = " 1 / (1 - p)."]
    pub scale: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkDropoutParams"][::core::mem::size_of::<PeftkDropoutParams>() - 40usize];
    ["Alignment of PeftkDropoutParams"][::core::mem::align_of::<PeftkDropoutParams>() - 8usize];
    ["Offset of field: PeftkDropoutParams::x"][::core::mem::offset_of!(PeftkDropoutParams, x) - 0usize];
    ["Offset of field: PeftkDropoutParams::y"][::core::mem::offset_of!(PeftkDropoutParams, y) - 8usize];
    ["Offset of field: PeftkDropoutParams::count"][::core::mem::offset_of!(PeftkDropoutParams, count) - 16usize];
    ["Offset of field: PeftkDropoutParams::seed"][::core::mem::offset_of!(PeftkDropoutParams, seed) - 24usize];
    ["Offset of field: PeftkDropoutParams::threshold"]
        [::core::mem::offset_of!(PeftkDropoutParams, threshold) - 32usize];
    ["Offset of field: PeftkDropoutParams::scale"][::core::mem::offset_of!(PeftkDropoutParams, scale) - 36usize];
};
#[doc = " Normalised patches of u8 images."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkPatchesParams {
    #[doc = " `[batch, size, size, 3]` u8, read."]
    pub images: u64,
    #[doc = " `[batch (size / patch)^2, ld]` T, columns ordered channel, row, column; written, zero beyond 3 patch^2."]
    pub patches: u64,
    #[doc = " 1 / (255 std) of red, green and blue."]
    pub scale: [f32; 3usize],
    #[doc = " -mean / std of red, green and blue."]
    pub shift: [f32; 3usize],
    #[doc = " Images."]
    pub batch: u32,
    #[doc = " Pixels along an image's side."]
    pub size: u32,
    #[doc = " Pixels along a patch's side; divides `size`."]
    pub patch: u32,
    #[doc = " Row stride of the patches, elements."]
    pub ld: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkPatchesParams"][::core::mem::size_of::<PeftkPatchesParams>() - 56usize];
    ["Alignment of PeftkPatchesParams"][::core::mem::align_of::<PeftkPatchesParams>() - 8usize];
    ["Offset of field: PeftkPatchesParams::images"][::core::mem::offset_of!(PeftkPatchesParams, images) - 0usize];
    ["Offset of field: PeftkPatchesParams::patches"][::core::mem::offset_of!(PeftkPatchesParams, patches) - 8usize];
    ["Offset of field: PeftkPatchesParams::scale"][::core::mem::offset_of!(PeftkPatchesParams, scale) - 16usize];
    ["Offset of field: PeftkPatchesParams::shift"][::core::mem::offset_of!(PeftkPatchesParams, shift) - 28usize];
    ["Offset of field: PeftkPatchesParams::batch"][::core::mem::offset_of!(PeftkPatchesParams, batch) - 40usize];
    ["Offset of field: PeftkPatchesParams::size"][::core::mem::offset_of!(PeftkPatchesParams, size) - 44usize];
    ["Offset of field: PeftkPatchesParams::patch"][::core::mem::offset_of!(PeftkPatchesParams, patch) - 48usize];
    ["Offset of field: PeftkPatchesParams::ld"][::core::mem::offset_of!(PeftkPatchesParams, ld) - 52usize];
};
#[doc = " The token sequences CLS, registers, patches; or the gradients of what they were made of."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkTokensParams {
    #[doc = " Forward: patches `[batch patches, width]` T, read. Backward: dpatches, written; 0: not wanted."]
    pub patches: u64,
    #[doc = " cls `[width]` f32, read; backward: dcls, written; 0: not wanted."]
    pub cls: u64,
    #[doc = " pos `[1 + patches, width]` f32, read; backward: dpos, written; 0: not wanted."]
    pub pos: u64,
    #[doc = " registers `[registers, width]` f32, read; backward: dregisters, written; 0: not wanted."]
    pub registers: u64,
    #[doc = " x `[batch tokens, width]` R, written; backward: dx, read."]
    pub x: u64,
    #[doc = " Images."]
    pub batch: u32,
    #[doc = " Register tokens an image."]
    pub register_count: u32,
    #[doc = " Patch tokens an image."]
    pub patch_count: u32,
    #[doc = " Width."]
    pub width: u32,
    #[doc = " Backward: 1: dcls, dpos and dregisters are added to; 0: written."]
    pub add: u32,
    #[doc = " 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkTokensParams"][::core::mem::size_of::<PeftkTokensParams>() - 64usize];
    ["Alignment of PeftkTokensParams"][::core::mem::align_of::<PeftkTokensParams>() - 8usize];
    ["Offset of field: PeftkTokensParams::patches"][::core::mem::offset_of!(PeftkTokensParams, patches) - 0usize];
    ["Offset of field: PeftkTokensParams::cls"][::core::mem::offset_of!(PeftkTokensParams, cls) - 8usize];
    ["Offset of field: PeftkTokensParams::pos"][::core::mem::offset_of!(PeftkTokensParams, pos) - 16usize];
    ["Offset of field: PeftkTokensParams::registers"][::core::mem::offset_of!(PeftkTokensParams, registers) - 24usize];
    ["Offset of field: PeftkTokensParams::x"][::core::mem::offset_of!(PeftkTokensParams, x) - 32usize];
    ["Offset of field: PeftkTokensParams::batch"][::core::mem::offset_of!(PeftkTokensParams, batch) - 40usize];
    ["Offset of field: PeftkTokensParams::register_count"]
        [::core::mem::offset_of!(PeftkTokensParams, register_count) - 44usize];
    ["Offset of field: PeftkTokensParams::patch_count"]
        [::core::mem::offset_of!(PeftkTokensParams, patch_count) - 48usize];
    ["Offset of field: PeftkTokensParams::width"][::core::mem::offset_of!(PeftkTokensParams, width) - 52usize];
    ["Offset of field: PeftkTokensParams::add"][::core::mem::offset_of!(PeftkTokensParams, add) - 56usize];
    ["Offset of field: PeftkTokensParams::padding"][::core::mem::offset_of!(PeftkTokensParams, padding) - 60usize];
};
#[doc = " The head's input from the tokens, or the tokens' gradient from it."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkPoolParams {
    #[doc = " x `[batch tokens, width]` T, read; backward: dx, written."]
    pub x: u64,
    #[doc = " CLS, or CLS | mean of the patches, `[batch, width or 2 width]` f32, written; backward: its gradient, read."]
    pub pooled: u64,
    #[doc = " Images."]
    pub batch: u32,
    #[doc = " Register tokens an image."]
    pub register_count: u32,
    #[doc = " Patch tokens an image."]
    pub patch_count: u32,
    #[doc = " Width."]
    pub width: u32,
    #[doc = " 1: with the mean of the patches."]
    pub with_mean: u32,
    #[doc = " 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkPoolParams"][::core::mem::size_of::<PeftkPoolParams>() - 40usize];
    ["Alignment of PeftkPoolParams"][::core::mem::align_of::<PeftkPoolParams>() - 8usize];
    ["Offset of field: PeftkPoolParams::x"][::core::mem::offset_of!(PeftkPoolParams, x) - 0usize];
    ["Offset of field: PeftkPoolParams::pooled"][::core::mem::offset_of!(PeftkPoolParams, pooled) - 8usize];
    ["Offset of field: PeftkPoolParams::batch"][::core::mem::offset_of!(PeftkPoolParams, batch) - 16usize];
    ["Offset of field: PeftkPoolParams::register_count"]
        [::core::mem::offset_of!(PeftkPoolParams, register_count) - 20usize];
    ["Offset of field: PeftkPoolParams::patch_count"][::core::mem::offset_of!(PeftkPoolParams, patch_count) - 24usize];
    ["Offset of field: PeftkPoolParams::width"][::core::mem::offset_of!(PeftkPoolParams, width) - 28usize];
    ["Offset of field: PeftkPoolParams::with_mean"][::core::mem::offset_of!(PeftkPoolParams, with_mean) - 32usize];
    ["Offset of field: PeftkPoolParams::padding"][::core::mem::offset_of!(PeftkPoolParams, padding) - 36usize];
};
#[doc = " Positions for another grid: row 0 stays, the others are a matrix times the old ones; or the transpose of that."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkPositionsParams {
    #[doc = " pos `[1 + from, width]` f32, read; backward: dy `[1 + to, width]`."]
    pub source: u64,
    #[doc = " `[to, from]` f32, read."]
    pub matrix: u64,
    #[doc = " `[1 + to, width]` f32, written; backward: dpos `[1 + from, width]`."]
    pub target: u64,
    #[doc = " Old patch positions."]
    pub from: u32,
    #[doc = " New patch positions."]
    pub to: u32,
    #[doc = " Width."]
    pub width: u32,
    #[doc = " 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkPositionsParams"][::core::mem::size_of::<PeftkPositionsParams>() - 40usize];
    ["Alignment of PeftkPositionsParams"][::core::mem::align_of::<PeftkPositionsParams>() - 8usize];
    ["Offset of field: PeftkPositionsParams::source"][::core::mem::offset_of!(PeftkPositionsParams, source) - 0usize];
    ["Offset of field: PeftkPositionsParams::matrix"][::core::mem::offset_of!(PeftkPositionsParams, matrix) - 8usize];
    ["Offset of field: PeftkPositionsParams::target"][::core::mem::offset_of!(PeftkPositionsParams, target) - 16usize];
    ["Offset of field: PeftkPositionsParams::from"][::core::mem::offset_of!(PeftkPositionsParams, from) - 24usize];
    ["Offset of field: PeftkPositionsParams::to"][::core::mem::offset_of!(PeftkPositionsParams, to) - 28usize];
    ["Offset of field: PeftkPositionsParams::width"][::core::mem::offset_of!(PeftkPositionsParams, width) - 32usize];
    ["Offset of field: PeftkPositionsParams::padding"]
        [::core::mem::offset_of!(PeftkPositionsParams, padding) - 36usize];
};
#[doc = " Softmax cross-entropy with label smoothing: a loss a row, and dlogits."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkCrossEntropyParams {
    #[doc = " First class of the logits, `[rows, classes]` f32 with row stride `ld`, read."]
    pub logits: u64,
    #[doc = " The rows' classes, `[rows]` i32, read; negative: the row has none, its loss and gradient are 0."]
    pub labels: u64,
    #[doc = " The rows' losses, `[rows]` f32, written, not yet divided."]
    pub partial: u64,
    #[doc = " dL/dlogits, laid out as the logits, written; it may be the logits themselves."]
    pub dlogits: u64,
    #[doc = " What the loss of a row of each class is multiplied by, `[classes]` f32, read; 0: nothing is."]
    pub weights: u64,
    #[doc = " Weight of the even distribution in the target."]
    pub smoothing: f32,
    #[doc = " What the loss is divided by."]
    pub denominator: f32,
    #[doc = " Rows."]
    pub rows: u32,
    #[doc = " Classes."]
    pub classes: u32,
    #[doc = " Row stride of logits and dlogits, elements."]
    pub ld: u32,
    #[doc = " 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkCrossEntropyParams"][::core::mem::size_of::<PeftkCrossEntropyParams>() - 64usize];
    ["Alignment of PeftkCrossEntropyParams"][::core::mem::align_of::<PeftkCrossEntropyParams>() - 8usize];
    ["Offset of field: PeftkCrossEntropyParams::logits"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, logits) - 0usize];
    ["Offset of field: PeftkCrossEntropyParams::labels"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, labels) - 8usize];
    ["Offset of field: PeftkCrossEntropyParams::partial"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, partial) - 16usize];
    ["Offset of field: PeftkCrossEntropyParams::dlogits"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, dlogits) - 24usize];
    ["Offset of field: PeftkCrossEntropyParams::weights"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, weights) - 32usize];
    ["Offset of field: PeftkCrossEntropyParams::smoothing"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, smoothing) - 40usize];
    ["Offset of field: PeftkCrossEntropyParams::denominator"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, denominator) - 44usize];
    ["Offset of field: PeftkCrossEntropyParams::rows"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, rows) - 48usize];
    ["Offset of field: PeftkCrossEntropyParams::classes"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, classes) - 52usize];
    ["Offset of field: PeftkCrossEntropyParams::ld"][::core::mem::offset_of!(PeftkCrossEntropyParams, ld) - 56usize];
    ["Offset of field: PeftkCrossEntropyParams::padding"]
        [::core::mem::offset_of!(PeftkCrossEntropyParams, padding) - 60usize];
};
#[doc = " Losses of sigmoids against targets of the logits' shape: a loss a row, and dlogits."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkSigmoidLossParams {
    #[doc = " First column of the logits, `[rows, cols]` f32 with row stride `ld`, read."]
    pub logits: u64,
    #[doc = " Targets `[rows, cols]` f32 without gaps, read; negative entries count for nothing."]
    pub targets: u64,
    #[doc = " The rows' losses, `[rows]` f32, written, not yet divided."]
    pub partial: u64,
    #[doc = " dL/dlogits, laid out as the logits, written; it may be the logits themselves."]
    pub dlogits: u64,
    #[doc = " What the loss is divided by."]
    pub denominator: f32,
    #[doc = " Asymmetric loss: focusing of positives, gamma+."]
    pub gamma_positive: f32,
    #[doc = " Asymmetric loss: focusing of negatives, gamma-."]
    pub gamma_negative: f32,
    #[doc = " Asymmetric loss: how far negatives' probabilities are shifted down."]
    pub clip: f32,
    #[doc = " Asymmetric loss: weight of the positives."]
    pub positive_weight: f32,
    #[doc = " Rows."]
    pub rows: u32,
    #[doc = " Columns."]
    pub cols: u32,
    #[doc = " Row stride of logits and dlogits, elements."]
    pub ld: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkSigmoidLossParams"][::core::mem::size_of::<PeftkSigmoidLossParams>() - 64usize];
    ["Alignment of PeftkSigmoidLossParams"][::core::mem::align_of::<PeftkSigmoidLossParams>() - 8usize];
    ["Offset of field: PeftkSigmoidLossParams::logits"]
        [::core::mem::offset_of!(PeftkSigmoidLossParams, logits) - 0usize];
    ["Offset of field: PeftkSigmoidLossParams::targets"]
        [::core::mem::offset_of!(PeftkSigmoidLossParams, targets) - 8usize];
    ["Offset of field: PeftkSigmoidLossParams::partial"]
        [::core::mem::offset_of!(PeftkSigmoidLossParams, partial) - 16usize];
    ["Offset of field: PeftkSigmoidLossParams::dlogits"]
        [::core::mem::offset_of!(PeftkSigmoidLossParams, dlogits) - 24usize];
    ["Offset of field: PeftkSigmoidLossParams::denominator"]
        [::core::mem::offset_of!(PeftkSigmoidLossParams, denominator) - 32usize];
    ["Offset of field: PeftkSigmoidLossParams::gamma_positive"]
        [::core::mem::offset_of!(PeftkSigmoidLossParams, gamma_positive) - 36usize];
    ["Offset of field: PeftkSigmoidLossParams::gamma_negative"]
        [::core::mem::offset_of!(PeftkSigmoidLossParams, gamma_negative) - 40usize];
    ["Offset of field: PeftkSigmoidLossParams::clip"][::core::mem::offset_of!(PeftkSigmoidLossParams, clip) - 44usize];
    ["Offset of field: PeftkSigmoidLossParams::positive_weight"]
        [::core::mem::offset_of!(PeftkSigmoidLossParams, positive_weight) - 48usize];
    ["Offset of field: PeftkSigmoidLossParams::rows"][::core::mem::offset_of!(PeftkSigmoidLossParams, rows) - 52usize];
    ["Offset of field: PeftkSigmoidLossParams::cols"][::core::mem::offset_of!(PeftkSigmoidLossParams, cols) - 56usize];
    ["Offset of field: PeftkSigmoidLossParams::ld"][::core::mem::offset_of!(PeftkSigmoidLossParams, ld) - 60usize];
};
#[doc = " Softmax heads side by side, and sigmoids behind them: a loss a row, and dlogits."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkTreeLossParams {
    #[doc = " Logits `[rows, cols]` f32 without gaps, read."]
    pub logits: u64,
    #[doc = " Targets of their shape, read: in a head at most one entry is 1; behind the heads negative entries count for nothing."]
    pub targets: u64,
    #[doc = " The first column of each head and of what is behind the last, `[heads + 1]` i32, read."]
    pub begins: u64,
    #[doc = " The rows' losses, `[rows]` f32, written, not yet divided."]
    pub partial: u64,
    #[doc = " dL/dlogits, written; it may be the logits themselves."]
    pub dlogits: u64,
    #[doc = " What the loss is divided by."]
    pub denominator: f32,
    #[doc = " Weight of the even distribution in a head's target."]
    pub smoothing: f32,
    #[doc = " Asymmetric loss: focusing of positives, gamma+."]
    pub gamma_positive: f32,
    #[doc = " Asymmetric loss: focusing of negatives, gamma-."]
    pub gamma_negative: f32,
    #[doc = " Asymmetric loss: how far negatives' probabilities are shifted down."]
    pub clip: f32,
    #[doc = " Asymmetric loss: weight of the positives."]
    pub positive_weight: f32,
    #[doc = " Rows."]
    pub rows: u32,
    #[doc = " Columns."]
    pub cols: u32,
    #[doc = " Heads."]
    pub heads: u32,
    #[doc = " 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkTreeLossParams"][::core::mem::size_of::<PeftkTreeLossParams>() - 80usize];
    ["Alignment of PeftkTreeLossParams"][::core::mem::align_of::<PeftkTreeLossParams>() - 8usize];
    ["Offset of field: PeftkTreeLossParams::logits"][::core::mem::offset_of!(PeftkTreeLossParams, logits) - 0usize];
    ["Offset of field: PeftkTreeLossParams::targets"][::core::mem::offset_of!(PeftkTreeLossParams, targets) - 8usize];
    ["Offset of field: PeftkTreeLossParams::begins"][::core::mem::offset_of!(PeftkTreeLossParams, begins) - 16usize];
    ["Offset of field: PeftkTreeLossParams::partial"][::core::mem::offset_of!(PeftkTreeLossParams, partial) - 24usize];
    ["Offset of field: PeftkTreeLossParams::dlogits"][::core::mem::offset_of!(PeftkTreeLossParams, dlogits) - 32usize];
    ["Offset of field: PeftkTreeLossParams::denominator"]
        [::core::mem::offset_of!(PeftkTreeLossParams, denominator) - 40usize];
    ["Offset of field: PeftkTreeLossParams::smoothing"]
        [::core::mem::offset_of!(PeftkTreeLossParams, smoothing) - 44usize];
    ["Offset of field: PeftkTreeLossParams::gamma_positive"]
        [::core::mem::offset_of!(PeftkTreeLossParams, gamma_positive) - 48usize];
    ["Offset of field: PeftkTreeLossParams::gamma_negative"]
        [::core::mem::offset_of!(PeftkTreeLossParams, gamma_negative) - 52usize];
    ["Offset of field: PeftkTreeLossParams::clip"][::core::mem::offset_of!(PeftkTreeLossParams, clip) - 56usize];
    ["Offset of field: PeftkTreeLossParams::positive_weight"]
        [::core::mem::offset_of!(PeftkTreeLossParams, positive_weight) - 60usize];
    ["Offset of field: PeftkTreeLossParams::rows"][::core::mem::offset_of!(PeftkTreeLossParams, rows) - 64usize];
    ["Offset of field: PeftkTreeLossParams::cols"][::core::mem::offset_of!(PeftkTreeLossParams, cols) - 68usize];
    ["Offset of field: PeftkTreeLossParams::heads"][::core::mem::offset_of!(PeftkTreeLossParams, heads) - 72usize];
    ["Offset of field: PeftkTreeLossParams::padding"][::core::mem::offset_of!(PeftkTreeLossParams, padding) - 76usize];
};
#[doc = " The loss from its rows'."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkLossSumParams {
    #[doc = " `[count]` f32, read."]
    pub partial: u64,
    #[doc = " The loss, `[1]` f32, written."]
    pub loss: u64,
    #[doc = " What each is divided by."]
    pub denominator: f32,
    #[doc = " Rows."]
    pub count: u32,
    #[doc = " 1: added to what is there; 0: written over it."]
    pub accumulate: u32,
    #[doc = " 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkLossSumParams"][::core::mem::size_of::<PeftkLossSumParams>() - 32usize];
    ["Alignment of PeftkLossSumParams"][::core::mem::align_of::<PeftkLossSumParams>() - 8usize];
    ["Offset of field: PeftkLossSumParams::partial"][::core::mem::offset_of!(PeftkLossSumParams, partial) - 0usize];
    ["Offset of field: PeftkLossSumParams::loss"][::core::mem::offset_of!(PeftkLossSumParams, loss) - 8usize];
    ["Offset of field: PeftkLossSumParams::denominator"]
        [::core::mem::offset_of!(PeftkLossSumParams, denominator) - 16usize];
    ["Offset of field: PeftkLossSumParams::count"][::core::mem::offset_of!(PeftkLossSumParams, count) - 20usize];
    ["Offset of field: PeftkLossSumParams::accumulate"]
        [::core::mem::offset_of!(PeftkLossSumParams, accumulate) - 24usize];
    ["Offset of field: PeftkLossSumParams::padding"][::core::mem::offset_of!(PeftkLossSumParams, padding) - 28usize];
};
#[doc = " One trained tensor; an array of these lies in device memory. Every address is a multiple of 16."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAdamwTensor {
    #[doc = " The values, `[length]` f32, read and written."]
    pub value: u64,
    #[doc = " Their gradients, `[length]` f32, read."]
    pub grad: u64,
    #[doc = " First moments, `[length]` f32, read and written."]
    pub m: u64,
    #[doc = " Second moments, `[length]` f32, read and written."]
    pub v: u64,
    #[doc = " The values rounded to bf16, `[length]`, written; 0: not wanted."]
    pub shadow: u64,
    #[doc = " Elements."]
    pub length: u64,
    #[doc = " Decoupled weight decay."]
    pub weight_decay: f32,
    #[doc = " 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAdamwTensor"][::core::mem::size_of::<PeftkAdamwTensor>() - 56usize];
    ["Alignment of PeftkAdamwTensor"][::core::mem::align_of::<PeftkAdamwTensor>() - 8usize];
    ["Offset of field: PeftkAdamwTensor::value"][::core::mem::offset_of!(PeftkAdamwTensor, value) - 0usize];
    ["Offset of field: PeftkAdamwTensor::grad"][::core::mem::offset_of!(PeftkAdamwTensor, grad) - 8usize];
    ["Offset of field: PeftkAdamwTensor::m"][::core::mem::offset_of!(PeftkAdamwTensor, m) - 16usize];
    ["Offset of field: PeftkAdamwTensor::v"][::core::mem::offset_of!(PeftkAdamwTensor, v) - 24usize];
    ["Offset of field: PeftkAdamwTensor::shadow"][::core::mem::offset_of!(PeftkAdamwTensor, shadow) - 32usize];
    ["Offset of field: PeftkAdamwTensor::length"][::core::mem::offset_of!(PeftkAdamwTensor, length) - 40usize];
    ["Offset of field: PeftkAdamwTensor::weight_decay"]
        [::core::mem::offset_of!(PeftkAdamwTensor, weight_decay) - 48usize];
    ["Offset of field: PeftkAdamwTensor::padding"][::core::mem::offset_of!(PeftkAdamwTensor, padding) - 52usize];
};
#[doc = " A block's share: elements `2048 chunk ..` of one tensor; an array of these lies in device memory."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAdamwBlock {
    #[doc = " Index of the tensor."]
    pub tensor: u32,
    #[doc = " Which 2048 of its elements."]
    pub chunk: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAdamwBlock"][::core::mem::size_of::<PeftkAdamwBlock>() - 8usize];
    ["Alignment of PeftkAdamwBlock"][::core::mem::align_of::<PeftkAdamwBlock>() - 4usize];
    ["Offset of field: PeftkAdamwBlock::tensor"][::core::mem::offset_of!(PeftkAdamwBlock, tensor) - 0usize];
    ["Offset of field: PeftkAdamwBlock::chunk"][::core::mem::offset_of!(PeftkAdamwBlock, chunk) - 4usize];
};
#[doc = " What changes from step to step, in device memory."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAdamwHyper {
    #[doc = " Learning rate."]
    pub lr: f32,
    #[doc = " 1 - beta1."]
    pub one_minus_beta1: f32,
    #[doc = " beta2."]
    pub beta2: f32,
    #[doc = " 1 - beta2."]
    pub one_minus_beta2: f32,
    #[doc = " Added to the root."]
    pub eps: f32,
    #[doc = " lr / (1 - beta1^step)."]
    pub step_size: f32,
    #[doc = " sqrt(1 - beta2^step)."]
    pub root_correction: f32,
    #[doc = " 0."]
    pub padding: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAdamwHyper"][::core::mem::size_of::<PeftkAdamwHyper>() - 32usize];
    ["Alignment of PeftkAdamwHyper"][::core::mem::align_of::<PeftkAdamwHyper>() - 4usize];
    ["Offset of field: PeftkAdamwHyper::lr"][::core::mem::offset_of!(PeftkAdamwHyper, lr) - 0usize];
    ["Offset of field: PeftkAdamwHyper::one_minus_beta1"]
        [::core::mem::offset_of!(PeftkAdamwHyper, one_minus_beta1) - 4usize];
    ["Offset of field: PeftkAdamwHyper::beta2"][::core::mem::offset_of!(PeftkAdamwHyper, beta2) - 8usize];
    ["Offset of field: PeftkAdamwHyper::one_minus_beta2"]
        [::core::mem::offset_of!(PeftkAdamwHyper, one_minus_beta2) - 12usize];
    ["Offset of field: PeftkAdamwHyper::eps"][::core::mem::offset_of!(PeftkAdamwHyper, eps) - 16usize];
    ["Offset of field: PeftkAdamwHyper::step_size"][::core::mem::offset_of!(PeftkAdamwHyper, step_size) - 20usize];
    ["Offset of field: PeftkAdamwHyper::root_correction"]
        [::core::mem::offset_of!(PeftkAdamwHyper, root_correction) - 24usize];
    ["Offset of field: PeftkAdamwHyper::padding"][::core::mem::offset_of!(PeftkAdamwHyper, padding) - 28usize];
};
#[doc = " The gradients' norm and what follows from it, in device memory."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkGradNorm {
    #[doc = " The sum of squares over all tensors."]
    pub sum_squares: f32,
    #[doc = " Its root."]
    pub norm: f32,
    #[doc = " min(1, max_norm / (norm + 1e-6)); 1 without a limit."]
    pub factor: f32,
    #[doc = " 1 where the sum is no finite number, else 0."]
    pub non_finite: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkGradNorm"][::core::mem::size_of::<PeftkGradNorm>() - 16usize];
    ["Alignment of PeftkGradNorm"][::core::mem::align_of::<PeftkGradNorm>() - 4usize];
    ["Offset of field: PeftkGradNorm::sum_squares"][::core::mem::offset_of!(PeftkGradNorm, sum_squares) - 0usize];
    ["Offset of field: PeftkGradNorm::norm"][::core::mem::offset_of!(PeftkGradNorm, norm) - 4usize];
    ["Offset of field: PeftkGradNorm::factor"][::core::mem::offset_of!(PeftkGradNorm, factor) - 8usize];
    ["Offset of field: PeftkGradNorm::non_finite"][::core::mem::offset_of!(PeftkGradNorm, non_finite) - 12usize];
};
#[doc = " One AdamW step of all tensors."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAdamwParams {
    #[doc = " Array of PeftkAdamwTensor, read."]
    pub tensors: u64,
    #[doc = " Array of PeftkAdamwBlock, one a block, read."]
    pub blocks: u64,
    #[doc = " A PeftkAdamwHyper, read."]
    pub hyper: u64,
    #[doc = " A PeftkGradNorm: gradients are multiplied by its factor, and where it is not finite nothing is done. 0: none."]
    pub grad_norm: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAdamwParams"][::core::mem::size_of::<PeftkAdamwParams>() - 32usize];
    ["Alignment of PeftkAdamwParams"][::core::mem::align_of::<PeftkAdamwParams>() - 8usize];
    ["Offset of field: PeftkAdamwParams::tensors"][::core::mem::offset_of!(PeftkAdamwParams, tensors) - 0usize];
    ["Offset of field: PeftkAdamwParams::blocks"][::core::mem::offset_of!(PeftkAdamwParams, blocks) - 8usize];
    ["Offset of field: PeftkAdamwParams::hyper"][::core::mem::offset_of!(PeftkAdamwParams, hyper) - 16usize];
    ["Offset of field: PeftkAdamwParams::grad_norm"][::core::mem::offset_of!(PeftkAdamwParams, grad_norm) - 24usize];
};
#[doc = " Sums of squares: of all tensors' gradients a block, or of one array."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkSumSquaresParams {
    #[doc = " Array of PeftkAdamwTensor, read; in entry sum_squares_f32 the array itself, f32."]
    pub source: u64,
    #[doc = " Array of PeftkAdamwBlock, one a block, read; unused in entry sum_squares_f32."]
    pub blocks: u64,
    #[doc = " The blocks' sums, f32, written."]
    pub partial: u64,
    #[doc = " Elements; entry sum_squares_f32 only."]
    pub count: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkSumSquaresParams"][::core::mem::size_of::<PeftkSumSquaresParams>() - 32usize];
    ["Alignment of PeftkSumSquaresParams"][::core::mem::align_of::<PeftkSumSquaresParams>() - 8usize];
    ["Offset of field: PeftkSumSquaresParams::source"][::core::mem::offset_of!(PeftkSumSquaresParams, source) - 0usize];
    ["Offset of field: PeftkSumSquaresParams::blocks"][::core::mem::offset_of!(PeftkSumSquaresParams, blocks) - 8usize];
    ["Offset of field: PeftkSumSquaresParams::partial"]
        [::core::mem::offset_of!(PeftkSumSquaresParams, partial) - 16usize];
    ["Offset of field: PeftkSumSquaresParams::count"][::core::mem::offset_of!(PeftkSumSquaresParams, count) - 24usize];
};
#[doc = " The norm from the blocks' sums."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkGradNormParams {
    #[doc = " `[count]` f32, read."]
    pub partial: u64,
    #[doc = " A PeftkGradNorm, written."]
    pub result: u64,
    #[doc = " Parts."]
    pub count: u32,
    #[doc = " The largest norm; 0 or less: no limit."]
    pub max_norm: f32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkGradNormParams"][::core::mem::size_of::<PeftkGradNormParams>() - 24usize];
    ["Alignment of PeftkGradNormParams"][::core::mem::align_of::<PeftkGradNormParams>() - 8usize];
    ["Offset of field: PeftkGradNormParams::partial"][::core::mem::offset_of!(PeftkGradNormParams, partial) - 0usize];
    ["Offset of field: PeftkGradNormParams::result"][::core::mem::offset_of!(PeftkGradNormParams, result) - 8usize];
    ["Offset of field: PeftkGradNormParams::count"][::core::mem::offset_of!(PeftkGradNormParams, count) - 16usize];
    ["Offset of field: PeftkGradNormParams::max_norm"]
        [::core::mem::offset_of!(PeftkGradNormParams, max_norm) - 20usize];
};
#[doc = " One adapter's f32 masters and what the matrix products read."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAdapterPackItem {
    #[doc = " A, `[rank, k]` f32, read."]
    pub a: u64,
    #[doc = " B, `[rows, rank]` f32, read."]
    pub b: u64,
    #[doc = " DoRA's g, `[rows]` f32, read; 0: g = 1."]
    pub gain: u64,
    #[doc = " A, `[rank_padded, k]`, operand type, zero beyond rank, written where not 0."]
    pub a_packed: u64,
    #[doc = " The same once more, where the adapters of one linear lie one below the other; written where not 0."]
    pub a_joined: u64,
    #[doc = " B, `[rows, rank_padded]`, operand type, zero beyond rank, written where not 0."]
    pub b_packed: u64,
    #[doc = " s g B, `[rows, rank_padded]`, operand type, zero beyond rank, written where not 0."]
    pub bg_packed: u64,
    #[doc = " s."]
    pub scale: f32,
    #[doc = " Rows of B."]
    pub rows: u32,
    #[doc = " Columns of A."]
    pub k: u32,
    #[doc = " Rank."]
    pub rank: u32,
    #[doc = " Rank rounded up to a multiple of 16."]
    pub rank_padded: u32,
    #[doc = " Unused."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAdapterPackItem"][::core::mem::size_of::<PeftkAdapterPackItem>() - 80usize];
    ["Alignment of PeftkAdapterPackItem"][::core::mem::align_of::<PeftkAdapterPackItem>() - 8usize];
    ["Offset of field: PeftkAdapterPackItem::a"][::core::mem::offset_of!(PeftkAdapterPackItem, a) - 0usize];
    ["Offset of field: PeftkAdapterPackItem::b"][::core::mem::offset_of!(PeftkAdapterPackItem, b) - 8usize];
    ["Offset of field: PeftkAdapterPackItem::gain"][::core::mem::offset_of!(PeftkAdapterPackItem, gain) - 16usize];
    ["Offset of field: PeftkAdapterPackItem::a_packed"]
        [::core::mem::offset_of!(PeftkAdapterPackItem, a_packed) - 24usize];
    ["Offset of field: PeftkAdapterPackItem::a_joined"]
        [::core::mem::offset_of!(PeftkAdapterPackItem, a_joined) - 32usize];
    ["Offset of field: PeftkAdapterPackItem::b_packed"]
        [::core::mem::offset_of!(PeftkAdapterPackItem, b_packed) - 40usize];
    ["Offset of field: PeftkAdapterPackItem::bg_packed"]
        [::core::mem::offset_of!(PeftkAdapterPackItem, bg_packed) - 48usize];
    ["Offset of field: PeftkAdapterPackItem::scale"][::core::mem::offset_of!(PeftkAdapterPackItem, scale) - 56usize];
    ["Offset of field: PeftkAdapterPackItem::rows"][::core::mem::offset_of!(PeftkAdapterPackItem, rows) - 60usize];
    ["Offset of field: PeftkAdapterPackItem::k"][::core::mem::offset_of!(PeftkAdapterPackItem, k) - 64usize];
    ["Offset of field: PeftkAdapterPackItem::rank"][::core::mem::offset_of!(PeftkAdapterPackItem, rank) - 68usize];
    ["Offset of field: PeftkAdapterPackItem::rank_padded"]
        [::core::mem::offset_of!(PeftkAdapterPackItem, rank_padded) - 72usize];
    ["Offset of field: PeftkAdapterPackItem::padding"]
        [::core::mem::offset_of!(PeftkAdapterPackItem, padding) - 76usize];
};
#[doc = " Packs up to 3 adapters by value, or any number from device memory."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAdapterPackParams {
    #[doc = " The adapters, where there is no array."]
    pub adapters: [PeftkAdapterPackItem; 3usize],
    #[doc = " `[items]` of PeftkAdapterPackItem in device memory, one an index of the grid's y; 0: `adapters`."]
    pub items: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAdapterPackParams"][::core::mem::size_of::<PeftkAdapterPackParams>() - 248usize];
    ["Alignment of PeftkAdapterPackParams"][::core::mem::align_of::<PeftkAdapterPackParams>() - 8usize];
    ["Offset of field: PeftkAdapterPackParams::adapters"]
        [::core::mem::offset_of!(PeftkAdapterPackParams, adapters) - 0usize];
    ["Offset of field: PeftkAdapterPackParams::items"]
        [::core::mem::offset_of!(PeftkAdapterPackParams, items) - 240usize];
};
#[doc = " One linear's weight with its rows under a gain multiplied by it: what dx is made with."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkWeightRescaleItem {
    #[doc = " W, `[n, k]`, read."]
    pub w: u64,
    #[doc = " g W, `[n, k]`, written."]
    pub out: u64,
    #[doc = " The adapters' gains, `[rows]` f32 each; 0: none."]
    pub gain: [u64; 3usize],
    #[doc = " Each one's first row."]
    pub first_row: [u32; 3usize],
    #[doc = " Each one's rows."]
    pub rows: [u32; 3usize],
    #[doc = " Rows of W."]
    pub n: u32,
    #[doc = " Columns of W."]
    pub k: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkWeightRescaleItem"][::core::mem::size_of::<PeftkWeightRescaleItem>() - 72usize];
    ["Alignment of PeftkWeightRescaleItem"][::core::mem::align_of::<PeftkWeightRescaleItem>() - 8usize];
    ["Offset of field: PeftkWeightRescaleItem::w"][::core::mem::offset_of!(PeftkWeightRescaleItem, w) - 0usize];
    ["Offset of field: PeftkWeightRescaleItem::out"][::core::mem::offset_of!(PeftkWeightRescaleItem, out) - 8usize];
    ["Offset of field: PeftkWeightRescaleItem::gain"][::core::mem::offset_of!(PeftkWeightRescaleItem, gain) - 16usize];
    ["Offset of field: PeftkWeightRescaleItem::first_row"]
        [::core::mem::offset_of!(PeftkWeightRescaleItem, first_row) - 40usize];
    ["Offset of field: PeftkWeightRescaleItem::rows"][::core::mem::offset_of!(PeftkWeightRescaleItem, rows) - 52usize];
    ["Offset of field: PeftkWeightRescaleItem::n"][::core::mem::offset_of!(PeftkWeightRescaleItem, n) - 64usize];
    ["Offset of field: PeftkWeightRescaleItem::k"][::core::mem::offset_of!(PeftkWeightRescaleItem, k) - 68usize];
};
#[doc = " Rescales one weight, or any number of them from device memory."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkWeightRescaleParams {
    #[doc = " The only weight, where there is no array."]
    pub item: PeftkWeightRescaleItem,
    #[doc = " `[items]` of PeftkWeightRescaleItem in device memory, one an index of the grid's y; 0: `item`."]
    pub items: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkWeightRescaleParams"][::core::mem::size_of::<PeftkWeightRescaleParams>() - 80usize];
    ["Alignment of PeftkWeightRescaleParams"][::core::mem::align_of::<PeftkWeightRescaleParams>() - 8usize];
    ["Offset of field: PeftkWeightRescaleParams::item"]
        [::core::mem::offset_of!(PeftkWeightRescaleParams, item) - 0usize];
    ["Offset of field: PeftkWeightRescaleParams::items"]
        [::core::mem::offset_of!(PeftkWeightRescaleParams, items) - 72usize];
};
#[doc = " One adapter's share of lora_gradients."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkLoraAdapter {
    #[doc = " t = x A^T, `[m, rank_padded]`, operand type, read."]
    pub t: u64,
    #[doc = " s g B, `[rows, rank_padded]`, operand type, read."]
    pub bg: u64,
    #[doc = " DoRA's g, `[rows]` f32, read by the reduction; 0: g = 1."]
    pub gain: u64,
    #[doc = " `[pieces, rank_padded, rows]` f32: t^T dy of each piece."]
    pub partial_b: u64,
    #[doc = " dA, `[rank, k]` f32, written by the reduction; 0: not asked for."]
    pub da: u64,
    #[doc = " dB, `[rows, rank]` f32, written by the reduction."]
    pub db: u64,
    #[doc = " The linear's output y, `[m, ld_dy]`, operand type, read by the entries that make the gain's gradient; 0: it is not asked for."]
    pub y: u64,
    #[doc = " The linear's bias, `[n]` f32, read from `first_row` on; 0: none."]
    pub bias: u64,
    #[doc = " W, `[n, k]` with rows `ld_w` apart, operand type, read from row `first_row` on, only for rows of small gain."]
    pub w: u64,
    #[doc = " B, `[rows, rank_padded]`, operand type, likewise."]
    pub b: u64,
    #[doc = " `[pieces, rows]` f32: each piece's sums of dy z."]
    pub partial_gain: u64,
    #[doc = " dg, `[rows]` f32, written by the reduction."]
    pub dgain: u64,
    #[doc = " s."]
    pub scale: f32,
    #[doc = " First column of dy."]
    pub first_row: u32,
    #[doc = " Columns of dy."]
    pub rows: u32,
    #[doc = " Rank."]
    pub rank: u32,
    #[doc = " Rank rounded up to a multiple of 16."]
    pub rank_padded: u32,
    #[doc = " First column of this adapter in q."]
    pub q_column: u32,
    #[doc = " 1: dA is added to; 0: written."]
    pub add_a: u32,
    #[doc = " 1: dB is added to; 0: written."]
    pub add_b: u32,
    #[doc = " 1: dg is added to; 0: written."]
    pub add_gain: u32,
    #[doc = " Row stride of W, elements."]
    pub ld_w: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkLoraAdapter"][::core::mem::size_of::<PeftkLoraAdapter>() - 136usize];
    ["Alignment of PeftkLoraAdapter"][::core::mem::align_of::<PeftkLoraAdapter>() - 8usize];
    ["Offset of field: PeftkLoraAdapter::t"][::core::mem::offset_of!(PeftkLoraAdapter, t) - 0usize];
    ["Offset of field: PeftkLoraAdapter::bg"][::core::mem::offset_of!(PeftkLoraAdapter, bg) - 8usize];
    ["Offset of field: PeftkLoraAdapter::gain"][::core::mem::offset_of!(PeftkLoraAdapter, gain) - 16usize];
    ["Offset of field: PeftkLoraAdapter::partial_b"][::core::mem::offset_of!(PeftkLoraAdapter, partial_b) - 24usize];
    ["Offset of field: PeftkLoraAdapter::da"][::core::mem::offset_of!(PeftkLoraAdapter, da) - 32usize];
    ["Offset of field: PeftkLoraAdapter::db"][::core::mem::offset_of!(PeftkLoraAdapter, db) - 40usize];
    ["Offset of field: PeftkLoraAdapter::y"][::core::mem::offset_of!(PeftkLoraAdapter, y) - 48usize];
    ["Offset of field: PeftkLoraAdapter::bias"][::core::mem::offset_of!(PeftkLoraAdapter, bias) - 56usize];
    ["Offset of field: PeftkLoraAdapter::w"][::core::mem::offset_of!(PeftkLoraAdapter, w) - 64usize];
    ["Offset of field: PeftkLoraAdapter::b"][::core::mem::offset_of!(PeftkLoraAdapter, b) - 72usize];
    ["Offset of field: PeftkLoraAdapter::partial_gain"]
        [::core::mem::offset_of!(PeftkLoraAdapter, partial_gain) - 80usize];
    ["Offset of field: PeftkLoraAdapter::dgain"][::core::mem::offset_of!(PeftkLoraAdapter, dgain) - 88usize];
    ["Offset of field: PeftkLoraAdapter::scale"][::core::mem::offset_of!(PeftkLoraAdapter, scale) - 96usize];
    ["Offset of field: PeftkLoraAdapter::first_row"][::core::mem::offset_of!(PeftkLoraAdapter, first_row) - 100usize];
    ["Offset of field: PeftkLoraAdapter::rows"][::core::mem::offset_of!(PeftkLoraAdapter, rows) - 104usize];
    ["Offset of field: PeftkLoraAdapter::rank"][::core::mem::offset_of!(PeftkLoraAdapter, rank) - 108usize];
    ["Offset of field: PeftkLoraAdapter::rank_padded"]
        [::core::mem::offset_of!(PeftkLoraAdapter, rank_padded) - 112usize];
    ["Offset of field: PeftkLoraAdapter::q_column"][::core::mem::offset_of!(PeftkLoraAdapter, q_column) - 116usize];
    ["Offset of field: PeftkLoraAdapter::add_a"][::core::mem::offset_of!(PeftkLoraAdapter, add_a) - 120usize];
    ["Offset of field: PeftkLoraAdapter::add_b"][::core::mem::offset_of!(PeftkLoraAdapter, add_b) - 124usize];
    ["Offset of field: PeftkLoraAdapter::add_gain"][::core::mem::offset_of!(PeftkLoraAdapter, add_gain) - 128usize];
    ["Offset of field: PeftkLoraAdapter::ld_w"][::core::mem::offset_of!(PeftkLoraAdapter, ld_w) - 132usize];
};
#[doc = " The gradients of up to 3 adapters that share x: every entry of kernels/lora_gradients.cu reads a part of this."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkLoraGradientsParams {
    #[doc = " x, `[m, k]`, operand type, read."]
    pub x: u64,
    #[doc = " dy, `[m, ld_dy]`, operand type, read."]
    pub dy: u64,
    #[doc = " Q = s (g dy) B of all adapters side by side, `[m, ld_q]`, operand type, written by the first kernel."]
    pub q: u64,
    #[doc = " `[pieces, q_columns, k]` f32: Q^T x of each piece."]
    pub partial_a: u64,
    #[doc = " The adapters."]
    pub adapters: [PeftkLoraAdapter; 3usize],
    #[doc = " Tokens."]
    pub m: u32,
    #[doc = " Width of x."]
    pub k: u32,
    #[doc = " Row stride of dy, elements."]
    pub ld_dy: u32,
    #[doc = " Row stride of q, elements: a multiple of 8."]
    pub ld_q: u32,
    #[doc = " The first column of q that x is multiplied with."]
    pub q_first: u32,
    #[doc = " Columns of q that x is multiplied with: the sum of rank_padded."]
    pub q_columns: u32,
    #[doc = " How the tokens are cut."]
    pub cut: PeftkCut,
    #[doc = " Adapters, 1 to 3."]
    pub count: u32,
    #[doc = " Slices of 16 ranks over all adapters: q_columns / 16."]
    pub slices: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkLoraGradientsParams"][::core::mem::size_of::<PeftkLoraGradientsParams>() - 496usize];
    ["Alignment of PeftkLoraGradientsParams"][::core::mem::align_of::<PeftkLoraGradientsParams>() - 8usize];
    ["Offset of field: PeftkLoraGradientsParams::x"][::core::mem::offset_of!(PeftkLoraGradientsParams, x) - 0usize];
    ["Offset of field: PeftkLoraGradientsParams::dy"][::core::mem::offset_of!(PeftkLoraGradientsParams, dy) - 8usize];
    ["Offset of field: PeftkLoraGradientsParams::q"][::core::mem::offset_of!(PeftkLoraGradientsParams, q) - 16usize];
    ["Offset of field: PeftkLoraGradientsParams::partial_a"]
        [::core::mem::offset_of!(PeftkLoraGradientsParams, partial_a) - 24usize];
    ["Offset of field: PeftkLoraGradientsParams::adapters"]
        [::core::mem::offset_of!(PeftkLoraGradientsParams, adapters) - 32usize];
    ["Offset of field: PeftkLoraGradientsParams::m"][::core::mem::offset_of!(PeftkLoraGradientsParams, m) - 440usize];
    ["Offset of field: PeftkLoraGradientsParams::k"][::core::mem::offset_of!(PeftkLoraGradientsParams, k) - 444usize];
    ["Offset of field: PeftkLoraGradientsParams::ld_dy"]
        [::core::mem::offset_of!(PeftkLoraGradientsParams, ld_dy) - 448usize];
    ["Offset of field: PeftkLoraGradientsParams::ld_q"]
        [::core::mem::offset_of!(PeftkLoraGradientsParams, ld_q) - 452usize];
    ["Offset of field: PeftkLoraGradientsParams::q_first"]
        [::core::mem::offset_of!(PeftkLoraGradientsParams, q_first) - 456usize];
    ["Offset of field: PeftkLoraGradientsParams::q_columns"]
        [::core::mem::offset_of!(PeftkLoraGradientsParams, q_columns) - 460usize];
    ["Offset of field: PeftkLoraGradientsParams::cut"]
        [::core::mem::offset_of!(PeftkLoraGradientsParams, cut) - 464usize];
    ["Offset of field: PeftkLoraGradientsParams::count"]
        [::core::mem::offset_of!(PeftkLoraGradientsParams, count) - 488usize];
    ["Offset of field: PeftkLoraGradientsParams::slices"]
        [::core::mem::offset_of!(PeftkLoraGradientsParams, slices) - 492usize];
};
#[doc = " The row norms of W + scale * B A (kernels/dora_norm.cu). All matrices are row-major f32 without gaps."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkDoraNormParams {
    #[doc = " W, `[rows, cols]` f32, read."]
    pub w: u64,
    #[doc = " A, `[rank, cols]` f32, read."]
    pub a: u64,
    #[doc = " B, `[rows, rank]` f32, read."]
    pub b: u64,
    #[doc = " The norms, `[rows]` f32, written."]
    pub norm: u64,
    #[doc = " What B A is multiplied by: alpha / rank, or alpha / sqrt(rank)."]
    pub scale: f32,
    #[doc = " Output features of the linear."]
    pub rows: u32,
    #[doc = " Input features of the linear."]
    pub cols: u32,
    #[doc = " The adapter's rank, 1 to 256."]
    pub rank: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkDoraNormParams"][::core::mem::size_of::<PeftkDoraNormParams>() - 48usize];
    ["Alignment of PeftkDoraNormParams"][::core::mem::align_of::<PeftkDoraNormParams>() - 8usize];
    ["Offset of field: PeftkDoraNormParams::w"][::core::mem::offset_of!(PeftkDoraNormParams, w) - 0usize];
    ["Offset of field: PeftkDoraNormParams::a"][::core::mem::offset_of!(PeftkDoraNormParams, a) - 8usize];
    ["Offset of field: PeftkDoraNormParams::b"][::core::mem::offset_of!(PeftkDoraNormParams, b) - 16usize];
    ["Offset of field: PeftkDoraNormParams::norm"][::core::mem::offset_of!(PeftkDoraNormParams, norm) - 24usize];
    ["Offset of field: PeftkDoraNormParams::scale"][::core::mem::offset_of!(PeftkDoraNormParams, scale) - 32usize];
    ["Offset of field: PeftkDoraNormParams::rows"][::core::mem::offset_of!(PeftkDoraNormParams, rows) - 36usize];
    ["Offset of field: PeftkDoraNormParams::cols"][::core::mem::offset_of!(PeftkDoraNormParams, cols) - 40usize];
    ["Offset of field: PeftkDoraNormParams::rank"][::core::mem::offset_of!(PeftkDoraNormParams, rank) - 44usize];
};
#[doc = " One adapter of a batch of norms."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkDoraNormItem {
    #[doc = " W's rows of this adapter, `[rows, cols]`, read."]
    pub w: u64,
    #[doc = " A, `[rank, cols]`, read."]
    pub a: u64,
    #[doc = " B, `[rows, rank]`, read."]
    pub b: u64,
    #[doc = " The norms, `[rows]`, written."]
    pub norm: u64,
    #[doc = " DoRA's magnitude, `[rows]`, read; 0: no gain is asked for."]
    pub magnitude: u64,
    #[doc = " magnitude / norm, `[rows]`, written when there is a magnitude."]
    pub gain: u64,
    #[doc = " s."]
    pub scale: f32,
    #[doc = " Rows."]
    pub rows: u32,
    #[doc = " Columns."]
    pub cols: u32,
    #[doc = " Rank, 1 to 256."]
    pub rank: u32,
    #[doc = " The first of its blocks, which are ceil(rows / 16)."]
    pub first_block: u32,
    #[doc = " Unused."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkDoraNormItem"][::core::mem::size_of::<PeftkDoraNormItem>() - 72usize];
    ["Alignment of PeftkDoraNormItem"][::core::mem::align_of::<PeftkDoraNormItem>() - 8usize];
    ["Offset of field: PeftkDoraNormItem::w"][::core::mem::offset_of!(PeftkDoraNormItem, w) - 0usize];
    ["Offset of field: PeftkDoraNormItem::a"][::core::mem::offset_of!(PeftkDoraNormItem, a) - 8usize];
    ["Offset of field: PeftkDoraNormItem::b"][::core::mem::offset_of!(PeftkDoraNormItem, b) - 16usize];
    ["Offset of field: PeftkDoraNormItem::norm"][::core::mem::offset_of!(PeftkDoraNormItem, norm) - 24usize];
    ["Offset of field: PeftkDoraNormItem::magnitude"][::core::mem::offset_of!(PeftkDoraNormItem, magnitude) - 32usize];
    ["Offset of field: PeftkDoraNormItem::gain"][::core::mem::offset_of!(PeftkDoraNormItem, gain) - 40usize];
    ["Offset of field: PeftkDoraNormItem::scale"][::core::mem::offset_of!(PeftkDoraNormItem, scale) - 48usize];
    ["Offset of field: PeftkDoraNormItem::rows"][::core::mem::offset_of!(PeftkDoraNormItem, rows) - 52usize];
    ["Offset of field: PeftkDoraNormItem::cols"][::core::mem::offset_of!(PeftkDoraNormItem, cols) - 56usize];
    ["Offset of field: PeftkDoraNormItem::rank"][::core::mem::offset_of!(PeftkDoraNormItem, rank) - 60usize];
    ["Offset of field: PeftkDoraNormItem::first_block"]
        [::core::mem::offset_of!(PeftkDoraNormItem, first_block) - 64usize];
    ["Offset of field: PeftkDoraNormItem::padding"][::core::mem::offset_of!(PeftkDoraNormItem, padding) - 68usize];
};
#[doc = " The norms of many adapters in one launch."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkDoraNormBatchParams {
    #[doc = " The adapters, by first block."]
    pub items: [PeftkDoraNormItem; 48usize],
    #[doc = " How many there are, at least 1."]
    pub count: u32,
    #[doc = " Unused."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkDoraNormBatchParams"][::core::mem::size_of::<PeftkDoraNormBatchParams>() - 3464usize];
    ["Alignment of PeftkDoraNormBatchParams"][::core::mem::align_of::<PeftkDoraNormBatchParams>() - 8usize];
    ["Offset of field: PeftkDoraNormBatchParams::items"]
        [::core::mem::offset_of!(PeftkDoraNormBatchParams, items) - 0usize];
    ["Offset of field: PeftkDoraNormBatchParams::count"]
        [::core::mem::offset_of!(PeftkDoraNormBatchParams, count) - 3456usize];
    ["Offset of field: PeftkDoraNormBatchParams::padding"]
        [::core::mem::offset_of!(PeftkDoraNormBatchParams, padding) - 3460usize];
};
#[doc = " One adapter of the norms' backward pass."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkDoraNormBackwardItem {
    #[doc = " W's rows of this adapter, `[rows, cols]`, read."]
    pub w: u64,
    #[doc = " A, `[rank, cols]`, read."]
    pub a: u64,
    #[doc = " B, `[rows, rank]`, read."]
    pub b: u64,
    #[doc = " The norms, `[rows]`, read."]
    pub norm: u64,
    #[doc = " Their gradient, `[rows]`, read."]
    pub dnorm: u64,
    #[doc = " Sums over 32 rows of W each, `[ceil(rows / 32), rank, cols]`, written, then read by the second kernel."]
    pub partial_a: u64,
    #[doc = " Sums over 128 columns of W each, `[ceil(cols / 128), rows, rank]`, likewise."]
    pub partial_b: u64,
    #[doc = " dA, `[rank, cols]`, written or added to."]
    pub da: u64,
    #[doc = " dB, `[rows, rank]`, written or added to."]
    pub db: u64,
    #[doc = " s."]
    pub scale: f32,
    #[doc = " Rows."]
    pub rows: u32,
    #[doc = " Columns."]
    pub cols: u32,
    #[doc = " Rank, 1 to 256."]
    pub rank: u32,
    #[doc = " 1: da and db are added to; 0: written."]
    pub accumulate: u32,
    #[doc = " Unused."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkDoraNormBackwardItem"][::core::mem::size_of::<PeftkDoraNormBackwardItem>() - 96usize];
    ["Alignment of PeftkDoraNormBackwardItem"][::core::mem::align_of::<PeftkDoraNormBackwardItem>() - 8usize];
    ["Offset of field: PeftkDoraNormBackwardItem::w"][::core::mem::offset_of!(PeftkDoraNormBackwardItem, w) - 0usize];
    ["Offset of field: PeftkDoraNormBackwardItem::a"][::core::mem::offset_of!(PeftkDoraNormBackwardItem, a) - 8usize];
    ["Offset of field: PeftkDoraNormBackwardItem::b"][::core::mem::offset_of!(PeftkDoraNormBackwardItem, b) - 16usize];
    ["Offset of field: PeftkDoraNormBackwardItem::norm"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, norm) - 24usize];
    ["Offset of field: PeftkDoraNormBackwardItem::dnorm"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, dnorm) - 32usize];
    ["Offset of field: PeftkDoraNormBackwardItem::partial_a"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, partial_a) - 40usize];
    ["Offset of field: PeftkDoraNormBackwardItem::partial_b"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, partial_b) - 48usize];
    ["Offset of field: PeftkDoraNormBackwardItem::da"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, da) - 56usize];
    ["Offset of field: PeftkDoraNormBackwardItem::db"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, db) - 64usize];
    ["Offset of field: PeftkDoraNormBackwardItem::scale"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, scale) - 72usize];
    ["Offset of field: PeftkDoraNormBackwardItem::rows"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, rows) - 76usize];
    ["Offset of field: PeftkDoraNormBackwardItem::cols"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, cols) - 80usize];
    ["Offset of field: PeftkDoraNormBackwardItem::rank"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, rank) - 84usize];
    ["Offset of field: PeftkDoraNormBackwardItem::accumulate"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, accumulate) - 88usize];
    ["Offset of field: PeftkDoraNormBackwardItem::padding"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardItem, padding) - 92usize];
};
#[doc = " The norms' backward pass for one adapter or many."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkDoraNormBackwardParams {
    #[doc = " The only adapter, where there is no array."]
    pub item: PeftkDoraNormBackwardItem,
    #[doc = " `[items]` of PeftkDoraNormBackwardItem in device memory, one an index of the grid's z; 0: `item`."]
    pub items: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkDoraNormBackwardParams"][::core::mem::size_of::<PeftkDoraNormBackwardParams>() - 104usize];
    ["Alignment of PeftkDoraNormBackwardParams"][::core::mem::align_of::<PeftkDoraNormBackwardParams>() - 8usize];
    ["Offset of field: PeftkDoraNormBackwardParams::item"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardParams, item) - 0usize];
    ["Offset of field: PeftkDoraNormBackwardParams::items"]
        [::core::mem::offset_of!(PeftkDoraNormBackwardParams, items) - 96usize];
};
#[doc = " The gradients of one adapter's gain g = m / n, elementwise."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkMagnitudeBackwardItem {
    #[doc = " Magnitudes, `[count]`, read where dn is asked for."]
    pub magnitude: u64,
    #[doc = " Norms, `[count]`, read."]
    pub norm: u64,
    #[doc = " dg, `[count]`, read."]
    pub dgain: u64,
    #[doc = " dm = dg / n, `[count]`, written or added to."]
    pub dmagnitude: u64,
    #[doc = " dn = -dg m / n^2, `[count]`, written; 0: not asked for."]
    pub dnorm: u64,
    #[doc = " Values."]
    pub count: u32,
    #[doc = " 1: dm is added to; 0: written."]
    pub add: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkMagnitudeBackwardItem"][::core::mem::size_of::<PeftkMagnitudeBackwardItem>() - 48usize];
    ["Alignment of PeftkMagnitudeBackwardItem"][::core::mem::align_of::<PeftkMagnitudeBackwardItem>() - 8usize];
    ["Offset of field: PeftkMagnitudeBackwardItem::magnitude"]
        [::core::mem::offset_of!(PeftkMagnitudeBackwardItem, magnitude) - 0usize];
    ["Offset of field: PeftkMagnitudeBackwardItem::norm"]
        [::core::mem::offset_of!(PeftkMagnitudeBackwardItem, norm) - 8usize];
    ["Offset of field: PeftkMagnitudeBackwardItem::dgain"]
        [::core::mem::offset_of!(PeftkMagnitudeBackwardItem, dgain) - 16usize];
    ["Offset of field: PeftkMagnitudeBackwardItem::dmagnitude"]
        [::core::mem::offset_of!(PeftkMagnitudeBackwardItem, dmagnitude) - 24usize];
    ["Offset of field: PeftkMagnitudeBackwardItem::dnorm"]
        [::core::mem::offset_of!(PeftkMagnitudeBackwardItem, dnorm) - 32usize];
    ["Offset of field: PeftkMagnitudeBackwardItem::count"]
        [::core::mem::offset_of!(PeftkMagnitudeBackwardItem, count) - 40usize];
    ["Offset of field: PeftkMagnitudeBackwardItem::add"]
        [::core::mem::offset_of!(PeftkMagnitudeBackwardItem, add) - 44usize];
};
#[doc = " The gradients of many gains in one launch."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkMagnitudeBackwardParams {
    #[doc = " One an index of the grid's y."]
    pub items: [PeftkMagnitudeBackwardItem; 48usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkMagnitudeBackwardParams"][::core::mem::size_of::<PeftkMagnitudeBackwardParams>() - 2304usize];
    ["Alignment of PeftkMagnitudeBackwardParams"][::core::mem::align_of::<PeftkMagnitudeBackwardParams>() - 8usize];
    ["Offset of field: PeftkMagnitudeBackwardParams::items"]
        [::core::mem::offset_of!(PeftkMagnitudeBackwardParams, items) - 0usize];
};
#[doc = " The gradient of DoRA's gain, dg_j = sum over tokens of dy (x W_j + s t B_j)."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkMagnitudeGradientParams {
    #[doc = " dy, `[m, ld]`, read from column `first_row` on."]
    pub dy: u64,
    #[doc = " y, `[m, ld_y]`, read from column `y_column` on."]
    pub y: u64,
    #[doc = " The linear's bias, `[n]` f32, read from `first_row` on; 0: none."]
    pub bias: u64,
    #[doc = " The gain, `[rows]` f32, read; 0: y is z itself, g = 1."]
    pub gain: u64,
    #[doc = " x, `[m, k]`, read only for rows of small gain."]
    pub x: u64,
    #[doc = " W, `[n, k]` with rows `ld_w` apart, of x's type, read from row `first_row` on, only for rows of small gain."]
    pub w: u64,
    #[doc = " t = x A^T, `[m, rank_padded]`, of x's type, likewise."]
    pub t: u64,
    #[doc = " B, `[rows, rank_padded]`, of x's type, likewise."]
    pub b: u64,
    #[doc = " The pieces' sums, `[pieces, rows]` f32, written, then read by the second kernel."]
    pub partial: u64,
    #[doc = " dg, `[rows]` f32, written by the second kernel."]
    pub dgain: u64,
    #[doc = " s."]
    pub scale: f32,
    #[doc = " Tokens."]
    pub m: u32,
    #[doc = " Width of x."]
    pub k: u32,
    #[doc = " Row stride of dy, elements."]
    pub ld: u32,
    #[doc = " Row stride of y, elements."]
    pub ld_y: u32,
    #[doc = " First column of y."]
    pub y_column: u32,
    #[doc = " First row of W under the adapter."]
    pub first_row: u32,
    #[doc = " Rows under the adapter."]
    pub rows: u32,
    #[doc = " Columns of t and B."]
    pub rank_padded: u32,
    #[doc = " Row stride of W, elements."]
    pub ld_w: u32,
    #[doc = " How the tokens are cut."]
    pub cut: PeftkCut,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkMagnitudeGradientParams"][::core::mem::size_of::<PeftkMagnitudeGradientParams>() - 144usize];
    ["Alignment of PeftkMagnitudeGradientParams"][::core::mem::align_of::<PeftkMagnitudeGradientParams>() - 8usize];
    ["Offset of field: PeftkMagnitudeGradientParams::dy"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, dy) - 0usize];
    ["Offset of field: PeftkMagnitudeGradientParams::y"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, y) - 8usize];
    ["Offset of field: PeftkMagnitudeGradientParams::bias"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, bias) - 16usize];
    ["Offset of field: PeftkMagnitudeGradientParams::gain"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, gain) - 24usize];
    ["Offset of field: PeftkMagnitudeGradientParams::x"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, x) - 32usize];
    ["Offset of field: PeftkMagnitudeGradientParams::w"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, w) - 40usize];
    ["Offset of field: PeftkMagnitudeGradientParams::t"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, t) - 48usize];
    ["Offset of field: PeftkMagnitudeGradientParams::b"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, b) - 56usize];
    ["Offset of field: PeftkMagnitudeGradientParams::partial"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, partial) - 64usize];
    ["Offset of field: PeftkMagnitudeGradientParams::dgain"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, dgain) - 72usize];
    ["Offset of field: PeftkMagnitudeGradientParams::scale"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, scale) - 80usize];
    ["Offset of field: PeftkMagnitudeGradientParams::m"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, m) - 84usize];
    ["Offset of field: PeftkMagnitudeGradientParams::k"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, k) - 88usize];
    ["Offset of field: PeftkMagnitudeGradientParams::ld"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, ld) - 92usize];
    ["Offset of field: PeftkMagnitudeGradientParams::ld_y"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, ld_y) - 96usize];
    ["Offset of field: PeftkMagnitudeGradientParams::y_column"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, y_column) - 100usize];
    ["Offset of field: PeftkMagnitudeGradientParams::first_row"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, first_row) - 104usize];
    ["Offset of field: PeftkMagnitudeGradientParams::rows"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, rows) - 108usize];
    ["Offset of field: PeftkMagnitudeGradientParams::rank_padded"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, rank_padded) - 112usize];
    ["Offset of field: PeftkMagnitudeGradientParams::ld_w"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, ld_w) - 116usize];
    ["Offset of field: PeftkMagnitudeGradientParams::cut"]
        [::core::mem::offset_of!(PeftkMagnitudeGradientParams, cut) - 120usize];
};
#[doc = " One adapter's merged weight."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkMergeItem {
    #[doc = " W's rows of this adapter, `[rows, cols]`, read."]
    pub w: u64,
    #[doc = " A, `[rank, cols]`, read."]
    pub a: u64,
    #[doc = " B, `[rows, rank]`, read."]
    pub b: u64,
    #[doc = " g, `[rows]`: read by merge; 0: g = 1."]
    pub gain: u64,
    #[doc = " The magnitude, `[rows]`: read by merge_dora."]
    pub magnitude: u64,
    #[doc = " The merged rows, `[rows, cols]` f32, written where not 0; may be w."]
    pub out_f32: u64,
    #[doc = " The merged rows, `[rows, cols]` bf16, written where not 0."]
    pub out_bf16: u64,
    #[doc = " s."]
    pub scale: f32,
    #[doc = " Rows."]
    pub rows: u32,
    #[doc = " Columns."]
    pub cols: u32,
    #[doc = " Rank, 1 to 256."]
    pub rank: u32,
    #[doc = " The first of its blocks, which are ceil(rows / block_rows)."]
    pub first_block: u32,
    #[doc = " Rows a block, 4 warps' shares: 16 of up to 384 columns, 8 of up to 768, 4 of up to 1536, 16 of more."]
    pub block_rows: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkMergeItem"][::core::mem::size_of::<PeftkMergeItem>() - 80usize];
    ["Alignment of PeftkMergeItem"][::core::mem::align_of::<PeftkMergeItem>() - 8usize];
    ["Offset of field: PeftkMergeItem::w"][::core::mem::offset_of!(PeftkMergeItem, w) - 0usize];
    ["Offset of field: PeftkMergeItem::a"][::core::mem::offset_of!(PeftkMergeItem, a) - 8usize];
    ["Offset of field: PeftkMergeItem::b"][::core::mem::offset_of!(PeftkMergeItem, b) - 16usize];
    ["Offset of field: PeftkMergeItem::gain"][::core::mem::offset_of!(PeftkMergeItem, gain) - 24usize];
    ["Offset of field: PeftkMergeItem::magnitude"][::core::mem::offset_of!(PeftkMergeItem, magnitude) - 32usize];
    ["Offset of field: PeftkMergeItem::out_f32"][::core::mem::offset_of!(PeftkMergeItem, out_f32) - 40usize];
    ["Offset of field: PeftkMergeItem::out_bf16"][::core::mem::offset_of!(PeftkMergeItem, out_bf16) - 48usize];
    ["Offset of field: PeftkMergeItem::scale"][::core::mem::offset_of!(PeftkMergeItem, scale) - 56usize];
    ["Offset of field: PeftkMergeItem::rows"][::core::mem::offset_of!(PeftkMergeItem, rows) - 60usize];
    ["Offset of field: PeftkMergeItem::cols"][::core::mem::offset_of!(PeftkMergeItem, cols) - 64usize];
    ["Offset of field: PeftkMergeItem::rank"][::core::mem::offset_of!(PeftkMergeItem, rank) - 68usize];
    ["Offset of field: PeftkMergeItem::first_block"][::core::mem::offset_of!(PeftkMergeItem, first_block) - 72usize];
    ["Offset of field: PeftkMergeItem::block_rows"][::core::mem::offset_of!(PeftkMergeItem, block_rows) - 76usize];
};
#[doc = " g (W + s B A) for one adapter or many."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkMergeParams {
    #[doc = " The adapters, by first block."]
    pub items: [PeftkMergeItem; 48usize],
    #[doc = " How many there are, at least 1."]
    pub count: u32,
    #[doc = " Unused."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkMergeParams"][::core::mem::size_of::<PeftkMergeParams>() - 3848usize];
    ["Alignment of PeftkMergeParams"][::core::mem::align_of::<PeftkMergeParams>() - 8usize];
    ["Offset of field: PeftkMergeParams::items"][::core::mem::offset_of!(PeftkMergeParams, items) - 0usize];
    ["Offset of field: PeftkMergeParams::count"][::core::mem::offset_of!(PeftkMergeParams, count) - 3840usize];
    ["Offset of field: PeftkMergeParams::padding"][::core::mem::offset_of!(PeftkMergeParams, padding) - 3844usize];
};
#[doc = " y += g z - u on an adapter's columns."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkDoraDropoutParams {
    #[doc = " y, `[m, n]`, columns `first_row ..` read and written."]
    pub y: u64,
    #[doc = " z = drop(x) W^T + s t B^T, `[m, rows]`, read."]
    pub z: u64,
    #[doc = " u = drop(x) W^T, `[m, rows]`, read."]
    pub u: u64,
    #[doc = " g, `[rows]` f32, read."]
    pub gain: u64,
    #[doc = " Tokens."]
    pub m: u32,
    #[doc = " Row stride of y, elements."]
    pub n: u32,
    #[doc = " First column of y."]
    pub first_row: u32,
    #[doc = " Columns under the adapter."]
    pub rows: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkDoraDropoutParams"][::core::mem::size_of::<PeftkDoraDropoutParams>() - 48usize];
    ["Alignment of PeftkDoraDropoutParams"][::core::mem::align_of::<PeftkDoraDropoutParams>() - 8usize];
    ["Offset of field: PeftkDoraDropoutParams::y"][::core::mem::offset_of!(PeftkDoraDropoutParams, y) - 0usize];
    ["Offset of field: PeftkDoraDropoutParams::z"][::core::mem::offset_of!(PeftkDoraDropoutParams, z) - 8usize];
    ["Offset of field: PeftkDoraDropoutParams::u"][::core::mem::offset_of!(PeftkDoraDropoutParams, u) - 16usize];
    ["Offset of field: PeftkDoraDropoutParams::gain"][::core::mem::offset_of!(PeftkDoraDropoutParams, gain) - 24usize];
    ["Offset of field: PeftkDoraDropoutParams::m"][::core::mem::offset_of!(PeftkDoraDropoutParams, m) - 32usize];
    ["Offset of field: PeftkDoraDropoutParams::n"][::core::mem::offset_of!(PeftkDoraDropoutParams, n) - 36usize];
    ["Offset of field: PeftkDoraDropoutParams::first_row"]
        [::core::mem::offset_of!(PeftkDoraDropoutParams, first_row) - 40usize];
    ["Offset of field: PeftkDoraDropoutParams::rows"][::core::mem::offset_of!(PeftkDoraDropoutParams, rows) - 44usize];
};
#[doc = " g - 1, elementwise."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkGainMinusOneParams {
    #[doc = " g, `[count]` f32, read."]
    pub gain: u64,
    #[doc = " g - 1, `[count]` f32, written."]
    pub out: u64,
    #[doc = " Values."]
    pub count: u64,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkGainMinusOneParams"][::core::mem::size_of::<PeftkGainMinusOneParams>() - 24usize];
    ["Alignment of PeftkGainMinusOneParams"][::core::mem::align_of::<PeftkGainMinusOneParams>() - 8usize];
    ["Offset of field: PeftkGainMinusOneParams::gain"][::core::mem::offset_of!(PeftkGainMinusOneParams, gain) - 0usize];
    ["Offset of field: PeftkGainMinusOneParams::out"][::core::mem::offset_of!(PeftkGainMinusOneParams, out) - 8usize];
    ["Offset of field: PeftkGainMinusOneParams::count"]
        [::core::mem::offset_of!(PeftkGainMinusOneParams, count) - 16usize];
};
#[doc = " What to make of one image: one entry of the table in device memory. Edges are in pixels and may lie between them."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAugmentImage {
    #[doc = " First byte of the image in the packed pixels."]
    pub offset: u64,
    #[doc = " Left edge of the crop, 0 to width."]
    pub left: f64,
    #[doc = " Right edge of the crop, above left, to width."]
    pub right: f64,
    #[doc = " Top edge of the crop, 0 to height."]
    pub top: f64,
    #[doc = " Bottom edge of the crop, above top, to height."]
    pub bottom: f64,
    #[doc = " Source pixels across."]
    pub width: u32,
    #[doc = " Source pixels down."]
    pub height: u32,
    #[doc = " 1: mirror left to right after resizing; 0: do not."]
    pub flip: u32,
    #[doc = " Always 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAugmentImage"][::core::mem::size_of::<PeftkAugmentImage>() - 56usize];
    ["Alignment of PeftkAugmentImage"][::core::mem::align_of::<PeftkAugmentImage>() - 8usize];
    ["Offset of field: PeftkAugmentImage::offset"][::core::mem::offset_of!(PeftkAugmentImage, offset) - 0usize];
    ["Offset of field: PeftkAugmentImage::left"][::core::mem::offset_of!(PeftkAugmentImage, left) - 8usize];
    ["Offset of field: PeftkAugmentImage::right"][::core::mem::offset_of!(PeftkAugmentImage, right) - 16usize];
    ["Offset of field: PeftkAugmentImage::top"][::core::mem::offset_of!(PeftkAugmentImage, top) - 24usize];
    ["Offset of field: PeftkAugmentImage::bottom"][::core::mem::offset_of!(PeftkAugmentImage, bottom) - 32usize];
    ["Offset of field: PeftkAugmentImage::width"][::core::mem::offset_of!(PeftkAugmentImage, width) - 40usize];
    ["Offset of field: PeftkAugmentImage::height"][::core::mem::offset_of!(PeftkAugmentImage, height) - 44usize];
    ["Offset of field: PeftkAugmentImage::flip"][::core::mem::offset_of!(PeftkAugmentImage, flip) - 48usize];
    ["Offset of field: PeftkAugmentImage::padding"][::core::mem::offset_of!(PeftkAugmentImage, padding) - 52usize];
};
#[doc = " Both entries of kernels/augment.cu: a batch of crops of packed u8 RGB images to `[images, size, size, 3]` u8."]
#[repr(C)]
#[derive(Debug, Copy, Clone, PartialEq, bytemuck :: Pod, bytemuck :: Zeroable)]
pub struct PeftkAugmentParams {
    #[doc = " The packed source images, each `[height, width, 3]` u8, read."]
    pub pixels: u64,
    #[doc = " `[images]` of PeftkAugmentImage, read."]
    pub table: u64,
    #[doc = " 32-bit words, `[images]` of 1 for a good entry and then `[images, 2, axis_words]`: written by augment_weights_i16,\n read by augment_u8."]
    pub scratch: u64,
    #[doc = " The squares, `[images, size, size, 3]` u8, written."]
    pub out: u64,
    #[doc = " Bytes of `pixels`: an image that would reach beyond becomes black."]
    pub pixel_bytes: u64,
    #[doc = " Images of the batch."]
    pub images: u32,
    #[doc = " Side of a square, pixels."]
    pub size: u32,
    #[doc = " Words for the weights of one axis of one image: an image that takes more becomes black."]
    pub axis_words: u32,
    #[doc = " Always 0."]
    pub padding: u32,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of PeftkAugmentParams"][::core::mem::size_of::<PeftkAugmentParams>() - 56usize];
    ["Alignment of PeftkAugmentParams"][::core::mem::align_of::<PeftkAugmentParams>() - 8usize];
    ["Offset of field: PeftkAugmentParams::pixels"][::core::mem::offset_of!(PeftkAugmentParams, pixels) - 0usize];
    ["Offset of field: PeftkAugmentParams::table"][::core::mem::offset_of!(PeftkAugmentParams, table) - 8usize];
    ["Offset of field: PeftkAugmentParams::scratch"][::core::mem::offset_of!(PeftkAugmentParams, scratch) - 16usize];
    ["Offset of field: PeftkAugmentParams::out"][::core::mem::offset_of!(PeftkAugmentParams, out) - 24usize];
    ["Offset of field: PeftkAugmentParams::pixel_bytes"]
        [::core::mem::offset_of!(PeftkAugmentParams, pixel_bytes) - 32usize];
    ["Offset of field: PeftkAugmentParams::images"][::core::mem::offset_of!(PeftkAugmentParams, images) - 40usize];
    ["Offset of field: PeftkAugmentParams::size"][::core::mem::offset_of!(PeftkAugmentParams, size) - 44usize];
    ["Offset of field: PeftkAugmentParams::axis_words"]
        [::core::mem::offset_of!(PeftkAugmentParams, axis_words) - 48usize];
    ["Offset of field: PeftkAugmentParams::padding"][::core::mem::offset_of!(PeftkAugmentParams, padding) - 52usize];
};
