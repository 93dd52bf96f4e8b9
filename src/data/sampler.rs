//! Which images an epoch has, in which order.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Dataset;

/// One image's turn in an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Draw {
    /// Index into the data set's items.
    pub index: usize,
    /// How often the image has come before in this epoch; above 0 only when balanced sampling repeats it.
    pub repeat: usize,
}

/// What a stream of random numbers is for; each has its own.
#[derive(Clone, Copy)]
enum Purpose {
    Order = 1,
    Augment = 2,
}

/// The random numbers of one (seed, epoch, purpose, index, repeat), independent of any drawn before.
fn stream(seed: u64, epoch: usize, purpose: Purpose, draw: Draw) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(epoch as u64).to_le_bytes());
    key[16..24].copy_from_slice(&(draw.index as u64).to_le_bytes());
    // An epoch has far fewer than 2^56 draws: the purpose takes the top byte.
    key[24..].copy_from_slice(&((purpose as u64) << 56 | draw.repeat as u64).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// The random numbers that augment one image.
pub(super) fn augment_rng(seed: u64, epoch: usize, draw: Draw) -> ChaCha8Rng {
    stream(seed, epoch, Purpose::Augment, draw)
}

/// Every image once, in the data set's order or shuffled.
pub(super) fn every_image(count: usize, shuffle: bool, seed: u64, epoch: usize) -> Vec<Draw> {
    let mut order: Vec<Draw> = (0..count).map(|index| Draw { index, repeat: 0 }).collect();
    if shuffle {
        order.shuffle(&mut stream(seed, epoch, Purpose::Order, Draw { index: 0, repeat: 0 }));
    }
    order
}

/// As many draws as images, every class (in a tree: deepest label) that has images equally often (to within one), shuffled. An image comes again only
/// after all others of its class.
pub(super) fn balanced(dataset: &Dataset, seed: u64, epoch: usize) -> Vec<Draw> {
    let mut members = vec![Vec::new(); dataset.classes.len()];
    for (index, item) in dataset.items.iter().enumerate() {
        if let Some(class) = dataset.stratum(item) {
            members[class].push(index);
        }
    }
    members.retain(|m| !m.is_empty());
    let mut rng = stream(seed, epoch, Purpose::Order, Draw { index: 0, repeat: 0 });
    // Which classes get one more where the count does not divide changes by epoch.
    members.shuffle(&mut rng);
    let (total, classes) = (dataset.items.len(), members.len());
    let mut order = Vec::with_capacity(total);
    for (place, class) in members.iter_mut().enumerate() {
        let share = total / classes + usize::from(place < total % classes);
        for at in 0..share {
            let (repeat, within) = (at / class.len(), at % class.len());
            if within == 0 {
                class.shuffle(&mut rng);
            }
            order.push(Draw { index: class[within], repeat });
        }
    }
    order.shuffle(&mut rng);
    order
}
