//! Which part of one block of memory is in use: blocks are handed out and taken back on the host.
//!
//! All work goes through one stream, which waits for copies on any other before a block is given back, so a block may be handed out again as soon as its last use has been queued: what uses it next
//! runs later. The same calls in the same order give the same places, so a run of lengths alone (a dry device) tells exactly what the
//! real one will need.

use std::collections::BTreeMap;

/// Alignment of every block in bytes: a memory transaction, and what a tensor map asks for.
pub(super) const ALIGN: u64 = 256;

/// Free and used ranges of `0..size`.
#[derive(Debug)]
pub(super) struct Arena {
    size: u64,
    /// Free ranges by first byte: length. Never adjacent.
    free: BTreeMap<u64, u64>,
    in_use: u64,
    high_water: u64,
}

impl Arena {
    /// All of `size` bytes free.
    pub(super) fn new(size: u64) -> Self {
        Self { size, free: BTreeMap::from([(0, size)]), in_use: 0, high_water: 0 }
    }

    /// The first byte of a block of `bytes`, in the smallest free range that holds it; none when none does. The range up to the end comes
    /// last, whatever its size, so that an endless arena and one of exactly the right size hand out the same places.
    pub(super) fn take(&mut self, bytes: u64) -> Option<u64> {
        let bytes = rounded(bytes);
        let fits = self.free.iter().filter(|(_, length)| **length >= bytes);
        let end = self.size;
        let (&first, &length) = fits.min_by_key(|(first, length)| (**first + **length == end, **length, **first))?;
        self.free.remove(&first);
        if length > bytes {
            self.free.insert(first + bytes, length - bytes);
        }
        self.in_use += bytes;
        self.high_water = self.high_water.max(first + bytes);
        Some(first)
    }

    /// Takes a block back.
    pub(super) fn give_back(&mut self, first: u64, bytes: u64) {
        let bytes = rounded(bytes);
        self.in_use -= bytes;
        let (mut start, mut length) = (first, bytes);
        if let Some((&before, &size)) = self.free.range(..first).next_back()
            && before + size == first
        {
            self.free.remove(&before);
            (start, length) = (before, size + bytes);
        }
        if let Some(size) = self.free.remove(&(first + bytes)) {
            length += size;
        }
        self.free.insert(start, length);
    }

    /// Free ranges by first byte: length.
    pub(super) fn free(&self) -> &BTreeMap<u64, u64> {
        &self.free
    }

    /// Bytes in use now.
    pub(super) fn in_use(&self) -> u64 {
        self.in_use
    }

    /// The end of the highest block so far: an arena of this size would have done.
    pub(super) fn high_water(&self) -> u64 {
        self.high_water
    }

    /// From here on the highest block counts anew, from those that there are.
    pub(super) fn forget_high_water(&mut self) {
        // The last free range reaches to the end, unless all is in use.
        let last = self.free.iter().next_back().filter(|(first, length)| **first + **length == self.size);
        self.high_water = last.map_or(self.size, |(first, _)| *first);
    }

    /// All of it, in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

/// What a block of `bytes` takes.
pub(super) fn rounded(bytes: u64) -> u64 {
    bytes.max(1).next_multiple_of(ALIGN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_apart_and_come_back_whole() {
        let mut arena = Arena::new(1 << 20);
        let sizes = [1, 256, 257, 1000, 65_536];
        let blocks: Vec<u64> = sizes.iter().map(|&size| arena.take(size).unwrap()).collect();
        for (i, (&a, &size)) in blocks.iter().zip(&sizes).enumerate() {
            assert_eq!(a % ALIGN, 0);
            for (&b, &other) in blocks.iter().zip(&sizes).skip(i + 1) {
                assert!(a + size <= b || b + other <= a, "{a}+{size} and {b}+{other}");
            }
        }
        for order in [3, 0, 4, 1, 2] {
            arena.give_back(blocks[order], sizes[order]);
        }
        assert_eq!((arena.in_use(), arena.free.len()), (0, 1));
        assert_eq!(arena.take(1 << 20), Some(0));
        assert_eq!(arena.take(1), None);
    }

    /// What an endless arena took at most is enough for the same calls.
    #[test]
    fn an_endless_arena_tells_what_is_needed() {
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        for _ in 0..50 {
            let calls: Vec<(bool, u64)> = (0..300).map(|_| (random(5) < 3, random(5000) + 1)).collect();
            let play = |arena: &mut Arena| -> Option<Vec<u64>> {
                let (mut live, mut places): (Vec<(u64, u64)>, _) = (Vec::new(), Vec::new());
                for &(take, number) in &calls {
                    if take || live.is_empty() {
                        let first = arena.take(number)?;
                        places.push(first);
                        live.push((first, number));
                    } else {
                        let (first, bytes) = live.swap_remove(number as usize % live.len());
                        arena.give_back(first, bytes);
                    }
                }
                Some(places)
            };
            let mut endless = Arena::new(1 << 62);
            let places = play(&mut endless).expect("it is endless");
            assert_eq!(play(&mut Arena::new(endless.high_water())), Some(places));
        }
    }

    #[test]
    fn the_smallest_range_that_fits_is_used() {
        let mut arena = Arena::new(1 << 20);
        let blocks: Vec<u64> = (0..6).map(|_| arena.take(1024).unwrap()).collect();
        arena.give_back(blocks[1], 1024);
        arena.give_back(blocks[3], 1024);
        arena.give_back(blocks[4], 1024);
        assert_eq!(arena.take(1024), Some(blocks[1]));
        assert_eq!(arena.take(2048), Some(blocks[3]));
        assert_eq!(arena.high_water(), 6 * 1024);
    }
}
