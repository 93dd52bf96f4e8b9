//! How sums over rows are cut into granules and pieces: kernels/common/cut.cuh, kernels/params/cut.h.

use super::check::dimension;
use super::params::PeftkCut;
use crate::Result;

/// A sum's rows, and what it is added to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Rows that are summed here.
    pub count: usize,
    /// Rows of a granule: these are summed on their own, and the granules added one after the other. It may be more than there are: how the
    /// rows are cut follows from it, not from their number.
    pub granule: usize,
    /// Whether the sum is added to what is there, or written over it.
    pub add: bool,
}

impl From<usize> for Rows {
    fn from(count: usize) -> Self {
        Self::all(count)
    }
}

impl Rows {
    /// All rows as one granule, written.
    pub fn all(count: usize) -> Self {
        Self { count, granule: count.max(1), add: false }
    }

    /// In pieces of at most `piece` rows.
    pub(super) fn cut(self, op: &str, piece: usize) -> Result<PeftkCut> {
        let granule = self.granule.max(1);
        let piece = piece.clamp(1, granule);
        let per_granule = granule.div_ceil(piece);
        let whole = self.count / granule;
        let pieces = whole * per_granule + (self.count % granule).div_ceil(piece);
        Ok(PeftkCut {
            rows: dimension(op, "rows", self.count)?,
            granule: dimension(op, "granule", granule)?,
            piece: dimension(op, "piece", piece)?,
            per_granule: dimension(op, "pieces", per_granule)?,
            pieces: dimension(op, "pieces", pieces)?,
            add: self.add.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the kernels do it.
    fn ends(cut: &PeftkCut, piece: u32) -> (u32, u32) {
        let granule = piece / cut.per_granule;
        let first = granule * cut.granule + piece % cut.per_granule * cut.piece;
        (first, (first + cut.piece).min((granule + 1) * cut.granule).min(cut.rows))
    }

    #[test]
    fn pieces_cover_the_rows_within_their_granules() {
        for count in [1, 15, 257, 4112, 4113, 8224, 65_792, 100_003] {
            for granule in [1, 16, 257, 4112, 200_000] {
                for piece in [1, 32, 128, 160, 576] {
                    let cut = Rows { count, granule, add: false }.cut("test", piece).unwrap();
                    let mut next = 0;
                    for index in 0..cut.pieces {
                        let (first, end) = ends(&cut, index);
                        assert!(first == next && end > first, "{count} {granule} {piece}: piece {index}");
                        assert_eq!(first / cut.granule, (end - 1) / cut.granule);
                        next = end;
                    }
                    assert_eq!(next as usize, count);
                }
            }
        }
    }

    #[test]
    fn a_part_of_a_batch_has_the_cuts_of_the_whole() {
        let of = |count| Rows { count, granule: 4112, add: false }.cut("test", 160).unwrap();
        let (whole, part) = (of(65_792), of(8224));
        for index in 0..part.pieces {
            assert_eq!(ends(&whole, index), ends(&part, index));
        }
    }
}
