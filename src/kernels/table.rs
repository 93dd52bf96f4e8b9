//! What a launch over many items reads: their descriptions, in device memory.

use bytemuck::Pod;

use crate::Result;
use crate::gpu::{Buf, DType, Device};

/// Items of a launch that comes again and again: their block stays, and is written when an item changes.
#[derive(Debug)]
pub struct ItemTable<T> {
    items: Vec<T>,
    block: Option<Buf>,
}

impl<T> Default for ItemTable<T> {
    fn default() -> Self {
        Self { items: Vec::new(), block: None }
    }
}

impl<T: Pod> ItemTable<T> {
    /// Holds these items, of which there is at least one, and returns their address.
    pub(super) fn hold(&mut self, device: &Device, items: Vec<T>) -> Result<u64> {
        let bytes = bytemuck::cast_slice::<T, u8>(&items);
        let address = match &mut self.block {
            Some(block) if block.len() == bytes.len() => {
                if bytes != bytemuck::cast_slice::<T, u8>(&self.items) {
                    block.write(bytes)?;
                }
                block.address()
            }
            block => {
                // What was there goes first.
                *block = None;
                block.insert(Buf::from_slice(device, bytes, DType::U8)?).address()
            }
        };
        self.items = items;
        Ok(address)
    }

    /// Bytes of the block.
    pub fn bytes(&self) -> usize {
        self.block.as_ref().map_or(0, Buf::bytes)
    }
}
