//! The tape: what was computed from what, what each operation keeps for its backward pass, and the walk back.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::backward::only;
use super::saved::{Again, Remade, Remake, Saved};
use super::{Array, Backend, Derived, Needs, ParamId, Params};
use crate::config::Level;
use crate::{Error, Result};

/// A value on a tape; `node` is its place there when a gradient flows to it.
pub struct Tensor<B: Backend> {
    pub(super) array: Array<B>,
    pub(super) node: Option<usize>,
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

    /// Its numbers, off the tape.
    pub fn into_array(self) -> Array<B> {
        self.array
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
pub type BackwardFn<B, P> = fn(&B, P, &[Array<B>], Array<B>, &mut Needs<B>) -> Result<InputGrads<B>>;

/// The same of an operation with several outputs: parameters of each, and dL/doutput of those that a gradient reached.
pub(super) type BackwardManyFn<B, P> =
    fn(&B, &[P], &[Array<B>], Vec<Option<Array<B>>>, &mut Needs<B>) -> Result<InputGrads<B>>;

pub(super) type BoxedBackward<B> =
    Box<dyn FnOnce(&B, &[Array<B>], Vec<Option<Array<B>>>, &mut Needs<B>) -> Result<InputGrads<B>>>;
pub(super) type Segment<'m, B> = Box<dyn Fn(&Tape<'m, B>, &Tensor<B>) -> Result<Tensor<B>> + 'm>;

pub(super) enum Kind<'m, B: Backend> {
    /// A trained value, or one that follows from trained values and stands for a whole step.
    Leaf(ParamId),
    /// A loss: what it saved is dlogits for dL/dloss = 1.
    Loss,
    /// The input of a recomputed segment, or one that no value of the model is.
    Input,
    /// An operation.
    Op(BoxedBackward<B>),
    /// An output of an operation with several, its first input: which of how many.
    Output(usize, usize),
    /// A segment that is run again in the backward pass.
    Checkpoint(Segment<'m, B>),
}

pub(super) struct Node<'m, B: Backend> {
    pub(super) op: &'static str,
    pub(super) inputs: Vec<Option<usize>>,
    pub(super) saved: Vec<Saved<B>>,
    pub(super) kind: Kind<'m, B>,
    /// LayerScale's gamma, where the operation wants its output's gradient multiplied by it.
    pub(super) scale: Option<Array<B>>,
}

/// Records operations on the values of `params`.
pub struct Tape<'m, B: Backend> {
    pub(super) params: &'m Params<B>,
    pub(super) nodes: RefCell<Vec<Node<'m, B>>>,
    leaves: RefCell<HashMap<ParamId, usize>>,
    recording: Cell<bool>,
    // Whether a trained value was read, recorded or not: a recomputed segment without one needs no node.
    touched: Cell<bool>,
    pub(super) images: usize,
    pub(super) derived: Option<&'m Derived<B>>,
    recompute: Cell<Level>,
    // Arrays that are not kept, by their block; the weak handle keeps its address from being used again.
    pub(super) again: RefCell<HashMap<*const (), Remade<B>>>,
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
            images: 0,
            derived: None,
            recompute: Cell::new(Level::Nothing),
            again: RefCell::default(),
        }
    }

    /// The same for a pass over this many images: gradients are then summed by granules of them ([`super::GRANULE_IMAGES`]).
    pub fn over_images(self, images: usize) -> Self {
        Self { images, ..self }
    }

    /// From here on less is kept: what operations say how to make again. Whole blocks are the model's affair ([`Tape::checkpoint`]).
    pub fn recompute_from_here(&self, level: Level) {
        self.recompute.set(level);
    }

    /// What is made again in the backward pass.
    pub(crate) fn recompute(&self) -> Level {
        self.recompute.get()
    }

    /// From here on nobody keeps `array`: it is made again from `sources`, with the same bits.
    pub(crate) fn make_again(&self, array: &Array<B>, sources: Vec<Array<B>>, remake: Remake<B>) {
        if !self.recording.get() {
            return;
        }
        let sources = sources.into_iter().map(|source| self.saved(source)).collect();
        let again = Rc::new(Again::new(sources, remake));
        self.again.borrow_mut().insert(array.identity(), (array.downgrade(), again));
    }

    fn saved(&self, array: Array<B>) -> Saved<B> {
        match self.again.borrow().get(&array.identity()) {
            Some((_, again)) => Saved::Again(again.clone()),
            None => Saved::Kept(array),
        }
    }

    /// How many images the pass is over; 0: not said.
    pub(crate) fn images(&self) -> usize {
        self.images
    }

    /// The same with values that were derived from the model's once, for all passes of a step.
    pub fn with_derived(self, derived: &'m Derived<B>) -> Self {
        Self { derived: Some(derived), ..self }
    }

    /// A derived value; none where the tape has no such values: then it has to be computed here.
    pub fn derived(&self, slot: usize) -> Option<Tensor<B>> {
        let (array, trained) = self.derived?.get(slot)?;
        if !trained {
            return Some(Tensor::constant(array.clone()));
        }
        self.touched.set(true);
        if !self.recording.get() {
            return Some(Tensor::constant(array.clone()));
        }
        Some(self.leaf(ParamId::derived(self.params.len(), slot), array.clone()))
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
        self.leaf(id, param.value.clone())
    }

    /// A value that is none of the model's and asks for a gradient all the same, so that one flows through a model of which nothing is
    /// trained. [`Tape::gradients_of`] reads what flows.
    pub fn input(&self, array: Array<B>) -> Tensor<B> {
        let node = self.recording.get().then(|| self.push("input", vec![], vec![], Kind::Input));
        Tensor { array, node }
    }

    fn leaf(&self, id: ParamId, array: Array<B>) -> Tensor<B> {
        let push = || self.push("parameter", vec![], vec![], Kind::Leaf(id));
        let node = *self.leaves.borrow_mut().entry(id).or_insert_with(push);
        Tensor { array, node: Some(node) }
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
        let run = Box::new(move |backend: &B, saved: &[Array<B>], dy: Vec<Option<Array<B>>>, needs: &mut Needs<B>| {
            backward(backend, parameters, saved, only(dy)?, needs)
        });
        Tensor { array: output, node: Some(self.push(op, inputs, saved, Kind::Op(run))) }
    }

    /// Puts the results of one operation on the tape, which walks back once for all of them. It may give no gradient for inputs of an
    /// output that no gradient reached.
    pub(super) fn record_many<P: Copy + 'static>(
        &self,
        op: &'static str,
        inputs: &[&Tensor<B>],
        outputs: Vec<Array<B>>,
        saved: Vec<Array<B>>,
        parameters: Vec<P>,
        backward: BackwardManyFn<B, P>,
    ) -> Vec<Tensor<B>> {
        if !self.records(inputs) {
            return outputs.into_iter().map(Tensor::constant).collect();
        }
        let inputs = inputs.iter().map(|input| input.node).collect();
        let run = Box::new(move |backend: &B, saved: &[Array<B>], dys: Vec<Option<Array<B>>>, needs: &mut Needs<B>| {
            backward(backend, &parameters, saved, dys, needs)
        });
        let (node, count) = (self.push(op, inputs, saved, Kind::Op(run)), outputs.len());
        let output = |(place, array)| {
            let node = self.push(op, vec![Some(node)], vec![], Kind::Output(place, count));
            Tensor { array, node: Some(node) }
        };
        outputs.into_iter().enumerate().map(output).collect()
    }

    /// Puts a loss \[1\] on the tape with its gradient, dL/dlogits for dL/dloss = 1.
    pub(crate) fn record_loss(
        &self,
        op: &'static str,
        logits: &Tensor<B>,
        loss: Array<B>,
        dlogits: Array<B>,
    ) -> Tensor<B> {
        if !self.records(&[logits]) {
            return Tensor::constant(loss);
        }
        Tensor { array: loss, node: Some(self.push(op, vec![logits.node], vec![dlogits], Kind::Loss)) }
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

    pub(super) fn push(
        &self,
        op: &'static str,
        inputs: Vec<Option<usize>>,
        saved: Vec<Array<B>>,
        kind: Kind<'m, B>,
    ) -> usize {
        let saved = saved.into_iter().map(|array| self.saved(array)).collect();
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { op, inputs, saved, kind, scale: None });
        nodes.len() - 1
    }

    /// An operation's result y, whose backward pass wants dL/dy times LayerScale's gamma.
    pub(crate) fn with_scale(&self, y: Tensor<B>, gamma: &Array<B>) -> Tensor<B> {
        let mut nodes = self.nodes.borrow_mut();
        if let Some(node) = y.node.and_then(|node| nodes.get_mut(node)) {
            node.scale = Some(gamma.clone());
        }
        drop(nodes);
        y
    }

    /// What is kept for the backward pass, in bytes by operation, in the order of recording. A block that several operations keep counts
    /// once, the model's own values not at all.
    pub fn saved_by_op(&self) -> Vec<(&'static str, usize)> {
        let mut seen: HashSet<*const ()> = self.params.iter().map(|(_, param)| param.value.identity()).collect();
        let nodes = self.nodes.borrow();
        let mut list = Vec::new();
        for node in nodes.iter() {
            let mut kept = Vec::new();
            node.saved.iter().for_each(|saved| saved.kept(&mut kept));
            let bytes = kept.iter().filter(|a| seen.insert(a.identity())).map(|a| a.bytes(self.backend())).sum();
            list.push((node.op, bytes));
        }
        list
    }

    /// All that is kept for the backward pass, in bytes.
    pub fn saved_bytes(&self) -> usize {
        self.saved_by_op().iter().map(|(_, bytes)| bytes).sum()
    }
}
