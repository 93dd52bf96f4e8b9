//! Guard mode as far as it can be known without a GPU.

use half::bf16;

use super::*;
use crate::gpu::Arch;

const SIZES: [usize; 8] = [1, 63, 64, 65, 1000, 4096, 4097, 100_003];

#[test]
fn bands_hold_256_bytes_and_begin_where_a_block_ends() {
    for (len, dtype) in SIZES.into_iter().flat_map(|len| [DType::F32, DType::Bf16, DType::U8].map(|d| (len, d))) {
        let block = Block { dtype, len, address: 4096, place: None };
        let room = Room::of(block.bytes(), true);
        let [(_, before, before_bytes), (_, after, after_bytes)] = block.bands();
        assert!(before_bytes >= 256 && after_bytes >= 256, "{block}");
        assert_eq!((before + before_bytes, after), (4096, 4096 + block.bytes()));
        assert_eq!(before_bytes + block.bytes() + after_bytes, room.bytes);
        assert_eq!((before % ALIGN, room.bytes % ALIGN), (0, 0), "the arena's own rounding adds nothing to {block}");
        assert_eq!(Room::of(block.bytes(), false), Room { before: 0, bytes: block.bytes() });
    }
}

#[test]
fn a_plan_grows_by_the_bands_and_blocks_stay_aligned() {
    let [plain, guarded] = [false, true].map(|guarded| Device::dry_with(Arch::Sm80, guarded));
    assert_eq!([plain.is_guarded(), guarded.is_guarded()], [false, true]);
    let blocks = [&plain, &guarded].map(|device| SIZES.map(|len| Buf::uninit(device, DType::U8, len).unwrap()));
    let mut place = 0;
    for (i, (plain, guarded)) in blocks[0].iter().zip(&blocks[1]).enumerate() {
        assert_eq!(plain.address(), place);
        place += (SIZES[i] as u64).next_multiple_of(ALIGN);
        assert_eq!(guarded.address() % ALIGN, 0);
        assert_eq!(guarded.address(), plain.address() + BAND * (2 * i as u64 + 1));
    }
    let bands = 2 * BAND * SIZES.len() as u64;
    assert_eq!(guarded.usage().in_use, plain.usage().in_use + bands);
    assert_eq!(guarded.usage().peak, plain.usage().peak + bands);
    assert_eq!(guarded.0.guard.get().unwrap().live().len(), SIZES.len());
    drop(blocks);
    assert_eq!((plain.usage().in_use, guarded.usage().in_use), (0, 0));
    assert!(guarded.0.guard.get().unwrap().live().is_empty());
    assert_eq!(Buf::uninit(&guarded, DType::F32, 1).unwrap().address(), BAND, "it all came back");
}

#[test]
fn guards_come_before_the_first_block() {
    let device = Device::dry_with(Arch::Sm80, false);
    let block = Buf::zeros(&device, DType::F32, 3).unwrap();
    assert!(device.guard().is_err());
    drop(block);
    device.guard().unwrap();
    let _block = Buf::zeros(&device, DType::F32, 3).unwrap();
    device.guard().unwrap();
    assert!(device.is_guarded() && device.dry_twin().is_guarded());
    device.check_guards().unwrap();
}

#[test]
fn every_damaged_byte_is_seen() {
    for address in [4096, 4097] {
        let whole = whole(address, 300);
        assert_eq!(damaged(&whole, address), None);
        for byte in 0..whole.len() {
            for wrong in [0, UNWRITTEN] {
                let mut found = whole.clone();
                found[byte] = wrong;
                assert_eq!(damaged(&found, address), Some((byte as u64, byte as u64)));
            }
        }
        assert_eq!(damaged(&[0; 300], address), Some((0, 299)));
    }
    let pair = u32::from(PATTERN) << 16 | u32::from(PATTERN);
    assert!(bf16::from_bits(PATTERN).is_nan() && f32::from_bits(pair).is_nan());
}

#[test]
fn what_is_broken_is_told_once() {
    let device = Device::dry_with(Arch::Sm80, true);
    let block = Block { dtype: DType::Bf16, len: 7, address: 0x1100, place: Some(0x100) };
    assert_eq!(block.to_string(), "block of 7 Bf16 (14 bytes) at 0x1100, byte 256 of the arena");
    let guard = device.0.guard.get().unwrap();
    guard.record((0..6).map(|i| format!("band {i}")).collect());
    let message = device.synchronize().unwrap_err().to_string();
    assert_eq!(message, "device memory was written outside its block: band 0; band 1; band 2; band 3; and 2 more");
    device.synchronize().unwrap();
    guard.record(vec!["band 0".into()]);
    assert!(device.check_guards().is_err());
    device.check_guards().unwrap();
}
