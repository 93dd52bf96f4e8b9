//! What a tape's nodes keep of arrays for the backward pass: the arrays, or how they are made again.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use super::{Array, Backend};
use crate::Result;

/// What a node keeps of an array: itself, or how it is made again.
pub(super) enum Saved<B: Backend> {
    Kept(Array<B>),
    Again(Rc<Again<B>>),
}

impl<B: Backend> Saved<B> {
    pub(super) fn get(&self, backend: &B) -> Result<Array<B>> {
        match self {
            Self::Kept(array) => Ok(array.clone()),
            Self::Again(again) => again.get(backend),
        }
    }

    /// The arrays behind it.
    pub(super) fn kept(&self, to: &mut Vec<Array<B>>) {
        match self {
            Self::Kept(array) => to.push(array.clone()),
            Self::Again(again) => again.sources.iter().for_each(|source| source.kept(to)),
        }
    }
}

/// An array's handle and how it is made again.
pub(super) type Remade<B> = (Weak<<B as Backend>::Buffer>, Rc<Again<B>>);

/// Makes an array again from others.
pub(crate) type Remake<B> = Box<dyn Fn(&B, &[Array<B>]) -> Result<Array<B>>>;

/// An array that is made again when it is first asked for, and then stays until the last node that reads it is gone.
pub(super) struct Again<B: Backend> {
    sources: Vec<Saved<B>>,
    remake: Remake<B>,
    made: RefCell<Option<Array<B>>>,
}

impl<B: Backend> Again<B> {
    pub(super) fn new(sources: Vec<Saved<B>>, remake: Remake<B>) -> Self {
        Self { sources, remake, made: RefCell::new(None) }
    }

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
