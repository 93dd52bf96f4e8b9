//! Linears with and without adapters, forward and backward.

use peftk::Result;
use peftk::autograd::{Adapter, AdapterDims, Backend, LinearBackward, LinearDims, Sums};
use peftk::cpu::Cpu;

use crate::{Case, Random, check};

struct AdapterCase {
    dims: AdapterDims,
    a: Vec<f32>,
    b: Vec<f32>,
    gain: Option<Vec<f32>>,
}

struct Linear {
    dims: LinearDims,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Option<Vec<f32>>,
    dy: Vec<f32>,
    adapters: Vec<AdapterCase>,
    dropout: Option<f64>,
    /// dx, dW, db, adapters.
    need: [bool; 4],
}

impl Linear {
    fn new(random: &mut Random, m: usize, k: usize, n: usize) -> Self {
        Self {
            dims: LinearDims { m, k, n },
            x: random.normal(m * k, 1.0),
            w: random.normal(n * k, 0.05),
            bias: Some(random.normal(n, 0.1)),
            dy: random.normal(m * n, 1.0),
            adapters: Vec::new(),
            dropout: None,
            need: [true; 4],
        }
    }

    fn adapter(mut self, random: &mut Random, first_row: usize, rows: usize, rank: usize, gain: bool) -> Self {
        let dims = AdapterDims { first_row, rows, rank, scale: 2.0 / rank as f64 };
        self.adapters.push(AdapterCase {
            dims,
            a: random.normal(rank * self.dims.k, 0.1),
            b: random.normal(rows * rank, 0.1),
            gain: gain.then(|| random.uniform(rows, 0.5, 1.5)),
        });
        self
    }
}

impl Case for Linear {
    fn run<B: Backend>(&self, backend: &B) -> Result<Vec<(String, B::Buffer)>> {
        let up = |values: &Vec<f32>| backend.upload(values);
        let up_option = |values: &Option<Vec<f32>>| values.as_ref().map(up).transpose();
        let (x, w, dy, bias) = (up(&self.x)?, up(&self.w)?, up(&self.dy)?, up_option(&self.bias)?);
        let mut held = Vec::new();
        for (i, adapter) in self.adapters.iter().enumerate() {
            let dropped = self.dropout.map(|p| backend.dropout(&x, p, 7 + i as u64, 0)).transpose()?;
            held.push((up(&adapter.a)?, up(&adapter.b)?, up_option(&adapter.gain)?, dropped));
        }
        let adapters = || -> Vec<Adapter<'_, B::Buffer>> {
            let of = |(adapter, (a, b, gain, dropped)): (&AdapterCase, _)| Adapter {
                dims: adapter.dims,
                a,
                b,
                gain: Option::as_ref(gain),
                dropped: Option::as_ref(dropped),
            };
            self.adapters.iter().zip(&held).map(|(c, h)| of((c, (&h.0, &h.1, &h.2, &h.3)))).collect()
        };
        let forward = backend.linear(self.dims, &x, &w, bias.as_ref(), &adapters())?;
        let [need_x, need_w, need_bias, need_adapter] = self.need;
        let gain_without_dropout = self.dropout.is_none() && self.adapters.iter().any(|a| a.gain.is_some());
        let needs_x = need_w || (need_adapter && self.dropout.is_none());
        let grads = backend.linear_backward(
            LinearBackward {
                dims: self.dims,
                x: needs_x.then_some(&x),
                w: &w,
                bias: bias.as_ref(),
                y: gain_without_dropout.then_some(&forward.y),
                adapters: adapters(),
                t: forward.t.iter().collect(),
                z: forward.z.iter().map(Option::as_ref).collect(),
                dy: &dy,
                need_x,
                need_w,
                need_bias,
                need_adapter,
            },
            Sums::fresh(),
        )?;
        let mut results = vec![("y".to_owned(), forward.y)];
        results.extend(forward.t.into_iter().enumerate().map(|(i, t)| (format!("t{i}"), t)));
        results.extend(forward.z.into_iter().enumerate().filter_map(|(i, z)| Some((format!("z{i}"), z?))));
        for (name, grad) in [("dx", grads.x), ("dw", grads.w), ("db", grads.bias)] {
            results.extend(grad.map(|grad| (name.to_owned(), grad)));
        }
        for (i, adapter) in grads.adapters.into_iter().enumerate() {
            let named = [("dA", adapter.a), ("dB", adapter.b), ("dg", adapter.gain), ("ddrop", adapter.dropped)];
            results.extend(named.into_iter().filter_map(|(name, grad)| Some((format!("{name}{i}"), grad?))));
        }
        Ok(results)
    }
}

#[test]
fn plain_linears() {
    let random = &mut Random::fresh();
    for (m, k, n) in [(1, 5, 3), (7, 33, 17), (257, 64, 96), (411, 100, 130)] {
        let mut case = Linear::new(random, m, k, n);
        check(&format!("{m}x{k}x{n}"), 1e-5, &case);
        case.bias = None;
        case.need[2] = false;
        check(&format!("{m}x{k}x{n} without bias"), 1e-5, &case);
    }
}

#[test]
fn a_gradient_not_asked_for_is_none() {
    let random = &mut Random::fresh();
    for bits in 0..16 {
        for dropout in [None, Some(0.3)] {
            let mut case = Linear::new(random, 13, 24, 30).adapter(random, 4, 11, 3, true);
            case.need = std::array::from_fn(|i| bits >> i & 1 == 1);
            case.dropout = dropout;
            check(&format!("need {:?}, dropout {dropout:?}", case.need), 1e-5, &case);
        }
    }
}

#[test]
fn adapters_on_several_row_ranges() {
    let random = &mut Random::fresh();
    for rank in [1, 3, 8] {
        for gain in [false, true] {
            for dropout in [None, Some(0.25)] {
                let mut case = Linear::new(random, 261, 64, 192).adapter(random, 0, 64, rank, gain).adapter(
                    random,
                    128,
                    64,
                    rank + 1,
                    gain,
                );
                case.dropout = dropout;
                check(&format!("rank {rank}, gain {gain}, dropout {dropout:?}"), 1e-5, &case);
            }
        }
    }
}

#[test]
fn one_adapter_with_a_gain_beside_one_without() {
    let random = &mut Random::fresh();
    let case = Linear::new(random, 50, 40, 60).adapter(random, 30, 20, 4, true).adapter(random, 3, 21, 2, false);
    check("gain on the later rows", 1e-5, &case);
}

#[test]
fn gains_of_zero_and_near_zero() {
    let random = &mut Random::fresh();
    let mut case = Linear::new(random, 150, 48, 20).adapter(random, 5, 10, 3, true);
    for (i, gain) in [0.0, 1e-30, -1e-6, 0.01, -0.06].into_iter().enumerate() {
        case.adapters[0].gain.as_mut().unwrap()[2 * i] = gain;
    }
    check("small gains", 1e-5, &case);
    // A bias that dwarfs the product rounds z out of y, so that the division loses: within f32's part of the bias.
    case.bias = Some(vec![100.0; 20]);
    check("small gains under a large bias", 1e-4, &case);
    case.adapters[0].gain = Some(vec![0.0; 10]);
    check("all gains zero", 1e-4, &case);
}

/// Kept features of a frozen backbone rest on it: an image's are computed in one batch and stand in for those of another.
#[test]
fn a_row_is_the_same_bits_beside_any_others() {
    let random = &mut Random::fresh();
    let cpu = Cpu::new(Some(2)).unwrap();
    // Cut into pieces, so many rows leave one of a single row at the end.
    let most = 16_513;
    for (k, n) in [(588, 128), (128, 384), (512, 128), (24, 72), (24, 24), (600, 33)] {
        let (x, w) = (random.normal(most * k, 1.0), random.normal(n * k, 0.05));
        let (w, bias) = (cpu.upload(&w).unwrap(), cpu.upload(&random.normal(n, 0.1)).unwrap());
        let rows = |first: usize, m: usize| {
            let x = cpu.upload(&x[first * k..(first + m) * k]).unwrap();
            let y = cpu.linear(LinearDims { m, k, n }, &x, &w, Some(&bias), &[]).unwrap().y;
            cpu.download(&y).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let whole = rows(0, most);
        for m in [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 127, 129, 191, 192, 193, 257, 640] {
            for first in [most - m, random.next() as usize % (most - m)] {
                assert!(rows(first, m) == whole[first * n..(first + m) * n], "{m} rows of {k} to {n} from {first}");
            }
        }
    }
}
