//! kernels/patches.cu, tokens.cu, pool.cu and positions.cu against the plain loops in f64.

use peftk::autograd::{Backend, Sums, TokenDims};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::tokens::{
    TokenGrads, assemble_tokens_backward, assemble_tokens_forward, patches_ld, patches_u8, pool_backward, pool_forward,
    resample_positions_backward, resample_positions_forward,
};
use peftk::reference::Reference;
use rand::RngExt;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{DTYPES, Numbers, compare, fresh, poisoned, results, rounding, sum_error};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_tokens", needs: Needs::Gpu, run: sanitize },
    Test { name: "tokens::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "tokens::odd_shapes", needs: Needs::Gpu, run: odd_shapes },
    Test { name: "tokens::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
    Test { name: "patches::shapes", needs: Needs::Gpu, run: patch_shapes },
    Test { name: "positions::shapes", needs: Needs::Gpu, run: position_shapes },
];

/// (activations, residual stream).
const TYPES: [(DType, DType); 3] = [(DType::F32, DType::F32), (DType::Bf16, DType::F32), (DType::Bf16, DType::Bf16)];

fn check_tokens(dims: TokenDims) {
    let mut random = fresh();
    let reference = Reference::<f64>::new();
    let TokenDims { batch, registers, patches, width } = dims;
    let rows = batch * dims.tokens();
    for (activations, stream) in TYPES {
        let mut draw = |dtype, len| Numbers::draw(&mut random, dtype, len, 2.0);
        let parts = draw(activations, batch * patches * width);
        let (cls, pos) = (draw(DType::F32, width), draw(DType::F32, (1 + patches) * width));
        let extra = (registers > 0).then(|| draw(DType::F32, registers * width));
        let dx = draw(stream, rows * width);
        let wide_extra = extra.as_ref().map(Numbers::wide);
        let truth =
            reference.assemble_tokens(dims, &parts.wide(), &cls.wide(), &pos.wide(), wide_extra.as_ref()).unwrap();
        let (true_patches, true_cls, true_pos, true_registers) =
            reference.assemble_tokens_backward(dims, &dx.wide(), Sums::fresh()).unwrap();
        on_every_arch(|device| {
            let what = format!("tokens {} {dims:?} {activations:?} {stream:?}", device.arch());
            let [parts, cls, pos, dx] = [&parts, &cls, &pos, &dx].map(|numbers| numbers.upload(device));
            let extra = extra.as_ref().map(|extra| extra.upload(device));
            let mut x = poisoned(device, stream, rows * width);
            assemble_tokens_forward(device, dims, &parts, &cls, &pos, extra.as_ref(), &mut x).unwrap();
            let allowed = |i: usize| 1e-6 + rounding(stream) * truth[i].abs();
            compare(&what, &results(&x, &what), &truth, allowed);

            let backward = || {
                let mut dpatches = poisoned(device, activations, batch * patches * width);
                let mut dcls = poisoned(device, DType::F32, width);
                let mut dpos = poisoned(device, DType::F32, (1 + patches) * width);
                let mut dregisters = (registers > 0).then(|| poisoned(device, DType::F32, registers * width));
                let grads = TokenGrads {
                    patches: Some(&mut dpatches),
                    cls: Some(&mut dcls),
                    pos: Some(&mut dpos),
                    registers: dregisters.as_mut(),
                };
                assemble_tokens_backward(device, dims, &dx, grads, false).unwrap();
                let made = [Some(&dpatches), Some(&dcls), Some(&dpos), dregisters.as_ref()];
                made.map(|buf| buf.map(|buf| results(buf, &what)))
            };
            let ours = backward();
            assert_eq!(ours, backward(), "{what}: equal inputs, other bits");
            let [dpatches, dcls, dpos, dregisters] = ours;
            compare(&what, &dpatches.unwrap(), &true_patches, |i| rounding(activations) * true_patches[i].abs());
            let sum = |_: usize| sum_error(2.0 * batch as f64);
            compare(&what, &dcls.unwrap(), &true_cls, sum);
            compare(&what, &dpos.unwrap(), &true_pos, sum);
            if let Some(truth) = &true_registers {
                compare(&what, &dregisters.unwrap(), truth, sum);
            }
            // One part alone, into a block that is written before and behind by nobody.
            let mut alone = poisoned(device, DType::F32, width);
            let grads = TokenGrads { cls: Some(&mut alone), ..TokenGrads::default() };
            assemble_tokens_backward(device, dims, &dx, grads, false).unwrap();
            compare(&what, &results(&alone, &what), &true_cls, sum);
        });
    }
}

fn check_pool(dims: TokenDims) {
    let mut random = fresh();
    let reference = Reference::<f64>::new();
    let rows = dims.batch * dims.tokens();
    for (with_mean, dtype) in [false, true].into_iter().flat_map(|mean| DTYPES.map(|dtype| (mean, dtype))) {
        let wide = if with_mean { 2 * dims.width } else { dims.width };
        let x = Numbers::draw(&mut random, dtype, rows * dims.width, 2.0);
        let dpooled = Numbers::draw(&mut random, DType::F32, dims.batch * wide, 2.0);
        let truth = reference.pool(dims, with_mean, &x.wide()).unwrap();
        let true_dx = reference.pool_backward(dims, with_mean, &dpooled.wide()).unwrap();
        on_every_arch(|device| {
            let what = format!("pool {} {dims:?} {with_mean} {dtype:?}", device.arch());
            let (x, dpooled) = (x.upload(device), dpooled.upload(device));
            let once = || {
                let mut pooled = poisoned(device, DType::F32, dims.batch * wide);
                pool_forward(device, dims, with_mean, &x, &mut pooled).unwrap();
                results(&pooled, &what)
            };
            let pooled = once();
            assert_eq!(pooled, once(), "{what}: equal inputs, other bits");
            compare(&what, &pooled, &truth, |_| sum_error(2.0));
            let mut dx = poisoned(device, dtype, rows * dims.width);
            pool_backward(device, dims, with_mean, &dpooled, &mut dx).unwrap();
            compare(&what, &results(&dx, &what), &true_dx, |i| (1e-6 + rounding(dtype)) * true_dx[i].abs());
        });
    }
}

fn check_all(shapes: &[(usize, usize, usize, usize)]) {
    for &(batch, registers, patches, width) in shapes {
        let dims = TokenDims { batch, registers, patches, width };
        check_tokens(dims);
        check_pool(dims);
    }
}

fn sanitize() {
    check_all(&[(3, 2, 5, 12), (2, 0, 17, 131)]);
    check_patches(2, 6, 3);
    check_patches(1, 28, 14);
    check_positions(5, 9, 130);
    check_positions(1, 1, 3);
}

fn dinov2_shapes() {
    check_all(&[(2, 0, 256, 384), (2, 4, 256, 384), (1, 4, 256, 1024), (1, 0, 1369, 768)]);
}

fn odd_shapes() {
    // Around 8 and 4 columns a thread, 128 a block, 16 patches a step, 8 images at once.
    check_all(&[
        (1, 0, 1, 1),
        (1, 1, 1, 1),
        (1, 0, 1, 384),
        (2, 0, 3, 7),
        (3, 4, 2, 8),
        (7, 1, 4, 9),
        (8, 2, 9, 12),
        (9, 0, 15, 16),
        (10, 3, 16, 15),
        (15, 0, 17, 4),
        (16, 4, 25, 3),
        (17, 0, 31, 33),
        (33, 1, 4, 40),
        (64, 0, 1, 129),
        (65, 2, 1, 127),
        (2, 4, 49, 128),
        (1, 0, 257, 131),
        (1, 16, 3, 257),
        (5, 0, 16, 136),
        (23, 4, 4, 20),
        (4, 0, 100, 2),
        (3, 0, 64, 100),
    ]);
}

fn check_patches(batch: usize, size: usize, patch: usize) {
    let mut random = fresh();
    let images: Vec<u8> = (0..batch * size * size * 3).map(|_| random.random()).collect();
    let truth = Reference::<f64>::new().patches(&images, batch, size, patch).unwrap();
    let (inner, rows) = (3 * patch * patch, batch * (size / patch).pow(2));
    for dtype in DTYPES {
        let ld = patches_ld(patch, dtype);
        let mut padded = vec![0.0; rows * ld];
        for (padded, truth) in padded.chunks_exact_mut(ld).zip(truth.chunks_exact(inner)) {
            padded[..inner].copy_from_slice(truth);
        }
        on_every_arch(|device| {
            let what = format!("patches {} {batch} {size} {patch} {dtype:?}", device.arch());
            let images = Buf::from_slice(device, &images, DType::U8).unwrap();
            let mut out = poisoned(device, dtype, rows * ld);
            patches_u8(device, batch, size, patch, &images, &mut out).unwrap();
            compare(&what, &results(&out, &what), &padded, |i| 1e-6 + rounding(dtype) * padded[i].abs());
        });
    }
}

fn patch_shapes() {
    let shapes = [
        (2, 224, 14),
        (1, 518, 14),
        (3, 14, 14),
        (33, 28, 14),
        (2, 48, 16),
        (1, 64, 32),
        (1, 1, 1),
        (5, 2, 1),
        (7, 4, 2),
        (3, 9, 3),
        (31, 8, 4),
        (32, 5, 5),
        (2, 70, 7),
        (1, 88, 8),
        (1, 99, 9),
    ];
    shapes.into_iter().for_each(|(batch, size, patch)| check_patches(batch, size, patch));
}

fn check_positions(from: usize, to: usize, width: usize) {
    let mut random = fresh();
    let reference = Reference::<f64>::new();
    let mut draw = |len, bound| Numbers::draw(&mut random, DType::F32, len, bound);
    let (pos, dy, matrix) = (draw((1 + from) * width, 2.0), draw((1 + to) * width, 2.0), draw(to * from, 0.2));
    let truth = reference.resample_positions(from, to, width, &pos.wide(), &matrix.wide()).unwrap();
    let true_dpos = reference.resample_positions_backward(from, to, width, &matrix.wide(), &dy.wide()).unwrap();
    on_every_arch(|device| {
        let what = format!("positions {} {from} to {to} x {width}", device.arch());
        let (pos, dy, matrix) = (pos.upload(device), dy.upload(device), matrix.upload(device));
        let mut out = poisoned(device, DType::F32, (1 + to) * width);
        let mut dpos = poisoned(device, DType::F32, (1 + from) * width);
        resample_positions_forward(device, from, to, width, &pos, &matrix, &mut out).unwrap();
        resample_positions_backward(device, from, to, width, &matrix, &dy, &mut dpos).unwrap();
        compare(&what, &results(&out, &what), &truth, |_| sum_error(0.4 * from as f64 + 1.0));
        compare(&what, &results(&dpos, &what), &true_dpos, |_| sum_error(0.4 * to as f64 + 1.0));
    });
}

fn position_shapes() {
    let shapes = [
        (1369, 256, 96),
        (256, 256, 33),
        (1, 1, 1),
        (1, 5, 2),
        (5, 1, 3),
        (4, 4, 128),
        (3, 9, 129),
        (37, 16, 127),
        (9, 7, 384),
    ];
    shapes.into_iter().for_each(|(from, to, width)| check_positions(from, to, width));
}

fn wrong_shapes() {
    on_every_arch(|device: &Device| {
        let buf = |len| Buf::zeros(device, DType::F32, len).unwrap();
        let dims = TokenDims { batch: 2, registers: 1, patches: 3, width: 4 };
        let (parts, cls, pos, extra, mut x) = (buf(24), buf(4), buf(16), buf(4), buf(40));
        assemble_tokens_forward(device, dims, &parts, &cls, &pos, Some(&extra), &mut x).unwrap();
        let zero = TokenDims { batch: 0, ..dims };
        let refused = [
            assemble_tokens_forward(device, dims, &parts, &cls, &pos, None, &mut x),
            assemble_tokens_forward(device, dims, &parts, &cls, &buf(15), Some(&extra), &mut x),
            assemble_tokens_forward(device, dims, &parts, &cls, &pos, Some(&extra), &mut buf(39)),
            assemble_tokens_forward(device, zero, &parts, &cls, &pos, Some(&extra), &mut x),
            assemble_tokens_backward(
                device,
                dims,
                &x,
                TokenGrads { cls: Some(&mut buf(3)), ..TokenGrads::default() },
                false,
            ),
            pool_forward(device, dims, true, &x, &mut buf(15)),
            pool_forward(device, zero, true, &x, &mut buf(16)),
            pool_backward(device, dims, true, &buf(16), &mut buf(39)),
            patches_u8(device, 1, 4, 3, &Buf::zeros(device, DType::U8, 48).unwrap(), &mut buf(48)),
            patches_u8(device, 1, 4, 0, &Buf::zeros(device, DType::U8, 48).unwrap(), &mut buf(48)),
            patches_u8(device, 1, 4, 2, &buf(48), &mut buf(48)),
            resample_positions_forward(device, 3, 2, 4, &buf(16), &buf(5), &mut buf(12)),
            resample_positions_backward(device, 3, 2, 4, &buf(6), &buf(12), &mut buf(15)),
        ];
        for (i, result) in refused.into_iter().enumerate() {
            assert!(result.is_err(), "case {i} was taken");
        }
    });
}
