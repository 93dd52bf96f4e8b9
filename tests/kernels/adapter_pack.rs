//! kernels/adapter_pack.cu: every value must be the one rounding of the f32 product, so equality is asked for.

use half::bf16;
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::adapter_pack::{
    AdapterPack, LinearPack, PackTable, RescaleTable, RowGain, WeightRescale, adapter_pack, adapter_pack_batched,
    padded_rank, weight_rescale, weight_rescale_batched,
};

use crate::harness::{Needs, Test, on_every_arch};
use crate::matmul::{DTYPES, Numbers, fresh, poisoned, results};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_adapter_pack", needs: Needs::Gpu, run: sanitize },
    Test { name: "adapter_pack::shapes", needs: Needs::Gpu, run: shapes },
    Test { name: "weight_rescale::shapes", needs: Needs::Gpu, run: rescale_shapes },
    Test { name: "adapter_pack::wrong_shapes_are_refused", needs: Needs::Gpu, run: wrong_shapes },
];

fn round(dtype: DType, value: f32) -> f64 {
    f64::from(if dtype == DType::Bf16 { bf16::from_f32(value).to_f32() } else { value })
}

/// Up to 3 adapters (rows, rank) of one linear of `k` inputs; the second has no gain.
fn check(k: usize, adapters: &[(usize, usize)], random: &mut impl rand::Rng) {
    let scale = 1.75_f32;
    let draw = |random: &mut _, n| Numbers::draw(random, DType::F32, n, 1.0);
    let masters: Vec<[Numbers; 3]> = adapters
        .iter()
        .map(|&(rows, rank)| [draw(random, rank * k), draw(random, rows * rank), draw(random, rows)])
        .collect();
    let ranks: usize = adapters.iter().map(|&(_, rank)| padded_rank(rank)).sum();
    for dtype in DTYPES {
        on_every_arch(|device| {
            let what = format!("adapter_pack {} {dtype:?} k {k} {adapters:?}", device.arch());
            let on_device: Vec<[Buf; 3]> =
                masters.iter().map(|all| all.each_ref().map(|numbers| numbers.upload(device))).collect();
            let mut outputs: Vec<[Buf; 3]> = adapters
                .iter()
                .map(|&(rows, rank)| {
                    let padded = padded_rank(rank);
                    [padded * k, rows * padded, rows * padded].map(|n| poisoned(device, dtype, n))
                })
                .collect();
            let mut joined = poisoned(device, dtype, ranks * k);
            let mut list: Vec<AdapterPack<'_>> = Vec::new();
            for (i, ([a, b, gain], out)) in on_device.iter().zip(&mut outputs).enumerate() {
                let [a_packed, b_packed, bg_packed] = out.each_mut().map(Some);
                let (rows, rank) = adapters[i];
                let gain = (i != 1).then_some(gain);
                list.push(AdapterPack { rows, rank, scale, a, b, gain, a_packed, b_packed, bg_packed });
            }
            adapter_pack(device, dtype, k, &mut list, Some(&mut joined)).unwrap();
            drop(list);
            in_one_launch(device, dtype, &on_device, (k, adapters, scale), (&outputs, &joined), &what);
            let joined = results(&joined, &what);
            let mut row = 0;
            for (i, ([a, b, gain], out)) in masters.iter().zip(&outputs).enumerate() {
                let (rows, rank) = adapters[i];
                let padded = padded_rank(rank);
                let [ours_a, ours_b, ours_bg] = out.each_ref().map(|buf| results(buf, &what));
                let truth_a: Vec<f64> =
                    (0..padded * k).map(|at| if at < rank * k { round(dtype, a.values[at]) } else { 0.0 }).collect();
                assert!(ours_a == truth_a, "{what}: A of adapter {i}");
                assert!(joined[row * k..(row + padded) * k] == truth_a, "{what}: joined A of adapter {i}");
                row += padded;
                for j in 0..rows {
                    for r in 0..padded {
                        let value = if r < rank { b.values[j * rank + r] } else { 0.0 };
                        let factor = if i == 1 { scale } else { scale * gain.values[j] };
                        assert_eq!(ours_b[j * padded + r], round(dtype, value), "{what}: B [{j}, {r}] of {i}");
                        assert_eq!(
                            ours_bg[j * padded + r],
                            round(dtype, factor * value),
                            "{what}: sgB [{j}, {r}] of {i}"
                        );
                    }
                }
            }
        });
    }
}

/// Two linears with these adapters in one launch, twice (the second time the table stays): what `adapter_pack` made.
fn in_one_launch(
    device: &Device,
    dtype: DType,
    masters: &[[Buf; 3]],
    (k, adapters, scale): (usize, &[(usize, usize)], f32),
    truth: (&[[Buf; 3]], &Buf),
    what: &str,
) {
    let block = |buf: &Buf| poisoned(device, dtype, results(buf, what).len());
    let blocks = || -> Vec<[Buf; 3]> { truth.0.iter().map(|all| all.each_ref().map(block)).collect() };
    let mut table = PackTable::default();
    let mut outputs = [(blocks(), block(truth.1)), (blocks(), block(truth.1))];
    for time in 0..2 {
        let linears = outputs.iter_mut().map(|(outputs, joined)| {
            let adapters = masters.iter().zip(outputs).zip(adapters).enumerate();
            let adapters = adapters.map(|(i, (([a, b, gain], out), &(rows, rank)))| {
                let [a_packed, b_packed, bg_packed] = out.each_mut().map(Some);
                let gain = (i != 1).then_some(gain);
                AdapterPack { rows, rank, scale, a, b, gain, a_packed, b_packed, bg_packed }
            });
            LinearPack { k, adapters: adapters.collect(), joined: Some(joined) }
        });
        let linears: Vec<_> = linears.collect();
        adapter_pack_batched(device, dtype, &linears, &mut table).unwrap();
        drop(linears);
        for (made, joined) in &mut outputs {
            for (made, truth) in made.iter_mut().flatten().zip(truth.0.iter().flatten()) {
                assert_eq!(results(made, what), results(truth, what), "{what}: in one launch, time {time}");
                made.fill_bytes(0xff).unwrap();
            }
            assert_eq!(results(joined, what), results(truth.1, what), "{what}: joined in one launch, time {time}");
            joined.fill_bytes(0xff).unwrap();
        }
    }
}

fn sanitize() {
    check(7, &[(5, 3), (1, 17)], &mut fresh());
    check_rescale(5, 6, &[(1, 2), (4, 1)], &mut fresh());
}

fn shapes() {
    let mut random = fresh();
    check(384, &[(384, 8), (384, 8)], &mut random);
    check(384, &[(1536, 32)], &mut random);
    for (rows, k, rank) in [
        (1, 1, 1),
        (1, 2, 3),
        (2, 1, 15),
        (3, 3, 16),
        (5, 7, 17),
        (16, 16, 16),
        (17, 31, 31),
        (33, 5, 32),
        (7, 129, 33),
        (64, 64, 64),
        (127, 9, 5),
        (129, 130, 1),
        (255, 3, 100),
        (257, 12, 127),
        (10, 1000, 2),
        (1000, 10, 3),
        (3, 2049, 200),
        (511, 1, 256),
        (19, 19, 19),
        (100, 385, 7),
    ] {
        check(k, &[(rows, rank)], &mut random);
        check(k, &[(rows, rank), (rows + 1, 1), (1, rank)], &mut random);
    }
}

fn check_rescale(n: usize, k: usize, ranges: &[(usize, usize)], random: &mut impl rand::Rng) {
    for (from, to) in [(DType::F32, DType::F32), (DType::F32, DType::Bf16), (DType::Bf16, DType::Bf16)] {
        let w = Numbers::draw(random, from, n * k, 1.0);
        let gains: Vec<Numbers> =
            ranges.iter().map(|&(_, rows)| Numbers::draw(random, DType::F32, rows, 2.0)).collect();
        on_every_arch(|device| {
            let what = format!("weight_rescale {} {from:?} to {to:?} {n}x{k} {ranges:?}", device.arch());
            let w_device = w.upload(device);
            let uploaded: Vec<Buf> = gains.iter().map(|gain| gain.upload(device)).collect();
            let list: Vec<RowGain<'_>> = ranges
                .iter()
                .zip(&uploaded)
                .map(|(&(first_row, rows), gain)| RowGain { first_row, rows, gain })
                .collect();
            let mut out = poisoned(device, to, n * k);
            let under = || list.clone();
            let mut one = WeightRescale { n, k, w: &w_device, gains: under(), out: &mut out };
            weight_rescale(device, &mut one).unwrap();
            let ours = results(&out, &what);
            // Beside another in one launch, twice (the second time the table stays): the same bits.
            let (mut first, mut second) = (poisoned(device, to, n * k), poisoned(device, to, k));
            let mut table = RescaleTable::default();
            for _ in 0..2 {
                let all = WeightRescale { n, k, w: &w_device, gains: under(), out: &mut first };
                let row = WeightRescale { n: 1, k, w: &w_device, gains: vec![], out: &mut second };
                weight_rescale_batched(device, &mut [row, all], &mut table).unwrap();
                assert_eq!(results(&first, &what), ours, "{what}: in one launch");
                let plain: Vec<f64> = w.values[..k].iter().map(|&w| round(to, w)).collect();
                assert_eq!(results(&second, &what), plain, "{what}: a row beside it");
                first.fill_bytes(0xff).unwrap();
                second.fill_bytes(0xff).unwrap();
            }
            for j in 0..n {
                let under = ranges.iter().position(|&(first, rows)| (first..first + rows).contains(&j));
                let gain = under.map_or(1.0, |i| gains[i].values[j - ranges[i].0]);
                for c in 0..k {
                    assert_eq!(ours[j * k + c], round(to, gain * w.values[j * k + c]), "{what}: [{j}, {c}]");
                }
            }
        });
    }
}

fn rescale_shapes() {
    let mut random = fresh();
    check_rescale(1152, 384, &[(0, 384), (768, 384)], &mut random);
    for (n, k) in [
        (1, 1),
        (1, 4),
        (2, 3),
        (3, 5),
        (4, 8),
        (7, 127),
        (8, 128),
        (9, 129),
        (10, 130),
        (11, 132),
        (31, 7),
        (33, 2),
        (64, 255),
        (65, 256),
        (100, 257),
        (129, 1),
        (257, 12),
        (13, 1000),
        (500, 6),
        (77, 385),
    ] {
        check_rescale(n, k, &[], &mut random);
        check_rescale(n, k, &[(0, n)], &mut random);
        if n >= 4 {
            check_rescale(n, k, &[(0, 1), (2, 1), (3, n - 3)], &mut random);
        }
    }
}

fn wrong_shapes() {
    on_every_arch(|device| {
        let buffer = |n: usize| Buf::zeros(device, DType::F32, n).unwrap();
        let (a, b, mut out) = (buffer(6), buffer(4), buffer(48));
        let mut pack = |rows, k, rank, dtype| {
            let item = AdapterPack {
                rows,
                rank,
                scale: 1.0,
                a: &a,
                b: &b,
                gain: None,
                a_packed: Some(&mut out),
                b_packed: None,
                bg_packed: None,
            };
            adapter_pack(device, dtype, k, &mut [item], None)
        };
        pack(2, 3, 2, DType::F32).unwrap();
        for (rows, k, rank, dtype) in [
            (0, 3, 2, DType::F32),
            (2, 0, 2, DType::F32),
            (2, 3, 0, DType::F32),
            (3, 3, 2, DType::F32),
            (2, 4, 2, DType::F32),
            (2, 3, 2, DType::Bf16),
            (2, 3, 2, DType::U8),
        ] {
            let error = pack(rows, k, rank, dtype).expect_err("it does not fit");
            assert!(error.to_string().starts_with("adapter_pack"), "{rows} {k} {rank} {dtype:?}: {error}");
        }
        assert!(adapter_pack(device, DType::F32, 3, &mut [], None).is_err(), "no adapter");
        let nothing = adapter_pack_batched(device, DType::F32, &[], &mut PackTable::default());
        assert!(nothing.is_err(), "no adapter at all");
        let gain = buffer(2);
        let range = RowGain { first_row: 1, rows: 2, gain: &gain };
        let mut w = buffer(6);
        let from = buffer(6);
        let mut rescale =
            |n, k| weight_rescale(device, &mut WeightRescale { n, k, w: &from, gains: vec![range], out: &mut w });
        rescale(3, 2).unwrap();
        for (n, k) in [(2, 3), (4, 2), (0, 2), (3, 0)] {
            rescale(n, k).expect_err("it does not fit");
        }
        let nothing = weight_rescale_batched(device, &mut [], &mut RescaleTable::default());
        assert!(nothing.is_err(), "no weight at all");
    });
}
