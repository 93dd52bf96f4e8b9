//! kernels/augment.cu against the CPU's transform and the plain loops: the same bits.

use std::sync::Arc;

use peftk::config::Resize;
use peftk::data::transform::{CropBox, eval_crop, train_crop};
use peftk::data::{RgbImage, Sources};
use peftk::gpu::{Buf, DType, Device};
use peftk::kernels::augment::{self, AugmentImage, ENTRY_BYTES};
use peftk::reference;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::harness::{Needs, Test, on_every_arch};

pub const TESTS: &[Test] = &[
    Test { name: "sanitize_augment", needs: Needs::Gpu, run: sanitize },
    Test { name: "augment::training_and_evaluation", needs: Needs::Gpu, run: training_and_evaluation },
    Test { name: "augment::odd_sizes_and_crops", needs: Needs::Gpu, run: odd_sizes_and_crops },
    Test { name: "augment::images_anywhere_in_the_pixels", needs: Needs::Gpu, run: anywhere },
    Test { name: "augment::long_and_large_images", needs: Needs::Gpu, run: long_and_large },
    Test { name: "augment::equal_inputs_give_equal_bits", needs: Needs::Gpu, run: repeatable },
    Test { name: "augment::a_table_that_does_not_fit_is_black", needs: Needs::Gpu, run: black },
    Test { name: "augment::wrong_buffers_are_refused", needs: Needs::Gpu, run: wrong_buffers },
];

/// Bytes behind the squares that no kernel may touch.
const GUARD: usize = 256;
const POISON: u8 = 0xa5;

/// Noise, with stretches of black and white that make the cubic overshoot.
fn picture(width: usize, height: usize, random: &mut impl Rng) -> Arc<RgbImage> {
    let mut pixels = vec![0; width * height * 3];
    random.fill_bytes(&mut pixels);
    for (i, pixel) in pixels.iter_mut().enumerate() {
        match i / 97 % 4 {
            0 => *pixel = 0,
            1 => *pixel = 255,
            _ => {}
        }
    }
    Arc::new(RgbImage { width, height, pixels })
}

fn empty() -> Sources {
    Sources { images: Vec::new(), boxes: Vec::new(), flips: Vec::new() }
}

fn add(sources: &mut Sources, image: &Arc<RgbImage>, part: CropBox, flip: bool) {
    sources.images.push(image.clone());
    sources.boxes.push(part);
    sources.flips.push(flip);
}

/// Some training crops of an image, both evaluation transforms, and crops with edges between pixels.
fn add_crops(sources: &mut Sources, image: &Arc<RgbImage>, size: usize, random: &mut impl Rng) {
    let RgbImage { width, height, .. } = **image;
    for _ in 0..3 {
        let (part, flip) = train_crop(width, height, random);
        add(sources, image, part, flip);
    }
    for resize in [Resize::Squash, Resize::Crop] {
        add(sources, image, eval_crop(width, height, size, resize), random.random());
    }
    let (left, top) = (random.random_range(0.0..width as f64), random.random_range(0.0..height as f64));
    for (wide, high) in [(0.3, 0.01), (width as f64, height as f64)] {
        add(sources, image, CropBox { left, top, width: wide, height: high }.inside(width, height), random.random());
    }
}

/// The squares, from poisoned memory; what lies behind them must stay as it was.
fn launch(device: &Device, packed: &[u8], table: &[u8], scratch: usize, images: usize, size: usize) -> Vec<u8> {
    let pixels = Buf::from_slice(device, packed, DType::U8).unwrap();
    let table = Buf::from_slice(device, table, DType::U8).unwrap();
    let mut scratch = Buf::uninit(device, DType::I32, scratch).unwrap();
    scratch.fill_bytes(0xff).unwrap();
    let bytes = images * size * size * 3;
    let mut out = Buf::from_slice(device, &vec![POISON; bytes + GUARD], DType::U8).unwrap();
    augment::augment(device, &pixels, &table, images, size, &mut scratch, &mut out).unwrap();
    let mut squares: Vec<u8> = out.to_vec().unwrap();
    assert!(squares.split_off(bytes).iter().all(|&byte| byte == POISON), "{images} of {size}: wrote beyond the end");
    squares
}

fn squares(device: &Device, sources: &Sources, size: usize) -> Vec<u8> {
    let images = entries(sources);
    let mut packed = vec![POISON; sources.layout().1];
    sources.pack(&mut packed).unwrap();
    let scratch = augment::scratch_len(&images, size);
    launch(device, &packed, &augment::table(&images).unwrap(), scratch, images.len(), size)
}

fn compare(device: &Device, sources: &Sources, size: usize, ours: &[u8], truth: &[u8]) {
    assert_eq!(ours.len(), truth.len());
    let differences = ours.iter().zip(truth).map(|(a, b)| a.abs_diff(*b));
    let worst = differences.clone().max().unwrap_or(0);
    if worst > 0 {
        let at = differences.clone().position(|d| d > 0).unwrap_or(0);
        let image = at / (size * size * 3);
        panic!(
            "{} to {size}: {worst} levels at most, {} of {} differ; first in {:?} {:?} flip {}, pixel {}",
            device.arch(),
            differences.filter(|&d| d > 0).count(),
            ours.len(),
            sources.images[image],
            sources.boxes[image],
            sources.flips[image],
            at % (size * size * 3) / 3
        );
    }
}

/// Against the CPU's transform.
fn check(device: &Device, sources: &Sources, size: usize) {
    compare(device, sources, size, &squares(device, sources, size), &sources.squares(size).unwrap());
}

/// Fresh numbers every run, from a seed that is printed.
pub fn fresh() -> ChaCha8Rng {
    let clock =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
    let seed = std::env::var("PEFTK_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(clock);
    println!("    PEFTK_TEST_SEED={seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

fn sanitize() {
    let mut random = fresh();
    for size in [5, 36] {
        let mut sources = empty();
        for (width, height) in [(7, 3), (45, 61)] {
            add_crops(&mut sources, &picture(width, height, &mut random), size, &mut random);
        }
        on_every_arch(|device| check(device, &sources, size));
    }
}

fn training_and_evaluation() {
    let mut random = fresh();
    for (size, images) in [(224, 32), (518, 4)] {
        let mut sources = empty();
        for i in 0..images {
            let image = picture(500 - i, 400 + i, &mut random);
            let (part, flip) = match i % 4 {
                0 => (eval_crop(image.width, image.height, size, Resize::Squash), false),
                1 => (eval_crop(image.width, image.height, size, Resize::Crop), false),
                _ => train_crop(image.width, image.height, &mut random),
            };
            add(&mut sources, &image, part, flip);
        }
        on_every_arch(|device| {
            check(device, &sources, size);
            println!("    augment_u8 {} {images} to {size}: {:.0} us", device.arch(), micros(device, &sources, size));
        });
    }
}

/// Microseconds of both launches, the median of several.
fn micros(device: &Device, sources: &Sources, size: usize) -> f32 {
    let images = entries(sources);
    let mut packed = vec![0; sources.layout().1];
    sources.pack(&mut packed).unwrap();
    let pixels = Buf::from_slice(device, &packed, DType::U8).unwrap();
    let table = Buf::from_slice(device, &augment::table(&images).unwrap(), DType::U8).unwrap();
    let mut scratch = Buf::uninit(device, DType::I32, augment::scratch_len(&images, size)).unwrap();
    let mut out = Buf::uninit(device, DType::U8, images.len() * size * size * 3).unwrap();
    let mut once = || {
        let work = || augment::augment(device, &pixels, &table, images.len(), size, &mut scratch, &mut out);
        device.time(work).unwrap()
    };
    let mut times: Vec<f32> = (0..21).map(|_| once()).collect();
    times.sort_by(f32::total_cmp);
    times[times.len() / 2]
}

fn odd_sizes_and_crops() {
    let mut random = fresh();
    // Around every boundary there is: tiles of 32 x 16, rows of whole words, 128 columns at a time.
    let shapes = [(1, 1), (1, 97), (97, 1), (3, 2), (31, 33), (64, 63), (127, 129), (255, 257), (517, 389)];
    for size in [1, 2, 3, 4, 14, 15, 16, 17, 28, 31, 32, 33, 36, 56, 63, 64, 65, 100, 127, 128, 129, 224, 225] {
        let mut sources = empty();
        for (width, height) in shapes {
            add_crops(&mut sources, &picture(width, height, &mut random), size, &mut random);
        }
        // What is copied, and what is not quite.
        let image = picture(size + 9, size + 5, &mut random);
        for (left, top) in [(0.0, 0.0), (4.0, 3.0), (4.5, 3.0), (4.0, 3.25)] {
            let part = CropBox { left, top, width: size as f64, height: size as f64 };
            add(&mut sources, &image, part, false);
            add(&mut sources, &image, part, true);
        }
        // The plain loops too, on a few: they take their time.
        let some = [0, 12, 40, 70]
            .map(|i| reference::augment::augment(&sources.images[i], sources.boxes[i], sources.flips[i], size));
        on_every_arch(|device| {
            let ours = squares(device, &sources, size);
            compare(device, &sources, size, &ours, &sources.squares(size).unwrap());
            for (i, truth) in [0, 12, 40, 70].into_iter().zip(&some) {
                assert!(ours[i * size * size * 3..][..size * size * 3] == truth[..], "image {i} to {size}");
            }
        });
    }
}

/// At every alignment, in any order, with gaps, and one image twice.
fn anywhere() {
    let mut random = fresh();
    let size = 20;
    let (mut packed, mut images, mut sources) = (vec![POISON; 9], Vec::new(), empty());
    for gap in [0, 1, 2, 3, 5, 16, 7] {
        let image = picture(41 + gap, 23, &mut random);
        for _ in 0..2 {
            let (part, flip) = train_crop(image.width, image.height, &mut random);
            let offset = packed.len() as u64;
            images.push(AugmentImage { offset, width: image.width, height: image.height, part, flip });
            add(&mut sources, &image, part, flip);
        }
        packed.extend_from_slice(&image.pixels);
        packed.resize(packed.len() + gap, POISON);
    }
    packed.resize(packed.len().next_multiple_of(4), POISON);
    images.reverse();
    sources.images.reverse();
    sources.boxes.reverse();
    sources.flips.reverse();
    let table = augment::table(&images).unwrap();
    let scratch = augment::most_scratch_len(images.len(), 64, size);
    on_every_arch(|device| {
        let ours = launch(device, &packed, &table, scratch, images.len(), size);
        compare(device, &sources, size, &ours, &sources.squares(size).unwrap());
    });
}

fn long_and_large() {
    let mut random = fresh();
    for size in [14, 224] {
        let mut sources = empty();
        for (width, height) in [(16_384, 2), (3, 16_384), (3001, 2003)] {
            let image = picture(width, height, &mut random);
            for resize in [Resize::Squash, Resize::Crop] {
                add(&mut sources, &image, eval_crop(width, height, size, resize), true);
            }
            let (part, flip) = train_crop(width, height, &mut random);
            add(&mut sources, &image, part, flip);
        }
        on_every_arch(|device| check(device, &sources, size));
    }
}

fn repeatable() {
    let mut random = fresh();
    let mut sources = empty();
    for _ in 0..6 {
        add_crops(&mut sources, &picture(300, 211, &mut random), 98, &mut random);
    }
    on_every_arch(|device| {
        let first = squares(device, &sources, 98);
        for _ in 0..4 {
            assert!(squares(device, &sources, 98) == first);
        }
    });
}

/// An image beyond the pixels, or with too little scratch, is black; its neighbours are not.
fn black() {
    let mut random = fresh();
    let (size, mut sources) = (24, empty());
    let small = picture(30, 20, &mut random);
    let large = picture(400, 300, &mut random);
    for image in [&small, &large, &small] {
        add(&mut sources, image, CropBox::whole(image.width, image.height), false);
    }
    let images = entries(&sources);
    let (mut packed, bytes) = (vec![POISON; sources.layout().1], size * size * 3);
    sources.pack(&mut packed).unwrap();
    let truth = sources.squares(size).unwrap();
    on_every_arch(|device| {
        let too_little = augment::scratch_len(&[images[0]; 3], size);
        let mut beyond = images.clone();
        beyond[1].offset = packed.len() as u64 - 1000;
        let enough = augment::scratch_len(&images, size);
        for (images, scratch) in [(&images, too_little), (&beyond, enough)] {
            let ours = launch(device, &packed, &augment::table(images).unwrap(), scratch, 3, size);
            assert!(ours[bytes..2 * bytes].iter().all(|&byte| byte == 0));
            assert!(ours[..bytes] == truth[..bytes] && ours[2 * bytes..] == truth[2 * bytes..]);
        }
        let zeros = launch(device, &packed, &[0; 2 * ENTRY_BYTES], enough, 2, size);
        assert!(zeros.iter().all(|&byte| byte == 0));
    });
}

fn wrong_buffers() {
    on_every_arch(|device| {
        let buf = |dtype: DType, len: usize| Buf::zeros(device, dtype, len).unwrap();
        let try_with = |pixels: &Buf, table: &Buf, images: usize, size: usize, scratch: usize, out: usize| {
            let (mut scratch, mut out) = (buf(DType::I32, scratch), buf(DType::U8, out));
            augment::augment(device, pixels, table, images, size, &mut scratch, &mut out)
        };
        let (pixels, table) = (buf(DType::U8, 64), buf(DType::U8, 2 * ENTRY_BYTES));
        try_with(&pixels, &table, 2, 3, 100, 54).unwrap();
        let refused = [
            try_with(&pixels, &table, 0, 3, 100, 54),
            try_with(&pixels, &table, 2, 0, 100, 54),
            try_with(&pixels, &table, 3, 3, 100, 81),
            try_with(&pixels, &table, 2, 3, 1, 54),
            try_with(&pixels, &table, 2, 3, 100, 53),
            try_with(&pixels, &table, 2, 1 << 24, 100, 54),
            try_with(&buf(DType::I32, 64), &table, 2, 3, 100, 54),
        ];
        for (i, result) in refused.into_iter().enumerate() {
            let error = result.expect_err("it does not fit").to_string();
            assert!(error.starts_with("augment "), "{i}: {error}");
        }
        let other = Device::open_with(0, Some(device.arch())).unwrap();
        let foreign = Buf::zeros(&other, DType::U8, 64).unwrap();
        let error = try_with(&foreign, &table, 2, 3, 100, 54).expect_err("nothing orders two streams");
        assert!(error.to_string().contains("another open device"), "{error}");
    });
}

/// A batch's images where [`Sources::layout`] puts them.
fn entries(sources: &Sources) -> Vec<AugmentImage> {
    let (offsets, _) = sources.layout();
    let what = sources.boxes.iter().zip(&sources.flips);
    let images = sources.images.iter().zip(offsets).zip(what);
    images
        .map(|((image, offset), (&part, &flip))| AugmentImage {
            offset,
            width: image.width,
            height: image.height,
            part,
            flip,
        })
        .collect()
}
