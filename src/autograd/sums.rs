//! Where the gradients of a model's values go: sums over images, granule by granule.

use super::{Array, Backend};
use crate::{Error, Result};

/// Images whose share of a gradient is summed on its own, before it is added to the shares of the images before them. A batch may be
/// walked in micro-batches of any multiple of it: the sums, and so the bits, stay the same.
pub const GRANULE_IMAGES: usize = 16;

/// Where the gradients of an operation's values go: sums over the images of a pass, granule by granule in the images' order, which
/// begin with what earlier passes came to. The operation says which place of the list is which value's.
#[derive(Debug)]
pub struct Sums<T> {
    images: usize,
    list: Vec<Option<SumTo<T>>>,
}

/// A block for a sum.
#[derive(Debug)]
pub struct SumTo<T> {
    /// Where it goes.
    pub block: T,
    /// Whether it is added to what is there, or written over it.
    pub add: bool,
}

impl<T> Sums<T> {
    /// New blocks for all of them; the pass is one granule.
    pub fn fresh() -> Self {
        Self { images: 0, list: Vec::new() }
    }

    /// Those of a pass over `images` images (0: nobody knows, one granule), by place.
    pub fn new(images: usize, list: Vec<Option<SumTo<T>>>) -> Self {
        Self { images, list }
    }

    /// What was given for a place; none: a new block.
    pub fn take(&mut self, place: usize) -> Option<SumTo<T>> {
        self.list.get_mut(place).and_then(Option::take)
    }

    /// A gradient of the whole pass as the sum at a place: added to it, or in its stead.
    pub fn finish(&mut self, place: usize, made: T, add: impl FnOnce(&mut T, &T)) -> T {
        match self.take(place) {
            Some(SumTo { mut block, add: true }) => {
                add(&mut block, &made);
                block
            }
            _ => made,
        }
    }

    /// Rows of a granule, where the pass has `rows`; also of one that the pass does not fill.
    pub fn granule(&self, rows: usize) -> usize {
        match rows.checked_div(self.images) {
            Some(of_image) if of_image * self.images == rows => of_image * GRANULE_IMAGES,
            _ => rows.max(1),
        }
    }

    /// The images of the pass, or 1 where nobody knows.
    pub fn images(&self) -> usize {
        self.images.max(1)
    }
}

/// Which inputs ask for a gradient, and for those that are the model's values what they came to so far.
pub struct Needs<B: Backend> {
    pub(super) asked: Vec<bool>,
    pub(super) sums: Vec<Option<SumTo<Array<B>>>>,
    pub(super) so_far: Vec<Option<Array<B>>>,
    /// gamma, where the first input was made by a branch behind LayerScale.
    pub(super) scale: Option<Array<B>>,
    /// The first input's whole gradient times `scale`: an operation that finishes that gradient may make it along the way.
    pub(super) scaled_input: Option<Array<B>>,
    /// dL/doutput times the operation's own gamma, where a later operation made it along the way.
    pub(super) scaled_output: Option<Array<B>>,
    pub(super) images: usize,
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

    /// What came to an input so far from other operations, if nothing else holds it. Who takes it gives back the sum with its own.
    pub fn so_far(&mut self, input: usize) -> Option<Array<B>> {
        self.so_far.get_mut(input)?.take()
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
