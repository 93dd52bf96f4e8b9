//! Every operation's gradient against central finite differences, in f64 on the plain-loop backend.

mod checkpoint;
mod explain;
mod ops;

use peftk::Result;
use peftk::autograd::{Array, Grads, ParamId, Params, Tape, Tensor};
use peftk::reference::Reference;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub(crate) type F64 = Reference<f64>;

/// Fresh random values each run; the seed is printed by a failing test.
pub(crate) struct Case {
    pub(crate) params: Params<F64>,
    pub(crate) ids: Vec<ParamId>,
    rng: ChaCha8Rng,
    seed: u64,
}

impl Case {
    pub(crate) fn new() -> Self {
        let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
        Self { params: Params::new(F64::new()), ids: vec![], rng: ChaCha8Rng::seed_from_u64(seed), seed }
    }

    pub(crate) fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.rng.random::<f32>() * 2.0 - 1.0).collect()
    }

    /// A trained input.
    pub(crate) fn input(&mut self, shape: &[usize]) -> ParamId {
        let values = self.values(shape.iter().product());
        let id = self.params.add(format!("input {}", self.ids.len()), &values, shape, true).unwrap();
        self.ids.push(id);
        id
    }

    /// A frozen input.
    pub(crate) fn constant(&mut self, shape: &[usize]) -> ParamId {
        let values = self.values(shape.iter().product());
        self.params.add("constant", &values, shape, false).unwrap()
    }

    pub(crate) fn index(&mut self, below: usize) -> usize {
        self.rng.random_range(0..below)
    }

    /// Compares the gradients of a loss made of `f`'s output with finite differences in every number of every trained input.
    pub(crate) fn check(&mut self, name: &str, f: impl for<'m> Fn(&Tape<'m, F64>) -> Result<Tensor<F64>>) {
        let probe = f(&Tape::inference(&self.params)).unwrap();
        let (width, classes) = (*probe.shape().last().unwrap(), 5);
        let rows = probe.array().elements() / width;
        let readout = self.constant(&[classes, width]);
        let labels: Vec<usize> = (0..rows).map(|_| self.index(classes)).collect();
        let loss = |tape: &Tape<'_, F64>| -> Result<Tensor<F64>> {
            let logits = tape.linear(&f(tape)?, &tape.param(readout), None, &[])?;
            tape.cross_entropy(&logits, &labels, 0.0, 1.0, None)
        };

        let mut grads = Grads::new(&self.params);
        let tape = Tape::new(&self.params);
        let value = loss(&tape).unwrap();
        tape.backward(&value, &mut grads).unwrap();
        let got: Vec<Vec<f64>> = self
            .ids
            .iter()
            .map(|&id| {
                let grad =
                    grads.get(id).unwrap_or_else(|| panic!("{name}: no gradient for {}", self.params.get(id).name));
                assert_eq!(grad.shape(), self.params.get(id).value.shape(), "{name}");
                F64::new().download_f64(grad.buffer())
            })
            .collect();
        let largest = got.iter().flatten().fold(0.0_f64, |a, b| a.max(b.abs()));
        assert!(largest > 1e-6, "{name}: every gradient vanishes, seed {}", self.seed);

        let step = 1e-5;
        for (&id, got) in self.ids.clone().iter().zip(&got) {
            let before = F64::new().download_f64(self.params.get(id).value.buffer());
            for at in 0..before.len() {
                let mut ends = [0.0; 2];
                for (end, sign) in ends.iter_mut().zip([1.0, -1.0]) {
                    let mut moved = before.clone();
                    moved[at] += sign * step;
                    self.set(id, &moved);
                    let value = loss(&Tape::inference(&self.params)).unwrap();
                    *end = F64::new().download_f64(value.array().buffer())[0];
                }
                let expected = (ends[0] - ends[1]) / (2.0 * step);
                let error = (got[at] - expected).abs() / largest;
                assert!(
                    error < 1e-6,
                    "{name}: {} at {at}: {} by the tape, {expected} by differences, seed {}",
                    self.params.get(id).name,
                    got[at],
                    self.seed
                );
            }
            self.set(id, &before);
        }
    }

    pub(crate) fn set(&mut self, id: ParamId, values: &[f64]) {
        let shape = self.params.get(id).value.shape().to_vec();
        let backend = F64::new();
        self.params.get_mut(id).value = Array::new(&backend, backend.upload_f64(values), &shape).unwrap();
    }
}
