//! kernels/attention_bf16.cu, sm90_attention.cu and attention_any.cu against the plain loops in f64, on inputs as the device rounds them.

use peftk::autograd::{AttentionDims, Backend};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::attention::{MAX_HEAD_DIM, attention_backward, attention_forward};
use peftk::reference::Reference;
use rand::Rng;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{DTYPES, Numbers, fresh, poisoned, results};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_attention", needs: Needs::Gpu, run: sanitize },
    Test { name: "attention::dinov2_shapes", needs: Needs::Gpu, run: dinov2_shapes },
    Test { name: "attention::odd_tokens", needs: Needs::Gpu, run: odd_tokens },
    Test { name: "attention::odd_heads", needs: Needs::Gpu, run: odd_heads },
    Test { name: "attention::sharp_softmax", needs: Needs::Gpu, run: sharp_softmax },
    Test { name: "attention::large_scores_do_not_overflow", needs: Needs::Gpu, run: large_scores },
    Test { name: "attention::what_is_not_finite_stays_in_its_head", needs: Needs::Gpu, run: not_finite },
    Test { name: "attention::equal_inputs_give_equal_bits", needs: Needs::Gpu, run: repeatable },
    Test { name: "attention::few_heads_or_many_give_the_same_bits", needs: Needs::Gpu, run: few_or_many },
    Test { name: "attention::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

struct Case {
    dims: AttentionDims,
    qkv: Numbers,
    dout: Numbers,
}

fn dims(batch: usize, tokens: usize, heads: usize, head_dim: usize) -> AttentionDims {
    AttentionDims { batch, tokens, heads, head_dim }
}

impl Case {
    /// `bound`: of q, k and v; at 1.7 they have variance 1, as after a LayerNorm and a linear.
    fn random(dims: AttentionDims, dtype: DType, bound: f32, random: &mut impl Rng) -> Self {
        let AttentionDims { batch, tokens, heads, head_dim } = dims;
        let len = batch * tokens * heads * head_dim;
        Self { dims, qkv: Numbers::draw(random, dtype, 3 * len, bound), dout: Numbers::draw(random, dtype, len, 1.7) }
    }

    fn rows(&self) -> usize {
        self.dims.batch * self.dims.heads * self.dims.tokens
    }

    fn what(&self, device: &Device) -> String {
        format!("{} {:?} {:?}", device.arch(), self.qkv.dtype, self.dims)
    }

    /// out and the log-sum-exp, on the device.
    fn forward(&self, device: &Device) -> (Buf, Buf) {
        let qkv = self.qkv.upload(device);
        let mut out = poisoned(device, self.qkv.dtype, self.dout.values.len());
        let mut lse = poisoned(device, DType::F32, self.rows());
        attention_forward(device, self.dims, &qkv, &mut out, &mut lse).unwrap();
        (out, lse)
    }

    fn backward(&self, device: &Device, out: &Buf, lse: &Buf) -> Vec<f64> {
        let (qkv, dout) = (self.qkv.upload(device), self.dout.upload(device));
        let mut dqkv = poisoned(device, self.qkv.dtype, self.qkv.values.len());
        attention_backward(device, self.dims, &qkv, out, lse, &dout, &mut dqkv).unwrap();
        results(&dqkv, &self.what(device))
    }

    /// Errors relative to the truth's norm: of out and of dq, dk, dv, after checking them.
    fn check(&self, device: &Device) -> (f64, f64) {
        let what = self.what(device);
        let reference = Reference::<f64>::new();
        let qkv = self.qkv.wide();
        let (true_out, true_lse) = reference.attention(self.dims, &qkv).unwrap();
        let (out, lse) = self.forward(device);
        // The gradients of what the forward pass left behind, rounded as it is.
        let (out_values, lse_values) = (results(&out, &what), results(&lse, &what));
        let allowed = if self.qkv.dtype == DType::Bf16 { 8e-3 } else { 1e-5 };
        let forward = relative(&out_values, &true_out, 0.0);
        assert!(forward <= allowed, "{what}: out is off by {forward:e}");
        let lse_error = relative(&lse_values, &true_lse, 1.0);
        assert!(lse_error <= 2e-6, "{what}: the log-sum-exp is off by {lse_error:e}");

        let truth = reference.attention_backward(self.dims, &qkv, &out_values, &lse_values, &self.dout.wide()).unwrap();
        let ours = self.backward(device, &out, &lse);
        let width = self.dims.heads * self.dims.head_dim;
        let mut worst = 0.0_f64;
        for (part, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
            let pick = |values: &[f64]| -> Vec<f64> {
                values.chunks(3 * width).flat_map(|row| row[part * width..(part + 1) * width].to_vec()).collect()
            };
            // With few tokens dq and dk are differences that nearly cancel: their rounding is that of the terms.
            let error = relative(&pick(&ours), &pick(&truth), 0.3);
            assert!(error <= allowed, "{what}: {name} is off by {error:e}");
            worst = worst.max(error);
        }
        (forward, worst)
    }
}

/// ||ours - truth|| / ||truth||, the latter at least as if every element were `floor`. NaN passes nothing.
fn relative(ours: &[f64], truth: &[f64], floor: f64) -> f64 {
    assert_eq!(ours.len(), truth.len());
    let difference: f64 = ours.iter().zip(truth).map(|(ours, truth)| (ours - truth).powi(2)).sum();
    let norm: f64 = truth.iter().map(|truth| truth.powi(2)).sum();
    (difference / norm.max(floor * floor * truth.len() as f64)).sqrt()
}

fn check_all(shapes: &[AttentionDims], bound: f32) {
    let mut random = fresh();
    for &dims in shapes {
        for dtype in DTYPES {
            let case = Case::random(dims, dtype, bound, &mut random);
            on_every_arch(|device| {
                case.check(device);
            });
        }
    }
}

fn sanitize() {
    // The second is too many heads to be split.
    check_all(&[dims(2, 37, 3, 64), dims(75, 19, 6, 64), dims(1, 325, 1, 64), dims(1, 21, 2, 20)], 1.7);
}

fn dinov2_shapes() {
    let mut random = fresh();
    // ViT-S, -B and -L at 224 pixels, with registers; at 518 pixels.
    for dims in
        [dims(2, 257, 6, 64), dims(1, 257, 12, 64), dims(1, 257, 16, 64), dims(1, 261, 6, 64), dims(1, 1370, 2, 64)]
    {
        for dtype in DTYPES {
            let case = Case::random(dims, dtype, 1.7, &mut random);
            on_every_arch(|device| {
                let (forward, backward) = case.check(device);
                println!("    attention {}: error {forward:.1e}, backward {backward:.1e}", case.what(device));
            });
        }
    }
}

/// Around every boundary there is: groups of 16, chunks of 64, blocks of 80, 96 and 128 rows, 320 tokens in shared memory.
fn odd_tokens() {
    let tokens = [
        1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65, 79, 81, 95, 96, 97, 127, 128, 129, 191, 193, 255, 256,
        257, 319, 320, 321, 383, 385, 449,
    ];
    let shapes: Vec<_> = tokens.into_iter().map(|tokens| dims(1 + tokens % 3, tokens, 1 + tokens % 2, 64)).collect();
    check_all(&shapes, 1.7);
}

fn odd_heads() {
    let widths = [1, 2, 3, 5, 8, 16, 31, 32, 33, 36, 48, 60, 63, 65, 72, 80, 96, 100, 127, 128];
    let shapes: Vec<_> = widths.into_iter().map(|width| dims(2, 1 + width % 70, 3, width)).collect();
    check_all(&shapes, 1.7);
}

/// Scores with a standard deviation of 8: most of a row's weight is on one key, and the running maximum moves.
fn sharp_softmax() {
    check_all(&[dims(1, 100, 2, 64), dims(1, 257, 1, 64), dims(1, 400, 1, 64), dims(1, 70, 2, 32)], 5.0);
}

/// Scores of several thousand, all of one sign: exponentials of them are far beyond f32.
fn large_scores() {
    let mut random = fresh();
    for sign in [-1.0_f32, 1.0] {
        for (tokens, dtype) in [(90, DType::Bf16), (350, DType::Bf16), (90, DType::F32)] {
            let mut case = Case::random(dims(1, tokens, 1, 64), dtype, 1.0, &mut random);
            for row in case.qkv.values.chunks_mut(192) {
                row[..64].fill(32.0 * sign);
                row[64..128].fill(16.0);
            }
            on_every_arch(|device| {
                // Every key has the same score: out is the mean of v.
                let (out, lse) = case.forward(device);
                let what = case.what(device);
                let score = f64::from(sign) * 32.0 * 16.0 * 64.0 / 8.0;
                for lse in results(&lse, &what) {
                    assert!((lse - score - (tokens as f64).ln()).abs() <= 2e-3, "{what}: {lse}");
                }
                let dqkv = case.backward(device, &out, &lse);
                assert!(dqkv.iter().all(|x| x.is_finite()), "{what}");
            });
        }
    }
}

/// A NaN in one head's v leaves the others alone.
fn not_finite() {
    let mut random = fresh();
    for tokens in [40, 330] {
        for dtype in DTYPES {
            let mut case = Case::random(dims(2, tokens, 2, 64), dtype, 1.7, &mut random);
            // v of the first image's second head, token 20.
            case.qkv.values[20 * 384 + 256 + 64 + 5] = f32::NAN;
            on_every_arch(|device| {
                let what = case.what(device);
                let (out, lse) = case.forward(device);
                for (i, value) in results(&out, &what).into_iter().enumerate() {
                    let here = i < tokens * 128 && i % 128 == 64 + 5;
                    assert_eq!(value.is_nan(), here, "{what}: out {i}");
                }
                assert!(results(&lse, &what).iter().all(|x| x.is_finite()), "{what}");
                let dqkv = case.backward(device, &out, &lse);
                for (i, value) in dqkv.into_iter().enumerate() {
                    let head = i % 128 / 64;
                    assert!(value.is_finite() || (i < tokens * 384 && head == 1), "{what}: dqkv {i}");
                }
            });
        }
    }
}

fn repeatable() {
    let mut random = fresh();
    for (tokens, head_dim) in [(257, 64), (500, 64), (100, 48)] {
        for dtype in DTYPES {
            let case = Case::random(dims(3, tokens, 2, head_dim), dtype, 1.7, &mut random);
            on_every_arch(|device| {
                let run = || -> Vec<Vec<u64>> {
                    let (out, lse) = case.forward(device);
                    let dqkv = case.backward(device, &out, &lse);
                    let what = case.what(device);
                    [results(&out, &what), results(&lse, &what), dqkv]
                        .map(|values| values.into_iter().map(f64::to_bits).collect())
                        .to_vec()
                };
                let first = run();
                for _ in 0..3 {
                    assert!(run() == first, "{}", case.what(device));
                }
            });
        }
    }
}

/// Few heads are split over more blocks on Hopper.
fn few_or_many() {
    let mut random = fresh();
    for tokens in [1, 17, 64, 65, 257, 320] {
        // More than any GPU of today holds at once.
        let many = Case::random(dims(150, tokens, 6, 64), DType::Bf16, 1.7, &mut random);
        let part = |numbers: &Numbers, image: usize| {
            let len = numbers.values.len() / many.dims.batch;
            Numbers { dtype: numbers.dtype, values: numbers.values[image * len..(image + 1) * len].to_vec() }
        };
        on_every_arch(|device| {
            let run = |case: &Case| {
                let (out, lse) = case.forward(device);
                let dqkv = case.backward(device, &out, &lse);
                let what = case.what(device);
                [results(&out, &what), results(&lse, &what), dqkv]
            };
            let all = run(&many);
            for image in [0, 77, 149] {
                let one =
                    Case { dims: dims(1, tokens, 6, 64), qkv: part(&many.qkv, image), dout: part(&many.dout, image) };
                for (own, all) in run(&one).iter().zip(&all) {
                    let expected = &all[image * own.len()..(image + 1) * own.len()];
                    let same = own.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{} image {image}", one.what(device));
                }
            }
        });
    }
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buf = |dtype, n: usize| Buf::zeros(device, dtype, n).unwrap();
        let qkv = buf(DType::Bf16, 3 * 1280);
        let (mut out, mut lse) = (buf(DType::Bf16, 1280), buf(DType::F32, 20));
        let fits = dims(2, 5, 2, 64);
        attention_forward(device, fits, &qkv, &mut out, &mut lse).unwrap();
        for dims in [
            dims(0, 5, 2, 64),
            dims(2, 0, 2, 64),
            dims(2, 5, 0, 64),
            dims(2, 5, 2, 0),
            dims(2, 6, 2, 64),
            dims(3, 5, 2, 64),
            dims(2, 5, 3, 64),
            dims(1, 1, 1, MAX_HEAD_DIM + 1),
        ] {
            let error = attention_forward(device, dims, &qkv, &mut out, &mut lse).expect_err("it does not fit");
            assert!(error.to_string().contains("attention"), "{dims:?}: {error}");
        }
        let mut wide = buf(DType::F32, 1280);
        attention_forward(device, fits, &qkv, &mut wide, &mut lse).expect_err("out is of another type");
        let bytes = buf(DType::U8, 3 * 1280);
        attention_forward(device, fits, &bytes, &mut out, &mut lse).expect_err("bytes are no numbers");
        let (dout, mut short) = (buf(DType::Bf16, 1280), buf(DType::Bf16, 3 * 1280 - 1));
        let error = attention_backward(device, fits, &qkv, &out, &lse, &dout, &mut short).expect_err("one too few");
        assert!(error.to_string().contains("dqkv"), "{error}");
    });
}
