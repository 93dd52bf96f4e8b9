//! The walk back over a tape.

use std::collections::HashMap;

use super::saved::Saved;
use super::tape::{Kind, Node};
use super::{Array, Backend, Grads, Needs, ParamId, Tape, Tensor};
use crate::{Error, Result};

impl<B: Backend> Tape<'_, B> {
    /// Walks back from a loss of one number and adds the trained values' gradients to `grads`.
    pub fn backward(self, loss: &Tensor<B>, grads: &mut Grads<B>) -> Result<()> {
        if loss.array.elements() != 1 {
            return Err(Error::shape("backward", "a loss of one number", loss.shape()));
        }
        // A loss knows its gradient; nothing has to be sent to the device for it.
        let is_loss = |node: usize| self.nodes.borrow().get(node).is_some_and(|node| matches!(node.kind, Kind::Loss));
        if let Some(node) = loss.node.filter(|&node| is_loss(node)) {
            self.walk(vec![(node, None)], grads, &mut [])?;
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
        self.walk(starts, grads, &mut [])?;
        Ok(())
    }

    /// Walks back from `y` with dL/dy given and returns dL/dv of other values of this tape, in their order; none where no gradient came.
    /// Values inside a recomputed segment ([`Tape::checkpoint`]) are not on this tape. What trained values would get is dropped.
    ///
    /// # Errors
    /// A shape that does not fit, a value that asks for no gradient.
    pub fn gradients_of(self, y: &Tensor<B>, dy: Array<B>, values: &[&Tensor<B>]) -> Result<Vec<Option<Array<B>>>> {
        if y.shape() != dy.shape() {
            return Err(Error::shape("backward's gradient", y.shape(), dy.shape()));
        }
        let mut grads = Grads::new(self.params);
        let mut watched = values.iter().map(|value| Ok((node_of(value)?, None))).collect::<Result<Vec<_>>>()?;
        self.walk(vec![(node_of(y)?, Some(dy))], &mut grads, &mut watched)?;
        Ok(watched.into_iter().map(|(_, grad)| grad).collect())
    }

    /// Walks back from nodes with their gradients (none: a loss's own); returns the gradient of the segment's input, if there is one that asks.
    /// Each node of `watched` gets its output's whole gradient.
    fn walk(
        self,
        starts: Vec<(usize, Option<Array<B>>)>,
        grads: &mut Grads<B>,
        watched: &mut [(usize, Option<Array<B>>)],
    ) -> Result<Option<Array<B>>> {
        let (params, images, derived) = (self.params, self.images, self.derived);
        let mut nodes = self.nodes.into_inner();
        let backend = params.backend();
        // From here on only the nodes hold what is made again: it goes with the last of them that reads it.
        drop(self.again);
        let get = |saved: &[Saved<B>]| saved.iter().map(|saved| saved.get(backend)).collect::<Result<Vec<_>>>();
        let mut pending: Vec<Option<Array<B>>> = (0..nodes.len()).map(|_| None).collect();
        // What was made along the way of a pending gradient, times the gamma of the operation that waits for it.
        let mut scaled: Vec<Option<Array<B>>> = (0..nodes.len()).map(|_| None).collect();
        // What came to the outputs of an operation with several.
        let mut outputs: HashMap<usize, Vec<Option<Array<B>>>> = HashMap::new();
        let (mut input, mut loss) = (None, None);
        for (node, dy) in starts {
            match dy {
                Some(dy) => add_to(&mut pending[node], dy, backend)?,
                None => loss = Some(node),
            }
        }
        // Popping frees what a node saved as soon as its backward pass is done.
        while let Some(node) = nodes.pop() {
            let (dy, scaled_output) = (pending.pop().flatten(), scaled.pop().flatten());
            if loss == Some(nodes.len()) {
                let to = node.inputs.first().copied().flatten();
                if let (Some(to), Some(dlogits)) = (to, node.saved.into_iter().next()) {
                    let dlogits = dlogits.get(backend)?;
                    add_to(&mut pending[to], dlogits, backend)?;
                }
                continue;
            }
            let several = outputs.remove(&nodes.len());
            let dys = match (dy, several) {
                (Some(dy), _) => {
                    for (_, grad) in watched.iter_mut().filter(|(place, _)| *place == nodes.len()) {
                        *grad = Some(dy.clone());
                    }
                    vec![Some(dy)]
                }
                (None, Some(dys)) => dys,
                (None, None) => continue,
            };
            // What the model's values came to so far: an operation that sums goes on from there.
            let mut ids: Vec<Option<ParamId>> = node.inputs.iter().map(|input| leaf_of(&nodes, (*input)?)).collect();
            for i in 1..ids.len() {
                // A value that is read twice by one operation has one sum.
                if ids[..i].contains(&ids[i]) {
                    ids[i] = None;
                }
            }
            let mut needs = Needs {
                asked: node.inputs.iter().map(Option::is_some).collect(),
                sums: vec![],
                so_far: vec![],
                scale: node.inputs.first().copied().flatten().and_then(|to| nodes[to].scale.clone()),
                scaled_input: None,
                scaled_output,
                images,
            };
            let all_reached = dys.iter().all(Option::is_some);
            let made = match node.kind {
                Kind::Leaf(id) => {
                    grads.accumulate(id, only(dys)?)?;
                    continue;
                }
                Kind::Input => {
                    input = Some(only(dys)?);
                    continue;
                }
                Kind::Output(place, count) => {
                    if let Some(&Some(of)) = node.inputs.first() {
                        outputs.entry(of).or_insert_with(|| (0..count).map(|_| None).collect())[place] =
                            Some(only(dys)?);
                    }
                    continue;
                }
                Kind::Loss => vec![Some(scaled_loss(backend, &get(&node.saved)?, &only(dys)?)?)],
                Kind::Op(run) => {
                    needs.sums = ids.iter().map(|id| id.and_then(|id| grads.lend(id))).collect();
                    let mut unshared = |to: usize| pending[to].take_if(|array| array.buffer_mut().is_some());
                    needs.so_far = node.inputs.iter().map(|to| to.and_then(&mut unshared)).collect();
                    let made = run(backend, &get(&node.saved)?, dys, &mut needs)?;
                    // What the operation did not take is added to.
                    for (to, so_far) in node.inputs.iter().zip(needs.so_far.drain(..)) {
                        if let (Some(to), Some(so_far)) = (*to, so_far) {
                            pending[to] = Some(so_far);
                        }
                    }
                    made
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
                    vec![tape.walk(vec![(last, Some(only(dys)?))], grads, &mut [])?]
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
            let (mut lent, first) = (needs.sums.into_iter(), node.inputs.first().copied().flatten());
            for ((target, grad), id) in node.inputs.into_iter().zip(made).zip(ids) {
                let untouched = lent.next().flatten();
                let Some(target) = target else { continue };
                let Some(grad) = grad else {
                    if !all_reached {
                        if let (Some(id), Some(sum)) = (id, untouched) {
                            grads.give_back(id, sum);
                        }
                        continue;
                    }
                    return Err(Error::Internal(format!("{} gave no gradient for an input that needs one", node.op)));
                };
                scaled[target] = None;
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
            if let (Some(first), Some(made)) = (first, needs.scaled_input) {
                scaled[first] = Some(made);
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

/// The gradient of an operation's one output.
pub(super) fn only<B: Backend>(dys: Vec<Option<Array<B>>>) -> Result<Array<B>> {
    dys.into_iter().flatten().next().ok_or_else(|| Error::Internal("no gradient to walk back from".into()))
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
