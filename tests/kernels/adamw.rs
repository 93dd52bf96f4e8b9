//! kernels/adamw.cu against the plain loops in f64.

use peftk::autograd::{AdamW, Backend};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::adamw::{
    AdamWTable, GRAD_NORM_LEN, Trained, adamw_multi, adamw_step, grad_norm, hyper, read_grad_norm, sum_squares,
};
use peftk::reference::Reference;
use rand::Rng;

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{Numbers, compare, fresh, poisoned, results, rounding};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_adamw", needs: Needs::Gpu, run: sanitize },
    Test { name: "adamw::many_tensors_and_steps", needs: Needs::Gpu, run: many },
    Test { name: "adamw::a_norm_that_is_not_finite_stops_the_step", needs: Needs::Gpu, run: not_finite },
    Test { name: "adamw::sum_squares_of_every_length", needs: Needs::Gpu, run: sums },
    Test { name: "adamw::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

/// Around 4 elements a thread and 2048 a block; adapters and a head of ViT-S.
const LENGTHS: [usize; 22] =
    [1, 2, 3, 4, 5, 7, 8, 9, 100, 384, 1023, 1024, 1025, 2047, 2048, 2049, 3072, 4095, 4097, 38_400, 76_900, 147_457];

struct Tensor {
    value: Numbers,
    grad: Numbers,
    m: Numbers,
    v: Numbers,
    weight_decay: f64,
    shadowed: bool,
}

fn draw(lengths: &[usize], random: &mut impl Rng) -> Vec<Tensor> {
    let tensors = lengths.iter().enumerate().map(|(i, &len)| {
        let mut draw = |bound| Numbers::draw(random, DType::F32, len, bound);
        let (value, grad, m, mut v) = (draw(1.0), draw(0.1), draw(0.1), draw(0.01));
        v.values.iter_mut().for_each(|v| *v = v.abs());
        Tensor { value, grad, m, v, weight_decay: if i % 3 == 0 { 0.0 } else { 0.05 }, shadowed: i % 2 == 0 }
    });
    tensors.collect()
}

/// Value, gradient, moments, shadow.
struct OnDevice([Buf; 4], Option<Buf>);

fn upload(device: &Device, tensors: &[Tensor]) -> Vec<OnDevice> {
    let upload = |t: &Tensor| {
        let shadow = t.shadowed.then(|| poisoned(device, DType::Bf16, t.value.values.len()));
        OnDevice([&t.value, &t.grad, &t.m, &t.v].map(|numbers| numbers.upload(device)), shadow)
    };
    tensors.iter().map(upload).collect()
}

fn table<'a>(device: &Device, tensors: &[Tensor], bufs: &'a [OnDevice], step: Option<AdamW>) -> AdamWTable<'a> {
    let trained: Vec<Trained<'_>> = tensors
        .iter()
        .zip(bufs)
        .map(|(t, OnDevice([value, grad, m, v], shadow))| Trained {
            value,
            grad,
            m,
            v,
            shadow: shadow.as_ref(),
            length: t.value.values.len(),
            weight_decay: t.weight_decay,
        })
        .collect();
    step.map_or_else(|| AdamWTable::new(device, &trained), |step| AdamWTable::for_step(device, &trained, step)).unwrap()
}

fn step(weight_decay: f64, step: u64) -> AdamW {
    AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay, step }
}

/// Two steps with the same gradients, the first and the 1000th, clipped to `max_norm` (0: not).
fn check(lengths: &[usize], max_norm: f64) {
    let mut random = fresh();
    let tensors = draw(lengths, &mut random);
    let reference = Reference::<f64>::new();
    let squares: f64 = tensors.iter().flat_map(|t| t.grad.wide()).map(|g| g * g).sum();
    let factor = if max_norm > 0.0 { (max_norm / (squares.sqrt() + 1e-6)).min(1.0) } else { 1.0 };
    let truth: Vec<[Vec<f64>; 3]> = tensors
        .iter()
        .map(|t| {
            let (mut value, mut m, mut v) = (t.value.wide(), t.m.wide(), t.v.wide());
            let grad = t.grad.wide().iter().map(|g| factor * g).collect();
            for steps in [1, 1000] {
                reference.adamw(step(t.weight_decay, steps), &mut value, &grad, &mut m, &mut v).unwrap();
            }
            [value, m, v]
        })
        .collect();

    on_every_arch(|device| {
        let what = format!("adamw {} {lengths:?} clipped to {max_norm}", device.arch());
        let once = || {
            let bufs = upload(device, &tensors);
            let first = table(device, &tensors, &bufs, None);
            let mut norm = poisoned(device, DType::F32, GRAD_NORM_LEN);
            grad_norm(device, &first, max_norm, &mut norm).unwrap();
            let clip = (max_norm > 0.0).then_some(&norm);
            // Both ways to name a step's constants.
            let hyper = Buf::from_f32(device, &hyper(step(0.0, 1)), DType::F32).unwrap();
            adamw_multi(device, &first, &hyper, clip).unwrap();
            let second = table(device, &tensors, &bufs, Some(step(0.0, 1000)));
            adamw_step(device, &second, clip).unwrap();
            let norm = norm.to_f32().unwrap();
            let made: Vec<Vec<Vec<f64>>> = bufs
                .iter()
                .map(|OnDevice([value, grad, m, v], shadow)| {
                    let mut made: Vec<_> = [value, m, v, grad].map(|buf| results(buf, &what)).into();
                    made.extend(shadow.as_ref().map(|shadow| results(shadow, &what)));
                    made
                })
                .collect();
            (read_grad_norm(&norm[..GRAD_NORM_LEN]).unwrap(), made)
        };
        let (norm, made) = once();
        assert_eq!((norm, &made), (once().0, &once().1), "{what}: equal inputs, other bits");
        assert_eq!(norm.non_finite, 0, "{what}");
        let near = |ours: f32, truth: f64| (f64::from(ours) - truth).abs() <= 2e-6 * truth;
        assert!(near(norm.sum_squares, squares) && near(norm.norm, squares.sqrt()), "{what}: {norm:?}, {squares}");
        assert!(near(norm.factor, factor), "{what}: {norm:?}, factor {factor}");
        for ((made, truth), tensor) in made.iter().zip(&truth).zip(&tensors) {
            assert_eq!(made[3], tensor.grad.wide(), "{what}: a gradient was changed");
            // A second moment near 0 makes a large step; it is off by what f32 makes of its parts.
            compare(&format!("{what} value"), &made[0], &truth[0], |i| 3e-6 * (1.0 + truth[0][i].abs()));
            compare(&format!("{what} m"), &made[1], &truth[1], |_| 2e-7);
            compare(&format!("{what} v"), &made[2], &truth[2], |i| 1e-6 * truth[2][i] + 1e-12);
            if let Some(shadow) = made.get(4) {
                compare(&format!("{what} shadow"), shadow, &made[0], |i| rounding(DType::Bf16) * made[0][i].abs());
            }
        }
    });
}

fn sanitize() {
    check(&[5, 2050], 0.1);
    check(&[1], 0.0);
}

fn many() {
    check(&LENGTHS, 0.0);
    check(&LENGTHS, 1.5);
    check(&LENGTHS, 1e6);
    LENGTHS.iter().for_each(|&length| check(&[length], 0.01));
}

fn not_finite() {
    let mut random = fresh();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut tensors = draw(&[7, 3000, 100], &mut random);
        tensors[1].grad.values[2500] = bad;
        on_every_arch(|device| {
            let bufs = upload(device, &tensors);
            let table = table(device, &tensors, &bufs, None);
            let mut norm = Buf::zeros(device, DType::F32, GRAD_NORM_LEN).unwrap();
            grad_norm(device, &table, 1.0, &mut norm).unwrap();
            let hyper = Buf::from_f32(device, &hyper(step(0.0, 1)), DType::F32).unwrap();
            adamw_multi(device, &table, &hyper, Some(&norm)).unwrap();
            assert_eq!(read_grad_norm(&norm.to_f32().unwrap()).unwrap().non_finite, 1, "{bad}");
            for (tensor, OnDevice([value, ..], _)) in tensors.iter().zip(&bufs) {
                assert_eq!(results(value, "value"), tensor.value.wide(), "{bad}: a step was made");
            }
        });
    }
}

fn sums() {
    let mut random = fresh();
    for len in LENGTHS {
        let x = Numbers::draw(&mut random, DType::F32, len, 2.0);
        let truth: f64 = x.wide().iter().map(|x| x * x).sum();
        on_every_arch(|device| {
            let x = x.upload(device);
            let once = || {
                let mut result = Buf::zeros(device, DType::F32, GRAD_NORM_LEN).unwrap();
                sum_squares(device, len, &x, &mut result).unwrap();
                read_grad_norm(&result.to_f32().unwrap()).unwrap()
            };
            let ours = once();
            assert_eq!(ours, once());
            let error = (f64::from(ours.sum_squares) - truth).abs();
            assert!(error <= 2e-6 * truth, "{} {len}: {ours:?}, truth {truth}", device.arch());
            assert_eq!((ours.factor, ours.non_finite), (1.0, 0));
        });
    }
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buf = |dtype, len| Buf::zeros(device, dtype, len).unwrap();
        let (value, short, half) = (buf(DType::F32, 8), buf(DType::F32, 7), buf(DType::Bf16, 8));
        let good = Trained {
            value: &value,
            grad: &value,
            m: &value,
            v: &value,
            shadow: Some(&half),
            length: 8,
            weight_decay: 0.0,
        };
        AdamWTable::new(device, &[good]).unwrap();
        for bad in [
            Trained { grad: &short, ..good },
            Trained { m: &half, ..good },
            Trained { shadow: Some(&value), ..good },
            Trained { length: 0, ..good },
            Trained { length: 9, ..good },
        ] {
            AdamWTable::new(device, &[bad]).expect_err("it does not fit");
        }
        AdamWTable::new(device, &[]).expect_err("nothing to train");
        let table = AdamWTable::new(device, &[good]).unwrap();
        adamw_multi(device, &table, &buf(DType::F32, 3), None).expect_err("too few constants");
        adamw_step(device, &table, None).expect_err("no constants");
        grad_norm(device, &table, 1.0, &mut buf(DType::F32, 3)).expect_err("too little room");
        sum_squares(device, 9, &value, &mut buf(DType::F32, GRAD_NORM_LEN)).expect_err("too few values");
        read_grad_norm(&[0.0; 3]).expect_err("too few values");
    });
}
