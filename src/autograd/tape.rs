//! The tape: what was computed from what, what each operation keeps for its backward pass, and the walk back.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::{Rc, Weak};

use super::{Array, Backend, Derived, Grads, ParamId, Params, SumTo, Sums};
use crate::config::Recompute;
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

/// Which inputs ask for a gradient, and for those that are the model's values what they came to so far.
pub struct Needs<B: Backend> {
    asked: Vec<bool>,
    sums: Vec<Option<SumTo<Array<B>>>>,
    images: usize,
}

impl<B: Backend> Needs<B> {
    /// How many inputs there are.
    pub fn count(&self) -> usize {
        self.asked.len()
    }

    /// Whether any of some inputs asks.
    pub fn any(&self, mut inputs: impl Iterator<Item = usize>) -> bool {
        inputs.any(|input| self.asked[input])
    }

    /// Where the gradients of these inputs go. An operation that asks for it gives back sums that hold what was there.
    pub fn sums(&mut self, inputs: impl IntoIterator<Item = Option<usize>>) -> Result<Sums<B::Buffer>> {
        let mut list = Vec::new();
        for input in inputs {
            let given = input.and_then(|input| self.sums.get_mut(input)?.take());
            let given =
                given.map(|to| Ok::<_, Error>(SumTo { block: to.block.into_buffer()?, add: to.add })).transpose()?;
            list.push(given);
        }
        Ok(Sums::new(self.images, list))
    }
}

impl<B: Backend> std::ops::Index<usize> for Needs<B> {
    type Output = bool;

    fn index(&self, input: usize) -> &bool {
        &self.asked[input]
    }
}

/// An operation's backward pass: parameters, what it saved, dL/doutput, which inputs ask. A plain function with `Copy` parameters cannot hide
/// a buffer: whatever an operation keeps stands in its `saved` list, where it is counted.
pub type BackwardFn<B, P> = fn(&B, P, &[Array<B>], Array<B>, &mut Needs<B>) -> Result<InputGrads<B>>;

type BoxedBackward<B> = Box<dyn FnOnce(&B, &[Array<B>], Array<B>, &mut Needs<B>) -> Result<InputGrads<B>>>;
type Segment<'m, B> = Box<dyn Fn(&Tape<'m, B>, &Tensor<B>) -> Result<Tensor<B>> + 'm>;

enum Kind<'m, B: Backend> {
    /// A trained value, or one that follows from trained values and stands for a whole step.
    Leaf(ParamId),
    /// A loss: what it saved is dlogits for dL/dloss = 1.
    Loss,
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
    saved: Vec<Saved<B>>,
    kind: Kind<'m, B>,
}

/// What a node keeps of an array: itself, or how it is made again.
enum Saved<B: Backend> {
    Kept(Array<B>),
    Again(Rc<Again<B>>),
}

impl<B: Backend> Saved<B> {
    fn get(&self, backend: &B) -> Result<Array<B>> {
        match self {
            Self::Kept(array) => Ok(array.clone()),
            Self::Again(again) => again.get(backend),
        }
    }

    /// The arrays behind it.
    fn kept(&self, to: &mut Vec<Array<B>>) {
        match self {
            Self::Kept(array) => to.push(array.clone()),
            Self::Again(again) => again.sources.iter().for_each(|source| source.kept(to)),
        }
    }
}

/// An array's handle and how it is made again.
type Remade<B> = (Weak<<B as Backend>::Buffer>, Rc<Again<B>>);

/// Makes an array again from others.
pub(crate) type Remake<B> = Box<dyn Fn(&B, &[Array<B>]) -> Result<Array<B>>>;

/// An array that is made again when it is first asked for, and then stays until the last node that reads it is gone.
struct Again<B: Backend> {
    sources: Vec<Saved<B>>,
    remake: Remake<B>,
    made: RefCell<Option<Array<B>>>,
}

impl<B: Backend> Again<B> {
    fn get(&self, backend: &B) -> Result<Array<B>> {
        if let Some(made) = &*self.made.borrow() {
            return Ok(made.clone());
        }
        let sources = self.sources.iter().map(|source| source.get(backend)).collect::<Result<Vec<_>>>()?;
        let made = (self.remake)(backend, &sources)?;
        *self.made.borrow_mut() = Some(made.clone());
        Ok(made)
    }
}

/// Records operations on the values of `params`.
pub struct Tape<'m, B: Backend> {
    params: &'m Params<B>,
    nodes: RefCell<Vec<Node<'m, B>>>,
    leaves: RefCell<HashMap<ParamId, usize>>,
    recording: Cell<bool>,
    // Whether a trained value was read, recorded or not: a recomputed segment without one needs no node.
    touched: Cell<bool>,
    images: usize,
    derived: Option<&'m Derived<B>>,
    recompute: Recompute,
    // Arrays that are not kept, by their block; the weak handle keeps its address from being used again.
    again: RefCell<HashMap<*const (), Remade<B>>>,
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
            recompute: Recompute::Nothing,
            again: RefCell::default(),
        }
    }

    /// The same for a pass over this many images: gradients are then summed by granules of them ([`super::GRANULE_IMAGES`]).
    pub fn over_images(self, images: usize) -> Self {
        Self { images, ..self }
    }

    /// The same with less kept: what operations say how to make again. Whole blocks are the model's affair ([`Tape::checkpoint`]).
    pub fn recomputing(self, recompute: Recompute) -> Self {
        Self { recompute, ..self }
    }

    /// What is made again in the backward pass.
    pub(crate) fn recompute(&self) -> Recompute {
        self.recompute
    }

    /// From here on nobody keeps `array`: it is made again from `sources`, with the same bits.
    pub(crate) fn make_again(&self, array: &Array<B>, sources: Vec<Array<B>>, remake: Remake<B>) {
        if !self.recording.get() {
            return;
        }
        let sources = sources.into_iter().map(|source| self.saved(source)).collect();
        let again = Rc::new(Again { sources, remake, made: RefCell::new(None) });
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
        let run = Box::new(move |backend: &B, saved: &[Array<B>], dy: Array<B>, needs: &mut Needs<B>| {
            backward(backend, parameters, saved, dy, needs)
        });
        Tensor { array: output, node: Some(self.push(op, inputs, saved, Kind::Op(run))) }
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

    fn push(&self, op: &'static str, inputs: Vec<Option<usize>>, saved: Vec<Array<B>>, kind: Kind<'m, B>) -> usize {
        let saved = saved.into_iter().map(|array| self.saved(array)).collect();
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

    /// Walks back from a loss of one number and adds the trained values' gradients to `grads`.
    pub fn backward(self, loss: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        if loss.array.elements() != 1 {
            return Err(Error::shape("backward", "a loss of one number", loss.shape()));
        }
        // A loss knows its gradient; nothing has to be sent to the device for it.
        let is_loss = |node: usize| self.nodes.borrow().get(node).is_some_and(|node| matches!(node.kind, Kind::Loss));
        if let Some(node) = loss.node.filter(|&node| is_loss(node)) {
            self.walk(vec![(node, None)], grads)?;
            return Ok(());
        }
        let one = Array::upload(self.backend(), &[1.0], loss.shape())?;
        self.backward_with(loss, one, grads)
    }

    /// Walks back from any value with its gradient dL/dy given, and adds the trained values' gradients to `grads`.
    pub fn backward_with(self, y: &Tensor<B>, dy: Array<B>, grads: &mut Grads<B>) -> Result<()> {
        self.backward_with_all(vec![(y, dy)], grads)
    }

    /// The same from several values.
    pub fn backward_with_all(self, list: Vec<(&Tensor<B>, Array<B>)>, grads: &mut Grads<B>) -> Result<()> {
        let mut starts = Vec::new();
        for (y, dy) in list {
            if y.shape() != dy.shape() {
                return Err(Error::shape("backward's gradient", y.shape(), dy.shape()));
            }
            starts.push((node_of(y)?, Some(dy)));
        }
        self.walk(starts, grads)?;
        Ok(())
    }

    /// Walks back from nodes with their gradients (none: a loss's own); returns the gradient of the segment's input, if there is one that asks.
    fn walk(self, starts: Vec<(usize, Option<Array<B>>)>, grads: &mut Grads<B>) -> Result<Option<Array<B>>> {
        let (params, images, derived) = (self.params, self.images, self.derived);
        let mut nodes = self.nodes.into_inner();
        let backend = params.backend();
        // From here on only the nodes hold what is made again: it goes with the last of them that reads it.
        drop(self.again);
        let get = |saved: Vec<Saved<B>>| saved.iter().map(|saved| saved.get(backend)).collect::<Result<Vec<_>>>();
        let mut pending: Vec<Option<Array<B>>> = (0..nodes.len()).map(|_| None).collect();
        let (mut input, mut loss) = (None, None);
        for (node, dy) in starts {
            match dy {
                Some(dy) => add_to(&mut pending[node], dy, backend)?,
                None => loss = Some(node),
            }
        }
        // Popping frees what a node saved as soon as its backward pass is done.
        while let Some(node) = nodes.pop() {
            let dy = pending.pop().flatten();
            if loss == Some(nodes.len()) {
                let to = node.inputs.first().copied().flatten();
                if let (Some(to), Some(dlogits)) = (to, node.saved.into_iter().next()) {
                    let dlogits = dlogits.get(backend)?;
                    add_to(&mut pending[to], dlogits, backend)?;
                }
                continue;
            }
            let Some(dy) = dy else { continue };
            // What the model's values came to so far: an operation that sums goes on from there.
            let mut ids: Vec<Option<ParamId>> = node.inputs.iter().map(|input| leaf_of(&nodes, (*input)?)).collect();
            for i in 1..ids.len() {
                // A value that is read twice by one operation has one sum.
                if ids[..i].contains(&ids[i]) {
                    ids[i] = None;
                }
            }
            let mut needs =
                Needs { asked: node.inputs.iter().map(Option::is_some).collect(), sums: Vec::new(), images };
            let made = match node.kind {
                Kind::Leaf(id) => {
                    grads.accumulate(id, dy)?;
                    continue;
                }
                Kind::Input => {
                    input = Some(dy);
                    continue;
                }
                Kind::Loss => vec![Some(scaled_loss(backend, &get(node.saved)?, &dy)?)],
                Kind::Op(run) => {
                    needs.sums = ids.iter().map(|id| id.and_then(|id| grads.lend(id))).collect();
                    let saved: Vec<_> = node.saved;
                    let arrays = saved.iter().map(|saved| saved.get(backend)).collect::<Result<Vec<_>>>()?;
                    run(backend, &arrays, dy, &mut needs)?
                }
                Kind::Checkpoint(segment) => {
                    let mut tape = Tape::new(params).over_images(images);
                    tape.derived = derived;
                    let mut x = Tensor::constant(node.saved[0].get(backend)?);
                    drop(node.saved);
                    if needs.asked[0] {
                        x.node = Some(tape.push("segment input", vec![], vec![], Kind::Input));
                    }
                    let y = segment(&tape, &x)?;
                    let last = node_of(&y)?;
                    drop(x);
                    drop(y);
                    vec![tape.walk(vec![(last, Some(dy))], grads)?]
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
            let mut lent = needs.sums.into_iter();
            for ((target, grad), id) in node.inputs.into_iter().zip(made).zip(ids) {
                let untouched = lent.next().flatten();
                let Some(target) = target else { continue };
                let Some(grad) = grad else {
                    return Err(Error::Internal(format!("{} gave no gradient for an input that needs one", node.op)));
                };
                match (id, untouched) {
                    // The operation did not go on from the sum: it is added here.
                    (Some(id), Some(sum)) => {
                        grads.give_back(id, sum);
                        add_to(&mut pending[target], grad, backend)?;
                    }
                    (Some(id), None) if grads.is_lent(id) => grads.put(id, grad),
                    _ => add_to(&mut pending[target], grad, backend)?,
                }
            }
        }
        Ok(input)
    }
}

/// A value's place on the tape.
fn node_of<B: Backend>(y: &Tensor<B>) -> Result<usize> {
    y.node.ok_or_else(|| Error::Internal("backward from a value that nothing trained flows into".into()))
}

/// The model's value at a place, if one stands there.
fn leaf_of<B: Backend>(nodes: &[Node<'_, B>], place: usize) -> Option<ParamId> {
    match nodes.get(place)?.kind {
        Kind::Leaf(id) => Some(id),
        _ => None,
    }
}

fn add_to<B: Backend>(slot: &mut Option<Array<B>>, grad: Array<B>, backend: &B) -> Result<()> {
    *slot = Some(match slot.take() {
        Some(sum) => sum.sum(grad, backend)?,
        None => grad,
    });
    Ok(())
}

/// dlogits of a loss that something else follows.
fn scaled_loss<B: Backend>(backend: &B, saved: &[Array<B>], dloss: &Array<B>) -> Result<Array<B>> {
    let factor = f64::from(dloss.download(backend)?[0]);
    let dlogits = &saved[0];
    let mut scaled = backend.copy(dlogits.buffer())?;
    backend.scale_assign(&mut scaled, factor)?;
    Array::new(backend, scaled, dlogits.shape())
}
