//! From images to sequences and from those to what is classified.

use std::sync::Arc;

use rand::RngExt;

use super::{BOTH, Bench, STREAMS, named, padded, rounded, streamed, sums};
use crate::autograd::{Backend, Sums, TokenDims};
use crate::data::transform::CropBox;
use crate::data::{RgbImage, Sources};
use crate::gpu::{Buf, DType};
use crate::kernels::augment::{self, AugmentImage};
use crate::kernels::tokens::{
    TokenGrads, assemble_tokens_backward, assemble_tokens_forward, patches_ld, patches_u8, pool_backward, pool_forward,
    resample_positions_backward, resample_positions_forward,
};
use crate::reference::{self, Reference};

pub(super) fn checks(bench: &mut Bench<'_>) {
    augmented(bench);
    for dtype in BOTH {
        patches(bench, dtype);
        pool(bench, dtype);
    }
    for types in STREAMS {
        tokens(bench, types);
    }
    positions(bench);
}

fn bytes(bench: &mut Bench<'_>, len: usize) -> Vec<u8> {
    (0..len).map(|_| bench.random.random()).collect()
}

/// Two crops, one mirrored, to the bit.
fn augmented(bench: &mut Bench<'_>) {
    let (device, size) = (bench.device, 56);
    bench.check("augment", "augment u8".to_owned(), 0.0, |bench| {
        let mut picture =
            |width, height| Arc::new(RgbImage { width, height, pixels: bytes(bench, width * height * 3) });
        let images = vec![picture(90, 70), picture(45, 61)];
        let boxes = vec![
            CropBox { left: 3.25, top: 0.0, width: 80.5, height: 69.5 },
            CropBox { left: 0.0, top: 10.5, width: 45.0, height: 30.25 },
        ];
        let sources = Sources { images, boxes, flips: vec![true, false] };
        let list = sources.images.iter().zip(&sources.boxes).zip(&sources.flips);
        let squares = list.flat_map(|((image, part), flip)| reference::augment::augment(image, *part, *flip, size));
        let truth: Vec<f64> = squares.map(f64::from).collect();

        let mut packed = vec![0; sources.layout().1];
        sources.pack(&mut packed)?;
        let images = entries(&sources);
        let pixels = Buf::from_slice(device, &packed, DType::U8)?;
        let table = Buf::from_slice(device, &augment::table(&images)?, DType::U8)?;
        let mut scratch = bench.room(DType::I32, augment::scratch_len(&images, size))?;
        bench.measure([bench.room(DType::U8, truth.len())?], [truth], |[out]| {
            augment::augment(device, &pixels, &table, images.len(), size, &mut scratch, out)
        })
    });
}

fn patches(bench: &mut Bench<'_>, dtype: DType) {
    let (device, batch, size, patch) = (bench.device, 2, 56, 14);
    bench.check("patches", named("patches_u8", dtype), rounded(dtype), |bench| {
        let images = bytes(bench, batch * size * size * 3);
        let truth = Reference::<f64>::new().patches(&images, batch, size, patch)?;
        let truth = padded(&truth, 3 * patch * patch, patches_ld(patch, dtype));
        let images = Buf::from_slice(device, &images, DType::U8)?;
        bench.measure([bench.room(dtype, truth.len())?], [truth], |[patches]| {
            patches_u8(device, batch, size, patch, &images, patches)
        })
    });
}

const DIMS: TokenDims = TokenDims { batch: 2, registers: 4, patches: 256, width: 128 };

fn tokens(bench: &mut Bench<'_>, types: (DType, DType)) {
    let (stream, activations) = types;
    let (device, reference) = (bench.device, Reference::<f64>::new());
    let TokenDims { batch, registers, patches, width } = DIMS;
    let rows = batch * DIMS.tokens();
    bench.check("tokens", streamed("assemble_tokens_forward", types), sums(stream), |bench| {
        let patches = bench.draw(activations, batch * patches * width, 2.0)?;
        let (cls, pos) =
            (bench.draw(DType::F32, width, 2.0)?, bench.draw(DType::F32, (1 + DIMS.patches) * width, 2.0)?);
        let registers = bench.draw(DType::F32, registers * width, 2.0)?;
        let x = reference.assemble_tokens(DIMS, &patches.wide, &cls.wide, &pos.wide, Some(&registers.wide))?;
        bench.measure([bench.room(stream, rows * width)?], [x], |[x]| {
            assemble_tokens_forward(device, DIMS, &patches.buf, &cls.buf, &pos.buf, Some(&registers.buf), x)
        })
    });
    bench.check("tokens", streamed("assemble_tokens_backward", types), sums(activations), |bench| {
        let dx = bench.draw(stream, rows * width, 2.0)?;
        let (dpatches, dcls, dpos, dregisters) = reference.assemble_tokens_backward(DIMS, &dx.wide, Sums::fresh())?;
        let f32_room = |truth: &Vec<f64>| bench.room(DType::F32, truth.len());
        let dregisters = dregisters.unwrap_or_default();
        let patch_room = bench.room(activations, dpatches.len())?;
        let rooms = [patch_room, f32_room(&dcls)?, f32_room(&dpos)?, f32_room(&dregisters)?];
        bench.measure(rooms, [dpatches, dcls, dpos, dregisters], |[patches, cls, pos, registers]| {
            let (patches, cls, pos, registers) = (Some(patches), Some(cls), Some(pos), Some(registers));
            assemble_tokens_backward(device, DIMS, &dx.buf, TokenGrads { patches, cls, pos, registers }, false)
        })
    });
}

fn pool(bench: &mut Bench<'_>, dtype: DType) {
    let (device, reference) = (bench.device, Reference::<f64>::new());
    let (len, pooled_len) = (DIMS.batch * DIMS.tokens() * DIMS.width, DIMS.batch * 2 * DIMS.width);
    // f32 holds bf16, so its sums are as good.
    bench.check("pool", named("pool_forward", dtype), sums(DType::F32), |bench| {
        let x = bench.draw(dtype, len, 2.0)?;
        let pooled = reference.pool(DIMS, true, &x.wide)?;
        bench.measure([bench.room(DType::F32, pooled_len)?], [pooled], |[pooled]| {
            pool_forward(device, DIMS, true, &x.buf, pooled)
        })
    });
    bench.check("pool", named("pool_backward", dtype), rounded(dtype), |bench| {
        let dpooled = bench.draw(DType::F32, pooled_len, 2.0)?;
        let dx = reference.pool_backward(DIMS, true, &dpooled.wide)?;
        bench.measure([bench.room(dtype, len)?], [dx], |[dx]| pool_backward(device, DIMS, true, &dpooled.buf, dx))
    });
}

/// A grid of 7 by 7 becomes one of 10 by 10.
fn positions(bench: &mut Bench<'_>) {
    let (device, reference) = (bench.device, Reference::<f64>::new());
    let (from, to, width) = (49, 100, 128);
    bench.check("positions", named("resample_positions_forward", DType::F32), sums(DType::F32), |bench| {
        let (pos, matrix) = (bench.draw(DType::F32, (1 + from) * width, 2.0)?, bench.draw(DType::F32, to * from, 0.5)?);
        let out = reference.resample_positions(from, to, width, &pos.wide, &matrix.wide)?;
        bench.measure([bench.room(DType::F32, (1 + to) * width)?], [out], |[out]| {
            resample_positions_forward(device, from, to, width, &pos.buf, &matrix.buf, out)
        })
    });
    bench.check("positions", named("resample_positions_backward", DType::F32), sums(DType::F32), |bench| {
        let (dy, matrix) = (bench.draw(DType::F32, (1 + to) * width, 2.0)?, bench.draw(DType::F32, to * from, 0.5)?);
        let dpos = reference.resample_positions_backward(from, to, width, &matrix.wide, &dy.wide)?;
        bench.measure([bench.room(DType::F32, (1 + from) * width)?], [dpos], |[dpos]| {
            resample_positions_backward(device, from, to, width, &matrix.buf, &dy.buf, dpos)
        })
    });
}

/// A batch's images where [`Sources::layout`] puts them.
fn entries(sources: &Sources) -> Vec<AugmentImage> {
    let (offsets, _) = sources.layout();
    let what = sources.boxes.iter().zip(&sources.flips);
    let images = sources.images.iter().zip(offsets).zip(what);
    images
        .map(|((image, offset), (&part, &flip))| AugmentImage {
            offset,
            width: image.width,
            height: image.height,
            part,
            flip,
        })
        .collect()
}
