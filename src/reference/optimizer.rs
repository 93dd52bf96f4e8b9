//! AdamW.

use super::real::Real;
use crate::autograd::AdamW;

/// One step in torch's order: decay, moments, then the update with both bias corrections.
pub fn adamw<T: Real>(step: AdamW, value: &mut [T], grad: &[T], m: &mut [T], v: &mut [T]) {
    let steps = step.step as f64;
    let step_size = T::from_f64(step.lr / (1.0 - step.beta1.powf(steps)));
    let root_correction = T::from_f64((1.0 - step.beta2.powf(steps)).sqrt());
    let decay = T::from_f64(1.0 - step.lr * step.weight_decay);
    let (beta2, eps) = (T::from_f64(step.beta2), T::from_f64(step.eps));
    let (one_minus_beta1, one_minus_beta2) = (T::from_f64(1.0 - step.beta1), T::from_f64(1.0 - step.beta2));
    for i in 0..value.len() {
        value[i] *= decay;
        m[i] += one_minus_beta1 * (grad[i] - m[i]);
        v[i] = v[i] * beta2 + one_minus_beta2 * grad[i] * grad[i];
        let denominator = v[i].sqrt() / root_correction + eps;
        value[i] -= step_size * (m[i] / denominator);
    }
}
