//! The adapters of a whole model packed for the products in one launch, as every training step begins. `adapter_pack` of one linear is in
//! adapters.rs.

use peftk::Result;
use peftk::gpu::{Buf, DType};
use peftk::kernels::adapter_pack::{AdapterPack, LinearPack, PackTable, adapter_pack_batched, padded_rank};

use super::{Case, WIDTH, bytes, case};

const BLOCKS: usize = 12;

/// A linear of a block: its columns, and the rows of each of its adapters.
type Linear = (usize, &'static [usize]);
const QV: &[Linear] = &[(WIDTH, &[WIDTH, WIDTH])];
const ALL: &[Linear] =
    &[(WIDTH, &[WIDTH, WIDTH, WIDTH]), (WIDTH, &[WIDTH]), (WIDTH, &[4 * WIDTH]), (4 * WIDTH, &[WIDTH])];

struct Adapter {
    a: Buf,
    b: Buf,
    gain: Buf,
    /// A, B and s g B.
    packed: [Buf; 3],
}

fn packing(name: &str, block: &'static [Linear], rank: usize, dora: bool) -> Case {
    let padded = padded_rank(rank);
    // A and B from f32; A twice where it is joined with others, B and s g B to bf16.
    let of_linear = |&(k, rows): &Linear| {
        let joined = if rows.len() > 1 { 2 } else { 1 };
        rows.iter().map(|n| 4 * rank * (k + n) + 2 * padded * (joined * k + 2 * n)).sum::<usize>()
    };
    let work = bytes(BLOCKS * block.iter().map(of_linear).sum::<usize>());
    case(
        name,
        work,
        move |gpu| {
            let adapter = |k: usize, rows: usize| -> Result<Adapter> {
                let packed = |len| gpu.out(DType::Bf16, len);
                Ok(Adapter {
                    a: gpu.random(DType::F32, rank * k)?,
                    b: gpu.random(DType::F32, rows * rank)?,
                    gain: gpu.positive(rows)?,
                    packed: [packed(padded * k)?, packed(rows * padded)?, packed(rows * padded)?],
                })
            };
            let linear = |&(k, rows): &Linear| -> Result<(usize, Vec<Adapter>, Option<Buf>)> {
                let joined = (rows.len() > 1).then(|| gpu.out(DType::Bf16, rows.len() * padded * k)).transpose()?;
                Ok((k, rows.iter().map(|&rows| adapter(k, rows)).collect::<Result<_>>()?, joined))
            };
            Ok((block.repeat(BLOCKS).iter().map(linear).collect::<Result<Vec<_>>>()?, PackTable::default()))
        },
        move |device, (linears, table)| {
            let packs = linears.iter_mut().map(|(k, adapters, joined)| {
                let adapters =
                    adapters.iter_mut().map(|Adapter { a, b, gain, packed: [a_packed, b_packed, bg_packed] }| {
                        AdapterPack {
                            rows: gain.len(),
                            rank,
                            scale: 1.0,
                            a,
                            b,
                            gain: dora.then_some(&*gain),
                            a_packed: Some(a_packed),
                            b_packed: Some(b_packed),
                            bg_packed: Some(bg_packed),
                        }
                    });
                LinearPack { k: *k, adapters: adapters.collect(), joined: joined.as_mut() }
            });
            adapter_pack_batched(device, DType::Bf16, &packs.collect::<Vec<_>>(), table)
        },
    )
}

pub fn cases() -> Vec<Case> {
    vec![
        packing("adapter_pack lora q,v r8, 24 adapters", QV, 8, false),
        packing("adapter_pack dora q,v r8, 24 adapters", QV, 8, true),
        packing("adapter_pack lora all linears r16, 72 adapters", ALL, 16, false),
        packing("adapter_pack dora all linears r16, 72 adapters", ALL, 16, true),
    ]
}
