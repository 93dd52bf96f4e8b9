//! Adapters as matrix products read them: rounded, padded to a multiple of 16 ranks. Made from the masters once for all the passes of a step
//! where these are told of ([`Prepared`]), else in each pass.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hasher};
use std::rc::{Rc, Weak};

use super::{Cuda, CudaBuffer};
use crate::autograd::{Adapter, AdapterDims, LinearAdapters};
use crate::gpu::{Buf, DType};
use crate::kernels::adapter_pack::{
    AdapterPack, LinearPack, PackTable, RescaleTable, RowGain, WeightRescale, adapter_pack, adapter_pack_batched,
    padded_rank, weight_rescale_batched,
};
use crate::{Error, Result};

/// The most bytes of all g W of a model that stay from step to step; where there are more each pass makes those of a linear when it comes
/// to it. Sizes alone decide; the bits are the same.
const MOST_RESCALED_BYTES: usize = 64 << 20;

/// What the forward pass reads of one adapter.
#[derive(Clone, Debug)]
pub(super) struct Packed {
    /// The rank rounded up.
    pub(super) rank: usize,
    /// A \[rank, k\].
    pub(super) a: Rc<Buf>,
    /// B \[rows, rank\].
    pub(super) b: Rc<Buf>,
}

/// What the backward pass reads of some adapters of one linear.
pub(super) struct PackedBackward {
    /// All A below each other \[sum of ranks, k\].
    pub(super) a: Rc<Buf>,
    /// s g B of each \[rows, rank\].
    pub(super) bg: Vec<Rc<Buf>>,
    /// The sum of the padded ranks.
    pub(super) width: usize,
}

/// All adapters of a model, packed: blocks that stay from step to step.
#[derive(Debug, Default)]
pub struct Prepared {
    linears: Vec<PreparedLinear>,
    /// Where an adapter stands, by the address of its A: linear, place in it.
    places: HashMap<u64, (usize, usize)>,
    table: PackTable,
    rescales: RescaleTable,
}

#[derive(Debug)]
struct PreparedLinear {
    k: usize,
    adapters: Vec<PreparedAdapter>,
    /// All A below each other; of one adapter its own.
    joined: Option<Rc<Buf>>,
    /// W with its rows under gains multiplied by these.
    rescaled: Option<Rc<Buf>>,
}

#[derive(Debug)]
struct PreparedAdapter {
    packed: Packed,
    bg: Rc<Buf>,
    /// Addresses of B and of the gain (0: none) that it was made from.
    from: (u64, u64),
}

impl Prepared {
    /// Bytes of all blocks.
    pub(super) fn bytes(&self) -> usize {
        let of = |linear: &PreparedLinear| {
            let own = |one: &PreparedAdapter| one.packed.a.bytes() + one.packed.b.bytes() + one.bg.bytes();
            let shared = [&linear.joined, &linear.rescaled].into_iter().flatten().map(|buf| buf.bytes());
            linear.adapters.iter().map(own).sum::<usize>() + shared.sum::<usize>()
        };
        self.linears.iter().map(of).sum::<usize>() + self.table.bytes() + self.rescales.bytes()
    }

    /// Blocks for these adapters, without content.
    fn new(cuda: &Cuda, list: &[LinearAdapters<'_, CudaBuffer>], dtype: DType) -> Result<Self> {
        let mut made = Self::default();
        let rescales = stays(list, dtype);
        for (index, linear) in list.iter().enumerate() {
            let k = linear.k;
            let mut adapters = Vec::with_capacity(linear.adapters.len());
            for (place, adapter) in linear.adapters.iter().enumerate() {
                let (rank, rows) = (padded_rank(adapter.dims.rank), adapter.dims.rows);
                let block = |len| cuda.buf(dtype, len).map(Rc::new);
                let packed = Packed { rank, a: block(rank * k)?, b: block(rows * rank)? };
                adapters.push(PreparedAdapter { packed, bg: block(rows * rank)?, from: (0, 0) });
                made.places.insert(adapter.a.data.address(), (index, place));
            }
            let width = adapters.iter().map(|one| one.packed.rank).sum::<usize>();
            let joined = (adapters.len() > 1).then(|| cuda.buf(dtype, width * k).map(Rc::new)).transpose()?;
            let rescaled = linear.rescaled.filter(|_| rescales);
            let rescaled = rescaled.map(|w| cuda.buf(dtype, w.len).map(Rc::new)).transpose()?;
            made.linears.push(PreparedLinear { k, adapters, joined, rescaled });
        }
        Ok(made)
    }

    /// Whether the blocks are those of these adapters.
    fn is_of(&self, list: &[LinearAdapters<'_, CudaBuffer>], dtype: DType) -> bool {
        let rescales = stays(list, dtype);
        let same = |index: usize, linear: &LinearAdapters<'_, CudaBuffer>| {
            let own = &self.linears[index];
            own.k == linear.k
                && own.rescaled.as_ref().map(|buf| buf.len()) == linear.rescaled.filter(|_| rescales).map(|w| w.len)
                && own.adapters.len() == linear.adapters.len()
                && linear.adapters.iter().zip(&own.adapters).enumerate().all(|(place, (adapter, own))| {
                    self.places.get(&adapter.a.data.address()) == Some(&(index, place))
                        && own.packed.rank == padded_rank(adapter.dims.rank)
                        && own.packed.b.len() == adapter.dims.rows * own.packed.rank
                })
        };
        self.linears.len() == list.len() && list.iter().enumerate().all(|(index, linear)| same(index, linear))
    }

    /// Queues the packing of all of them, and the weights under their gains.
    fn fill(&mut self, cuda: &Cuda, list: &[LinearAdapters<'_, CudaBuffer>], dtype: DType) -> Result<()> {
        let mut packs = Vec::with_capacity(list.len());
        for (linear, own) in list.iter().zip(&mut self.linears) {
            let mut adapters = Vec::with_capacity(own.adapters.len());
            for (adapter, own) in linear.adapters.iter().zip(&mut own.adapters) {
                let masters = masters(adapter);
                own.from = (masters.b.address(), masters.gain.map_or(0, Buf::address));
                adapters.push(AdapterPack {
                    a_packed: Some(unread(&mut own.packed.a)?),
                    b_packed: Some(unread(&mut own.packed.b)?),
                    bg_packed: Some(unread(&mut own.bg)?),
                    ..masters
                });
            }
            let joined = own.joined.as_mut().map(unread).transpose()?;
            packs.push(LinearPack { k: own.k, adapters, joined });
        }
        adapter_pack_batched(&cuda.device, dtype, &packs, &mut self.table)?;
        drop(packs);
        let mut weights = Vec::new();
        for (linear, own) in list.iter().zip(&mut self.linears) {
            let (Some(w), Some(out)) = (linear.rescaled, own.rescaled.as_mut()) else { continue };
            let gains = row_gains(&linear.adapters);
            weights.push(WeightRescale { n: w.len / linear.k, k: linear.k, w: &w.data, gains, out: unread(out)? });
        }
        if weights.is_empty() {
            return Ok(());
        }
        weight_rescale_batched(&cuda.device, &mut weights, &mut self.rescales)
    }

    /// Where it all lies: one number, and not 0.
    fn place(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for linear in &self.linears {
            for one in &linear.adapters {
                [&one.packed.a, &one.packed.b, &one.bg].iter().for_each(|buf| hasher.write_u64(buf.address()));
            }
            let shared = [&linear.joined, &linear.rescaled];
            shared.iter().for_each(|buf| hasher.write_u64(buf.as_ref().map_or(0, |buf| buf.address())));
        }
        hasher.finish().max(1)
    }

    /// These adapters of one linear, if they stand ready as they are.
    fn find(&self, adapters: &[Adapter<'_, CudaBuffer>]) -> Option<(&PreparedLinear, &[PreparedAdapter])> {
        let (index, place) = *self.places.get(&adapters.first()?.a.data.address())?;
        let linear = self.linears.get(index)?;
        let own = linear.adapters.get(place..place + adapters.len())?;
        let ready = adapters.iter().zip(own).all(|(adapter, own)| {
            own.from == (adapter.b.data.address(), adapter.gain.map_or(0, |gain| gain.data.address()))
        });
        ready.then_some((linear, own))
    }
}

/// Whether all g W of these adapters stay from step to step.
fn stays(list: &[LinearAdapters<'_, CudaBuffer>], dtype: DType) -> bool {
    let values = list.iter().filter_map(|linear| Some(linear.rescaled?.len));
    values.sum::<usize>() * dtype.bytes() <= MOST_RESCALED_BYTES
}

/// The gains of some adapters of a linear and the rows that they stand on.
pub(super) fn row_gains<'a: 'b, 'b>(
    adapters: impl IntoIterator<Item = &'b Adapter<'a, CudaBuffer>>,
) -> Vec<RowGain<'a>> {
    let gains = adapters.into_iter().filter_map(|adapter| {
        let AdapterDims { first_row, rows, .. } = adapter.dims;
        Some(RowGain { first_row, rows, gain: &adapter.gain?.data })
    });
    gains.collect()
}

/// A block that nothing reads any more.
fn unread(block: &mut Rc<Buf>) -> Result<&mut Buf> {
    Rc::get_mut(block).ok_or_else(|| Error::Internal("packed adapters are read while they are made".into()))
}

/// What stands ready for the passes of this step, if anything does.
pub(super) type Ready = Rc<RefCell<Weak<Prepared>>>;

impl Cuda {
    /// Packs all adapters of a model for the passes until [`Cuda::release`], in the blocks of the step before.
    pub(super) fn prepare(
        &self,
        list: &[LinearAdapters<'_, CudaBuffer>],
        prepared: &mut Option<Rc<Prepared>>,
    ) -> Result<u64> {
        self.release();
        if list.is_empty() {
            *prepared = None;
            return Ok(0);
        }
        if !prepared.as_ref().is_some_and(|prepared| prepared.is_of(list, self.activations)) {
            *prepared = None;
            *prepared = Some(Rc::new(Prepared::new(self, list, self.activations)?));
        }
        let Some(blocks) = prepared else { return Ok(0) };
        let own = Rc::get_mut(blocks).ok_or_else(|| Error::Internal("packed adapters have two owners".into()))?;
        own.fill(self, list, self.activations)?;
        let place = own.place();
        *self.ready.borrow_mut() = Rc::downgrade(blocks);
        Ok(place)
    }

    /// From here on values may change.
    pub(super) fn release(&self) {
        *self.ready.borrow_mut() = Weak::new();
    }

    fn ready(&self, dtype: DType) -> Option<Rc<Prepared>> {
        if dtype == self.activations { self.ready.borrow().upgrade() } else { None }
    }

    /// For the forward pass.
    pub(super) fn pack(&self, k: usize, adapters: &[Adapter<'_, CudaBuffer>], dtype: DType) -> Result<Vec<Packed>> {
        if adapters.is_empty() {
            return Ok(Vec::new());
        }
        if let Some(ready) = self.ready(dtype)
            && let Some((_, own)) = ready.find(adapters)
        {
            return Ok(own.iter().map(|own| own.packed.clone()).collect());
        }
        let mut blocks = Vec::with_capacity(adapters.len());
        for adapter in adapters {
            let rank = padded_rank(adapter.dims.rank);
            blocks.push((rank, self.buf(dtype, rank * k)?, self.buf(dtype, adapter.dims.rows * rank)?));
        }
        let items = adapters.iter().zip(&mut blocks).map(|(adapter, (_, a, b))| AdapterPack {
            a_packed: Some(a),
            b_packed: Some(b),
            ..masters(adapter)
        });
        adapter_pack(&self.device, dtype, k, &mut items.collect::<Vec<_>>(), None)?;
        Ok(blocks.into_iter().map(|(rank, a, b)| Packed { rank, a: Rc::new(a), b: Rc::new(b) }).collect())
    }

    /// W with its rows under the gains of all of a linear's adapters multiplied by these, if it stands ready.
    pub(super) fn rescaled(&self, adapters: &[Adapter<'_, CudaBuffer>], dtype: DType) -> Option<Rc<Buf>> {
        let ready = self.ready(dtype)?;
        let (linear, own) = ready.find(adapters)?;
        if own.len() == linear.adapters.len() { linear.rescaled.clone() } else { None }
    }

    /// For the backward pass; at least one adapter. Under dropout s g B is the same.
    pub(super) fn pack_backward(
        &self,
        k: usize,
        adapters: &[Adapter<'_, CudaBuffer>],
        dtype: DType,
    ) -> Result<PackedBackward> {
        let width = adapters.iter().map(|adapter| padded_rank(adapter.dims.rank)).sum();
        if let Some(ready) = self.ready(dtype)
            && let Some((linear, own)) = ready.find(adapters)
        {
            let bg = own.iter().map(|own| own.bg.clone()).collect();
            match (own, &linear.joined) {
                ([one], _) => return Ok(PackedBackward { a: one.packed.a.clone(), bg, width }),
                (all, Some(joined)) if all.len() == linear.adapters.len() => {
                    return Ok(PackedBackward { a: joined.clone(), bg, width });
                }
                _ => {}
            }
        }
        let mut a = self.buf(dtype, width * k)?;
        let mut bg = Vec::with_capacity(adapters.len());
        for adapter in adapters {
            bg.push(self.buf(dtype, adapter.dims.rows * padded_rank(adapter.dims.rank))?);
        }
        let items = adapters.iter().zip(&mut bg);
        let items = items.map(|(adapter, bg)| AdapterPack { bg_packed: Some(bg), ..masters(adapter) });
        adapter_pack(&self.device, dtype, k, &mut items.collect::<Vec<_>>(), Some(&mut a))?;
        Ok(PackedBackward { a: Rc::new(a), bg: bg.into_iter().map(Rc::new).collect(), width })
    }
}

fn masters<'a>(adapter: &Adapter<'a, CudaBuffer>) -> AdapterPack<'a> {
    AdapterPack {
        rows: adapter.dims.rows,
        rank: adapter.dims.rank,
        scale: adapter.dims.scale as f32,
        a: &adapter.a.data,
        b: &adapter.b.data,
        gain: adapter.gain.map(|gain| &gain.data),
        a_packed: None,
        b_packed: None,
        bg_packed: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Backend;
    use crate::config::Precision;
    use crate::gpu::{Arch, Device};

    /// What was packed is what both passes are given, all adapters of a linear or one of them, until it is released or a gain is another.
    #[test]
    fn what_is_ready_is_found() {
        let cuda = Cuda::new(&Device::dry(Arch::Sm90a), Precision::Bf16);
        let (k, rows, rank) = (24, 40, 5);
        let value = |len: usize| cuda.upload(&vec![0.0; len]).unwrap();
        let values: Vec<_> = (0..3).map(|_| (value(rank * k), value(rows * rank), value(rows))).collect();
        let (other_gain, w) = (value(rows), value(3 * rows * k));
        let adapter = |index: usize, gain: bool| {
            let (a, b, own) = &values[index];
            let dims = AdapterDims { first_row: index * rows, rows, rank, scale: 1.0 };
            Adapter { dims, a, b, gain: gain.then_some(own), dropped: None }
        };
        for gain in [false, true] {
            let list = || {
                [vec![adapter(0, gain), adapter(1, gain)], vec![adapter(2, gain)]].map(|adapters| LinearAdapters {
                    k,
                    rescaled: gain.then_some(&w),
                    adapters,
                })
            };
            let mut prepared = None;
            let place = cuda.prepare(&list(), &mut prepared).unwrap();
            let blocks = prepared.clone().unwrap();
            for (linear, own) in list().iter().zip(&blocks.linears) {
                let forward = cuda.pack(k, &linear.adapters, DType::Bf16).unwrap();
                let backward = cuda.pack_backward(k, &linear.adapters, DType::Bf16).unwrap();
                assert_eq!(forward.len(), own.adapters.len());
                for ((forward, bg), own) in forward.iter().zip(&backward.bg).zip(&own.adapters) {
                    assert!(Rc::ptr_eq(&forward.a, &own.packed.a) && Rc::ptr_eq(&forward.b, &own.packed.b));
                    assert!(Rc::ptr_eq(bg, &own.bg));
                }
                let joined = own.joined.as_ref().unwrap_or(&own.adapters[0].packed.a);
                assert!(Rc::ptr_eq(&backward.a, joined) && backward.width == 16 * own.adapters.len());
                let rescaled = cuda.rescaled(&linear.adapters, DType::Bf16).map(|buf| buf.address());
                assert_eq!(rescaled, own.rescaled.as_ref().map(|buf| buf.address()));
                assert_eq!(rescaled.is_some(), gain);
                for (one, own) in linear.adapters.iter().zip(&own.adapters) {
                    let backward = cuda.pack_backward(k, std::slice::from_ref(one), DType::Bf16).unwrap();
                    assert!(Rc::ptr_eq(&backward.a, &own.packed.a) && Rc::ptr_eq(&backward.bg[0], &own.bg));
                }
            }
            let of = |adapter| cuda.pack(k, &[adapter], DType::Bf16).unwrap()[0].a.address();
            let own = blocks.linears[1].adapters[0].packed.a.address();
            assert_eq!(of(adapter(2, gain)), own);
            assert_ne!(of(Adapter { gain: Some(&other_gain), ..adapter(2, gain) }), own, "made from another gain");
            assert_ne!(of(adapter(2, !gain)), own);
            drop(blocks);
            assert_eq!(cuda.prepare(&list(), &mut prepared).unwrap(), place, "the same blocks again");
            cuda.release();
            let released = cuda.pack(k, &list()[1].adapters, DType::Bf16).unwrap();
            assert!(!Rc::ptr_eq(&released[0].a, &prepared.unwrap().linears[1].adapters[0].packed.a));
        }
    }
}
