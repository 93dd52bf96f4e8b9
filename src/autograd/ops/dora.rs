//! DoRA's gains, and dropout on an adapter's input.

use super::{expect, rows_cols};
use crate::autograd::{AdapterDims, Array, Backend, DoraAdapter, GainBackward, InputGrads, Needs, Tape, Tensor};
use crate::{Error, Result};

/// One adapter of [`Tape::dora_gains`].
pub struct DoraInput<B: Backend> {
    /// Its place and size.
    pub dims: AdapterDims,
    /// W \[n, k\].
    pub weight: Tensor<B>,
    /// A \[rank, k\]; detached where the norm is held constant.
    pub a: Tensor<B>,
    /// B \[rows, rank\], likewise.
    pub b: Tensor<B>,
    /// m \[rows\].
    pub magnitude: Tensor<B>,
}

/// What the walk back has to know of one adapter.
#[derive(Clone, Copy)]
struct Site {
    dims: AdapterDims,
    k: usize,
    /// Whether the gradient goes through the norm, to A or B.
    attached: bool,
}

impl<B: Backend> Tape<'_, B> {
    /// g = m / n of each adapter, \[rows\], with n_j = || W_j + s (B A)_j || over its rows (Liu et al. 2024, equation 5). The gradient goes
    /// to m, A and B; a trained W is an error, since no strategy trains W under an adapter. Detach A and B to hold the norm constant, as
    /// the paper's section 4.3 and peft do. One operation for all adapters, forward and back.
    pub fn dora_gains(&self, list: &[DoraInput<B>]) -> Result<Vec<Tensor<B>>> {
        let (mut adapters, mut sites) = (Vec::new(), Vec::new());
        for DoraInput { dims, weight, a, b, magnitude } in list {
            let (_, k) = rows_cols("dora_gains' weight", weight.array())?;
            expect("dora_gains' A", a.array(), &[dims.rank, k])?;
            expect("dora_gains' B", b.array(), &[dims.rows, dims.rank])?;
            expect("dora_gains' magnitude", magnitude.array(), &[dims.rows])?;
            if self.records(&[weight]) {
                return Err(Error::Internal("the norm of a trained weight has no gradient: freeze it".into()));
            }
            let [w, a_values, b_values, m] = [weight, a, b, magnitude].map(|tensor| tensor.array().buffer());
            adapters.push(DoraAdapter { dims: *dims, k, w, a: a_values, b: b_values, magnitude: m });
            sites.push(Site { dims: *dims, k, attached: self.records(&[a, b]) });
        }
        let (mut inputs, mut saved, mut gains) = (Vec::new(), Vec::new(), Vec::new());
        for ((input, site), (norm, gain)) in list.iter().zip(&sites).zip(self.backend().dora_gains(&adapters)?) {
            let DoraInput { weight, a, b, magnitude, .. } = input;
            inputs.extend([magnitude, a, b]);
            saved.extend([magnitude.array().clone(), Array::new(self.backend(), norm, magnitude.shape())?]);
            if site.attached {
                saved.extend([weight, a, b].map(|tensor| tensor.array().clone()));
            }
            gains.push(Array::new(self.backend(), gain, magnitude.shape())?);
        }
        Ok(self.record_many("dora_gains", &inputs, gains, saved, sites, gains_backward))
    }

    /// Inverted dropout with a mask that follows from `seed` and each element's place in the batch, where x begins at `first`: the backward
    /// pass recomputes it, nothing is kept.
    pub fn dropout(&self, x: &Tensor<B>, p: f64, seed: u64, first: u64) -> Result<Tensor<B>> {
        let y = Array::new(self.backend(), self.backend().dropout(x.array().buffer(), p, seed, first)?, x.shape())?;
        Ok(self.record("dropout", &[x], y, vec![], (p, seed, first), dropout_backward))
    }
}

fn gains_backward<B: Backend>(
    backend: &B,
    sites: &[Site],
    saved: &[Array<B>],
    dgains: Vec<Option<Array<B>>>,
    needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    let (mut saved, mut reached) = (saved.iter(), Vec::new());
    let mut next = || saved.next().ok_or_else(|| Error::Internal("dora_gains kept too little".into()));
    for (place, (site, dgain)) in sites.iter().zip(&dgains).enumerate() {
        let (magnitude, norm) = (next()?.buffer(), next()?.buffer());
        let through = if site.attached { Some([next()?.buffer(), next()?.buffer(), next()?.buffer()]) } else { None };
        if let Some(dgain) = dgain {
            let gain = GainBackward { magnitude, norm, dgain: dgain.buffer(), need_norm: site.attached };
            reached.push((place, site, gain, through));
        }
    }
    let sums = needs.sums(reached.iter().map(|(place, ..)| Some(3 * place)))?;
    let (list, rest): (Vec<_>, Vec<_>) =
        reached.into_iter().map(|(place, site, gain, through)| (gain, (place, site, through))).unzip();
    let made = backend.dora_gains_backward(&list, sums)?;
    let mut grads: InputGrads<B> = (0..3 * sites.len()).map(|_| None).collect();
    for ((gain, (place, site, through)), (dm, dn)) in list.iter().zip(rest).zip(made) {
        let AdapterDims { rows, rank, .. } = site.dims;
        grads[3 * place] = Some(Array::new(backend, dm, &[rows])?);
        if let (Some([w, a, b]), Some(dn)) = (through, dn) {
            let (da, db) = backend.dora_norm_backward(site.dims, site.k, w, a, b, gain.norm, &dn)?;
            grads[3 * place + 1] = Some(Array::new(backend, da, &[rank, site.k])?);
            grads[3 * place + 2] = Some(Array::new(backend, db, &[rows, rank])?);
        }
    }
    Ok(grads)
}

fn dropout_backward<B: Backend>(
    backend: &B,
    (p, seed, first): (f64, u64, u64),
    _saved: &[Array<B>],
    dy: Array<B>,
    _needs: &mut Needs<B>,
) -> Result<InputGrads<B>> {
    Ok(vec![Some(Array::new(backend, backend.dropout(dy.buffer(), p, seed, first)?, dy.shape())?)])
}
