//! The launch parameters of every kernel, as kernels/params.h lays them out, with their sizes and offsets checked.
//!
//! Written by tools/bindgen: edit kernels/params.h, then run `make params`.

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
