//! Weights in host memory, under canonical names.

use std::collections::BTreeMap;

use super::quoted;
use crate::config::Task;
use crate::vit::VitConfig;
use crate::{Error, Result};

/// A tensor in host memory, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Values; as many as the product of the extents.
    pub data: Vec<f32>,
}

impl HostTensor {
    /// A tensor of one value throughout.
    pub fn filled(shape: &[usize], value: f32) -> Self {
        Self { shape: shape.to_vec(), data: vec![value; shape.iter().product()] }
    }
}

/// A backbone's tensors under canonical names: those of transformers' files without the model's prefix
/// (see [`expected_tensors`](crate::vit::names::expected_tensors)).
pub type StateDict = BTreeMap<String, HostTensor>;

/// The linear on top of the backbone's features.
#[derive(Clone, Debug, PartialEq)]
pub struct Classifier {
    /// [classes, D] on CLS alone, or [classes, 2 D] on CLS beside the mean of the patch tokens.
    pub weight: HostTensor,
    /// Shape `[classes]`.
    pub bias: HostTensor,
}

impl Classifier {
    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.bias.data.len()
    }

    /// The same classifier over CLS and mean: a [classes, D] weight gets D zero columns for the mean, which changes no
    /// logit; transformers' model has no other form. A weight that is 2 D wide already is returned as it is.
    pub fn with_mean(&self, hidden: usize) -> Self {
        if self.weight.shape.get(1) != Some(&hidden) {
            return self.clone();
        }
        let mut data = Vec::with_capacity(2 * self.weight.data.len());
        for row in self.weight.data.chunks_exact(hidden) {
            data.extend_from_slice(row);
            data.resize(data.len() + hidden, 0.0);
        }
        Self { weight: HostTensor { shape: vec![self.classes(), 2 * hidden], data }, bias: self.bias.clone() }
    }

    /// The part on CLS alone [classes, D], where the mean's columns are all zero (or absent); `None` where they are not.
    pub fn cls_only(&self, hidden: usize) -> Option<Self> {
        if self.weight.shape.get(1) == Some(&hidden) {
            return Some(self.clone());
        }
        let mut data = Vec::with_capacity(self.weight.data.len() / 2);
        for row in self.weight.data.chunks_exact(2 * hidden) {
            let (cls, mean) = row.split_at(hidden);
            if mean.iter().any(|&v| v != 0.0) {
                return None;
            }
            data.extend_from_slice(cls);
        }
        Some(Self { weight: HostTensor { shape: vec![self.classes(), hidden], data }, bias: self.bias.clone() })
    }

    /// Takes `{prefix}weight` and `{prefix}bias` out of a file's tensors; both or neither must be there.
    pub(crate) fn take(tensors: &mut StateDict, prefix: &str, source: &str) -> Result<Option<Self>> {
        let (weight, bias) = (format!("{prefix}weight"), format!("{prefix}bias"));
        match (tensors.remove(&weight), tensors.remove(&bias)) {
            (Some(weight), Some(bias)) => Ok(Some(Self { weight, bias })),
            (None, None) => Ok(None),
            (found, _) => {
                let missing = if found.is_some() { bias } else { weight };
                Err(Error::input(format!("{source}: tensor {} is missing beside its other half", quoted(&missing))))
            }
        }
    }

    /// Checks the shapes against a backbone of width `hidden`, and that every value is finite.
    pub(crate) fn check(&self, hidden: usize, source: &str) -> Result<()> {
        let (weight, bias) = (&self.weight.shape, &self.bias.shape);
        let fits = weight.len() == 2
            && bias.len() == 1
            && weight[0] == bias[0]
            && weight[0] > 0
            && (weight[1] == hidden || weight[1] == 2 * hidden);
        if !fits {
            return Err(Error::input(format!(
                "{source}: the classifier has weight {weight:?} and bias {bias:?}, expected [classes, {hidden}] or \
                 [classes, {}] and [classes]",
                2 * hidden
            )));
        }
        check_finite(source, "classifier.weight", &self.weight)?;
        check_finite(source, "classifier.bias", &self.bias)
    }
}

/// A backbone as it was found.
#[derive(Clone, Debug)]
pub struct Backbone {
    /// Shape and origin.
    pub config: VitConfig,
    /// Weights under canonical names, every expected one present and finite.
    pub state: StateDict,
    /// The head that was stored beside it.
    pub classifier: Option<Classifier>,
    /// Class names in index order; `None` where they are absent or only `LABEL_i`.
    pub labels: Option<Vec<String>>,
    /// What the stored head's outputs mean, where the file says so.
    pub task: Option<Task>,
    /// Where it came from, for the log.
    pub source: String,
}

/// Checks a file's tensors against what a model of this shape has.
///
/// `expected` must all be there, `optional` may; anything else is an error, as are a wrong shape and a value that is not
/// finite. The first fault in the order of `expected` is named, by its name in the file.
pub(crate) fn check_tensors(
    source: &str,
    found: &StateDict,
    expected: &[(String, Vec<usize>)],
    optional: &[(String, Vec<usize>)],
) -> Result<()> {
    for (name, shape) in expected {
        let Some(tensor) = found.get(name) else {
            let missing = expected.iter().filter(|(name, _)| !found.contains_key(name)).count();
            return Err(Error::input(format!(
                "{source}: tensor {} of shape {shape:?} is missing{}",
                quoted(name),
                and_more(missing)
            )));
        };
        check_shape(source, name, shape, tensor)?;
    }
    for (name, shape) in optional {
        if let Some(tensor) = found.get(name) {
            check_shape(source, name, shape, tensor)?;
        }
    }
    let known: std::collections::BTreeSet<&str> =
        expected.iter().chain(optional).map(|(name, _)| name.as_str()).collect();
    let mut extra = found.keys().filter(|name| !known.contains(name.as_str()));
    if let Some(name) = extra.next() {
        return Err(Error::input(format!(
            "{source}: tensor {}{} is not part of a DINOv2 of this shape; remove it, or give the backbone it belongs to",
            quoted(name),
            and_more(1 + extra.count())
        )));
    }
    found.iter().try_for_each(|(name, tensor)| check_finite(source, name, tensor))
}

fn check_shape(source: &str, name: &str, expected: &[usize], tensor: &HostTensor) -> Result<()> {
    if tensor.shape == expected {
        return Ok(());
    }
    Err(Error::input(format!("{source}: tensor {} has shape {:?}, expected {expected:?}", quoted(name), tensor.shape)))
}

/// Refuses a tensor with a NaN or infinity.
pub(crate) fn check_finite(source: &str, name: &str, tensor: &HostTensor) -> Result<()> {
    match tensor.data.iter().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(value) => Err(Error::input(format!(
            "{source}: tensor {} holds {value}; every weight must be finite, so this file is damaged",
            quoted(name)
        ))),
    }
}

fn and_more(count: usize) -> String {
    if count > 1 { format!(" (and {} more)", count - 1) } else { String::new() }
}
