//! The tape: what was computed from what, what each operation keeps for its backward pass, and the walk back.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};

use super::{Array, Backend, Grads, ParamId, Params};
use crate::{Error, Result};

/// A value on a tape; `node` is its place there when a gradient flows to it.
pub struct Tensor<B: Backend> {
    array: Array<B>,
    node: Option<usize>,
}

impl<B: Backend> Clone for Tensor<B> {
    fn clone(&self) -> Self {
        Self { array: self.array.clone(), node: self.node }
    }
}

impl<B: Backend> Tensor<B> {
    /// A value that no gradient flows to.
    pub fn constant(array: Array<B>) -> Self {
        Self { array, node: None }
    }

    /// Its numbers.
    pub fn array(&self) -> &Array<B> {
        &self.array
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        self.array.shape()
    }

    /// Whether a gradient flows to it.
    pub fn needs_grad(&self) -> bool {
        self.node.is_some()
    }

    /// The same value, cut off: no gradient flows back through it.
    pub fn detach(&self) -> Self {
        Self::constant(self.array.clone())
    }
}

/// Gradients for an operation's inputs, in their order.
pub type InputGrads<B> = Vec<Option<Array<B>>>;

/// An operation's backward pass: parameters, what it saved, dL/doutput, which inputs ask. A plain function with `Copy` parameters cannot hide
/// a buffer: whatever an operation keeps stands in its `saved` list, where it is counted.
pub type BackwardFn<B, P> = fn(&B, P, &[Array<B>], Array<B>, &[bool]) -> Result<InputGrads<B>>;

type BoxedBackward<B> = Box<dyn FnOnce(&B, &[Array<B>], Array<B>, &[bool]) -> Result<InputGrads<B>>>;
type Segment<'m, B> = Box<dyn Fn(&Tape<'m, B>, &Tensor<B>) -> Result<Tensor<B>> + 'm>;

enum Kind<'m, B: Backend> {
    /// A trained value.
    Leaf(ParamId),
    /// The input of a recomputed segment.
    Input,
    /// An operation.
    Op(BoxedBackward<B>),
    /// A segment that is run again in the backward pass.
    Checkpoint(Segment<'m, B>),
}

struct Node<'m, B: Backend> {
    op: &'static str,
    inputs: Vec<Option<usize>>,
    saved: Vec<Array<B>>,
    kind: Kind<'m, B>,
}

/// Records operations on the values of `params`.
pub struct Tape<'m, B: Backend> {
    params: &'m Params<B>,
    nodes: RefCell<Vec<Node<'m, B>>>,
    leaves: RefCell<HashMap<ParamId, usize>>,
    recording: Cell<bool>,
    // Whether a trained value was read, recorded or not: a recomputed segment without one needs no node.
    touched: Cell<bool>,
}

impl<'m, B: Backend> Tape<'m, B> {
    /// An empty tape that records.
    pub fn new(params: &'m Params<B>) -> Self {
        Self {
            params,
            nodes: RefCell::new(Vec::new()),
            leaves: RefCell::new(HashMap::new()),
            recording: Cell::new(true),
            touched: Cell::new(false),
        }
    }

    /// A tape that records nothing: evaluation.
    pub fn inference(params: &'m Params<B>) -> Self {
        let tape = Self::new(params);
        tape.recording.set(false);
        tape
    }

    /// The device.
    pub fn backend(&self) -> &'m B {
        self.params.backend()
    }

    /// The model's values.
    pub fn params(&self) -> &'m Params<B> {
        self.params
    }

    /// One of the model's values on the tape.
    pub fn param(&self, id: ParamId) -> Tensor<B> {
        let param = self.params.get(id);
        if !param.trainable {
            return Tensor::constant(param.value.clone());
        }
        self.touched.set(true);
        if !self.recording.get() {
            return Tensor::constant(param.value.clone());
        }
        let node = *self
            .leaves
            .borrow_mut()
            .entry(id)
            .or_insert_with(|| self.push("parameter", vec![], vec![], Kind::Leaf(id)));
        Tensor { array: param.value.clone(), node: Some(node) }
    }

    /// Runs `f` without recording.
    pub fn no_grad<R>(&self, f: impl FnOnce(&Self) -> R) -> R {
        let before = self.recording.replace(false);
        let result = f(self);
        self.recording.set(before);
        result
    }

    /// Whether an operation on `inputs` would be recorded.
    pub(crate) fn records(&self, inputs: &[&Tensor<B>]) -> bool {
        self.recording.get() && inputs.iter().any(|input| input.needs_grad())
    }

    /// Puts an operation's result on the tape. `saved` is dropped at once when no input asks for a gradient.
    pub(crate) fn record<P: Copy + 'static>(
        &self,
        op: &'static str,
        inputs: &[&Tensor<B>],
        output: Array<B>,
        saved: Vec<Array<B>>,
        parameters: P,
        backward: BackwardFn<B, P>,
    ) -> Tensor<B> {
        if !self.records(inputs) {
            return Tensor::constant(output);
        }
        let inputs = inputs.iter().map(|input| input.node).collect();
        let run = Box::new(move |backend: &B, saved: &[Array<B>], dy: Array<B>, needs: &[bool]| {
            backward(backend, parameters, saved, dy, needs)
        });
        Tensor { array: output, node: Some(self.push(op, inputs, saved, Kind::Op(run))) }
    }

    /// Puts a result on the tape whose operation has no gradient: an error when an input asks for one, never silence.
    pub fn record_without_gradient(&self, op: &str, inputs: &[&Tensor<B>], output: Array<B>) -> Result<Tensor<B>> {
        if self.records(inputs) {
            return Err(Error::Internal(format!(
                "{op} has no gradient, and one of its inputs needs one: detach it or freeze it"
            )));
        }
        Ok(Tensor::constant(output))
    }

    /// Runs a segment keeping only its input; the backward pass runs it again (Chen et al. 2016). `segment` must compute the same each time.
    pub fn checkpoint(
        &self,
        x: &Tensor<B>,
        segment: impl Fn(&Tape<'m, B>, &Tensor<B>) -> Result<Tensor<B>> + 'm,
    ) -> Result<Tensor<B>> {
        if !self.recording.get() {
            return segment(self, x);
        }
        let before = self.touched.replace(false);
        let output = self.no_grad(|tape| segment(tape, &x.detach()))?;
        let trains = self.touched.get();
        self.touched.set(before || trains);
        if !trains && !x.needs_grad() {
            return Ok(output);
        }
        let node = self.push("checkpoint", vec![x.node], vec![x.array.clone()], Kind::Checkpoint(Box::new(segment)));
        Ok(Tensor { array: output.array, node: Some(node) })
    }

    fn push(&self, op: &'static str, inputs: Vec<Option<usize>>, saved: Vec<Array<B>>, kind: Kind<'m, B>) -> usize {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { op, inputs, saved, kind });
        nodes.len() - 1
    }

    /// What is kept for the backward pass, in bytes by operation, in the order of recording. A block that several operations keep counts
    /// once, the model's own values not at all.
    pub fn saved_by_op(&self) -> Vec<(&'static str, usize)> {
        let mut seen: HashSet<*const ()> = self.params.iter().map(|(_, param)| param.value.identity()).collect();
        let nodes = self.nodes.borrow();
        let mut list = Vec::new();
        for node in nodes.iter() {
            let bytes = node.saved.iter().filter(|a| seen.insert(a.identity())).map(|a| a.bytes(self.backend())).sum();
            list.push((node.op, bytes));
        }
        list
    }

    /// All that is kept for the backward pass, in bytes.
    pub fn saved_bytes(&self) -> usize {
        self.saved_by_op().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Walks back from a loss of one number and adds the trained values' gradients to `grads`.
    pub fn backward(self, loss: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        if loss.array.elements() != 1 {
            return Err(Error::shape("backward", "a loss of one number", loss.shape()));
        }
        let one = Array::upload(self.backend(), &[1.0], loss.shape())?;
        self.backward_from(loss, one, grads)?;
        Ok(())
    }

    /// Walks back from any value with its gradient dL/dy given, and adds the trained values' gradients to `grads`.
    pub fn backward_with(self, y: &Tensor<B>, dy: Array<B>, grads: &mut Grads<B>) -> Result<()> {
        if y.shape() != dy.shape() {
            return Err(Error::shape("backward's gradient", y.shape(), dy.shape()));
        }
        self.backward_from(y, dy, grads)?;
        Ok(())
    }

    /// Walks back from `output` with its gradient given; returns the gradient of the segment's input, if there is one that asks.
    fn backward_from(self, output: &Tensor<B>, dy: Array<B>, grads: &mut Grads<B>) -> Result<Option<Array<B>>> {
        let Some(last) = output.node else {
            return Err(Error::Internal("backward from a value that nothing trained flows into".into()));
        };
        let (params, mut nodes) = (self.params, self.nodes.into_inner());
        let backend = params.backend();
        let mut pending: Vec<Option<Array<B>>> = (0..nodes.len()).map(|_| None).collect();
        let mut input = None;
        pending[last] = Some(dy);
        // Popping frees what a node saved as soon as its backward pass is done.
        while let Some(node) = nodes.pop() {
            let Some(dy) = pending.pop().flatten() else { continue };
            let needs: Vec<bool> = node.inputs.iter().map(Option::is_some).collect();
            let made = match node.kind {
                Kind::Leaf(id) => {
                    grads.accumulate(id, dy)?;
                    continue;
                }
                Kind::Input => {
                    input = Some(dy);
                    continue;
                }
                Kind::Op(run) => run(backend, &node.saved, dy, &needs)?,
                Kind::Checkpoint(segment) => {
                    let tape = Tape::new(params);
                    let mut x = Tensor::constant(node.saved[0].clone());
                    drop(node.saved);
                    if needs[0] {
                        x.node = Some(tape.push("segment input", vec![], vec![], Kind::Input));
                    }
                    let y = segment(&tape, &x)?;
                    vec![tape.backward_from(&y, dy, grads)?]
                }
            };
            if made.len() != node.inputs.len() {
                return Err(Error::Internal(format!(
                    "{}: {} gradients for {} inputs",
                    node.op,
                    made.len(),
                    node.inputs.len()
                )));
            }
            for (target, grad) in node.inputs.into_iter().zip(made) {
                let Some(target) = target else { continue };
                let Some(grad) = grad else {
                    return Err(Error::Internal(format!("{} gave no gradient for an input that needs one", node.op)));
                };
                let slot = &mut pending[target];
                *slot = Some(match slot.take() {
                    Some(sum) => sum.sum(grad, backend)?,
                    None => grad,
                });
            }
        }
        Ok(input)
    }
}
