//! From images to sequences, and from sequences to the head.

use peftk::autograd::TokenDims;
use peftk::data::transform::CropBox;
use peftk::gpu::{Buf, DType};
use peftk::kernels::augment::{AugmentImage, augment, scratch_len, table};
use peftk::kernels::tokens::{
    TokenGrads, assemble_tokens_backward, assemble_tokens_forward, patches_ld, patches_u8, pool_backward, pool_forward,
    resample_positions_backward, resample_positions_forward,
};

use super::{Case, Gpu, ROWS, WIDTH, bytes, case};

const BF16: DType = DType::Bf16;
const F32: DType = DType::F32;
const PATCHES: usize = 256;
const DIMS: TokenDims = TokenDims { batch: 256, registers: 0, patches: PATCHES, width: WIDTH };

/// 64 photographs of 500 x 375, a box of 380 x 340 of each resized to a square of 224.
fn photographs() -> Case {
    const COUNT: usize = 64;
    const SIZE: usize = 224;
    const IMAGE_BYTES: usize = 500 * 375 * 3;
    // An image begins at a multiple of 16 bytes.
    const STRIDE: usize = IMAGE_BYTES.next_multiple_of(16);
    let images = || -> Vec<AugmentImage> {
        let part = |i: usize| CropBox { left: 60.25 + i as f64 / 2.0, top: 17.5, width: 380.0, height: 340.0 };
        let image = |i: usize| AugmentImage {
            offset: (i * STRIDE) as u64,
            width: 500,
            height: 375,
            part: part(i),
            flip: i.is_multiple_of(2),
        };
        (0..COUNT).map(image).collect()
    };
    let out = COUNT * SIZE * SIZE * 3;
    let make = move |gpu: &Gpu| {
        let images = images();
        let entries = Buf::from_slice(&gpu.device, &table(&images)?, DType::U8)?;
        let scratch = gpu.out(DType::I32, scratch_len(&images, SIZE))?;
        Ok((gpu.pixels(COUNT * STRIDE)?, entries, scratch, gpu.out(DType::U8, out)?))
    };
    let work = bytes(COUNT * 380 * 340 * 3 + out);
    case("augment 64 of 500x375 to 224", work, make, |device, (pixels, entries, scratch, out)| {
        augment(device, pixels, entries, COUNT, SIZE, scratch, out)
    })
}

fn patches(dtype: DType, name: &'static str) -> Case {
    let (pixels, rows) = (256 * 224 * 224 * 3, 256 * PATCHES);
    let out = rows * patches_ld(14, dtype);
    let make = move |gpu: &Gpu| Ok((gpu.pixels(pixels)?, gpu.out(dtype, out)?));
    case(name, bytes(pixels + out * dtype.bytes()), make, |device, (images, out)| {
        patches_u8(device, 256, 224, 14, images, out)
    })
}

pub fn cases() -> Vec<Case> {
    let (r, d) = (ROWS, WIDTH);
    let inner = 256 * PATCHES * d;
    let (from, to) = (37 * 37, PATCHES);
    vec![
        photographs(),
        patches(BF16, "patches_u8 b256 bf16"),
        patches(F32, "patches_u8 b256 f32"),
        case(
            "assemble_tokens_forward b256 bf16",
            bytes(2 * (inner + r * d)),
            move |gpu| {
                let pos = gpu.random(F32, (1 + PATCHES) * d)?;
                Ok((gpu.random(BF16, inner)?, gpu.random(F32, d)?, pos, gpu.out(BF16, r * d)?))
            },
            |device, (patches, cls, pos, x)| assemble_tokens_forward(device, DIMS, patches, cls, pos, None, x),
        ),
        case(
            "assemble_tokens_backward b256 bf16, all",
            bytes(2 * (inner + r * d)),
            move |gpu| {
                let pos = gpu.out(F32, (1 + PATCHES) * d)?;
                Ok((gpu.random(BF16, r * d)?, gpu.out(BF16, inner)?, gpu.out(F32, d)?, pos))
            },
            |device, (dx, patches, cls, pos)| {
                let grads = TokenGrads { patches: Some(patches), cls: Some(cls), pos: Some(pos), registers: None };
                assemble_tokens_backward(device, DIMS, dx, grads, false)
            },
        ),
        case(
            "pool_forward b256 cls+mean bf16",
            bytes(2 * r * d + 4 * 256 * 2 * d),
            move |gpu| Ok((gpu.random(BF16, r * d)?, gpu.out(F32, 256 * 2 * d)?)),
            |device, (x, pooled)| pool_forward(device, DIMS, true, x, pooled),
        ),
        case(
            "pool_backward b256 cls+mean bf16",
            bytes(2 * r * d + 4 * 256 * 2 * d),
            move |gpu| Ok((gpu.random(F32, 256 * 2 * d)?, gpu.out(BF16, r * d)?)),
            |device, (dpooled, dx)| pool_backward(device, DIMS, true, dpooled, dx),
        ),
        case(
            "resample_positions_forward 37x37 to 16x16",
            bytes(4 * (from * to + (from + to) * d)),
            move |gpu| Ok((gpu.random(F32, (1 + from) * d)?, gpu.random(F32, from * to)?, gpu.out(F32, (1 + to) * d)?)),
            move |device, (pos, matrix, out)| resample_positions_forward(device, from, to, d, pos, matrix, out),
        ),
        case(
            "resample_positions_backward 37x37 to 16x16",
            bytes(4 * (from * to + (from + to) * d)),
            move |gpu| Ok((gpu.random(F32, from * to)?, gpu.random(F32, (1 + to) * d)?, gpu.out(F32, (1 + from) * d)?)),
            move |device, (matrix, dy, dpos)| resample_positions_backward(device, from, to, d, matrix, dy, dpos),
        ),
    ]
}
