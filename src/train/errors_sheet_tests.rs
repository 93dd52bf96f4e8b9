use std::sync::Arc;

use super::*;
use crate::data::{GreyImages, Label};

fn items(count: usize) -> Vec<Item> {
    let images = Arc::new(GreyImages { name: "grey".into(), width: 4, height: 2, pixels: vec![90; count * 8] });
    let source = |index| Source::Grey { images: images.clone(), index };
    (0..count).map(|index| Item { source: source(index), label: Label::Class(0) }).collect()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

fn listed(labels: &Labels, batch: &Batch, logits: &[f32]) -> Vec<(String, String, String, f64)> {
    let mut errors = Errors::new(labels);
    errors.add(batch, logits);
    let of = |wrong: WrongImage| {
        (wrong.source.name(), wrong.truth, wrong.predicted, (wrong.probability * 1000.0).round() / 1000.0)
    };
    errors.ranked(&items(4)).into_iter().map(of).collect()
}

fn error(image: usize, truth: &str, predicted: &str, probability: f64) -> (String, String, String, f64) {
    (format!("grey[{image}]"), truth.to_owned(), predicted.to_owned(), probability)
}

#[test]
fn classes_by_how_sure_the_answer_was() {
    let labels = Labels::new(Task::Multiclass, &names(&["a", "b"]));
    let batch = Batch { labels: vec![0, 0, 1, 1], indices: vec![3, 1, 2, 0], ..Batch::default() };
    // Image 3 is taken for b by a little, 1 for a, 2 for a by far, 0 for a by as little.
    let logits = [0.0, 1.0, 2.0, 0.0, 3.0, 0.0, 1.0, 0.0];
    assert_eq!(
        listed(&labels, &batch, &logits),
        [error(2, "b", "a", 0.953), error(0, "b", "a", 0.731), error(3, "a", "b", 0.731)]
    );
}

#[test]
fn labels_by_how_far_they_are_on_the_wrong_side() {
    let mut labels = Labels::new(Task::Multilabel, &names(&["a", "b"]));
    // Image 0 misses a (probability 0.12) and has b; 1 is given b wrongly (0.73); nobody knows of 2.
    let batch = Batch { targets: vec![1.0, 1.0, 0.0, 0.0, -1.0, -1.0], indices: vec![0, 1, 2], ..Batch::default() };
    let logits = [-2.0, 2.0, -1.0, 1.0, 3.0, -3.0];
    let expected = [error(0, "a", "not a", 0.881), error(1, "not b", "b", 0.731)];
    assert_eq!(listed(&labels, &batch, &logits), expected);
    // From 0.15 on an image is given a: the miss is a near one, and goes behind; image 1 (0.27) is given it wrongly, by less than b.
    labels.thresholds = Some(vec![0.15, 0.5]);
    let [first, second] = expected;
    assert_eq!(listed(&labels, &batch, &logits), [second, error(1, "not a", "a", 0.269), first]);
}

#[test]
fn ways_by_their_first_wrong_turn() {
    let parents = [None, None, Some(0), Some(0), Some(1)];
    let all = names(&["animal", "thing", "cat", "dog", "car"]);
    let (tree, order) = Tree::new(&all, &parents, &Tree::siblings(&parents)).unwrap();
    assert_eq!(order, [0, 1, 2, 3, 4]);
    let rows: Vec<f32> = [2, 3, 2, 4].iter().flat_map(|&leaf| tree.row(&[leaf], &[]).unwrap()).collect();
    let labels = Labels { tree: Some(tree), ..Labels::new(Task::Hierarchical, &all) };
    let batch = Batch { targets: rows, indices: vec![0, 1, 2, 3], ..Batch::default() };
    #[rustfmt::skip]
    let logits = [
        2.0, 0.0, 1.0, 0.0, -1.0, // right: animal, cat
        2.0, 0.0, 1.0, 0.0, -1.0, // a dog taken for a cat
        0.0, 3.0, 1.0, 0.0, 2.0,  // a cat taken for a car
        0.0, 3.0, 1.0, 0.0, -2.0, // a thing, but no car
    ];
    assert_eq!(
        listed(&labels, &batch, &logits),
        [
            error(2, "animal > cat", "thing > car", 0.953),
            error(3, "thing > car", "thing", 0.881),
            error(1, "animal > dog", "animal > cat", 0.731)
        ]
    );
}

#[test]
fn the_sheet_has_a_place_for_each() {
    let size = |png: &[u8]| image::load_from_memory(png).unwrap().into_rgb8();
    let wrong = |item: Item| WrongImage {
        source: item.source,
        truth: "a, \"very\" long name of a class".into(),
        predicted: "K\u{e4}se".into(),
        probability: 0.5,
        confidence: 0.5,
    };
    let list: Vec<WrongImage> = items(80).into_iter().map(wrong).collect();
    assert_eq!(size(&sheet(&list).unwrap()).dimensions(), (810, 1640));
    let few = size(&sheet(&list[..7]).unwrap());
    assert_eq!(few.dimensions(), (810, 328));
    // Grey in the middle, white above it: the image is twice as wide as it is high.
    assert_eq!((few.get_pixel(70, 70).0, few.get_pixel(70, 30).0), ([90; 3], [255; 3]));
    let coloured = |from: u32, colour: [u8; 3]| {
        (0..LINE as u32)
            .flat_map(|y| (0..134).map(move |x| (x, y)))
            .filter(|&(x, y)| few.get_pixel(x, from + y).0 == colour)
            .count()
    };
    let caption = |number: usize| (GAP + SIDE + 3 + number * LINE) as u32;
    assert!(coloured(caption(0), BLACK) > 100 && coloured(caption(1), RED) > 30 && coloured(caption(2), RED) > 30);
    assert!(size(&sheet(&[]).unwrap()).pixels().any(|pixel| pixel.0 == BLACK));

    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("new"), &list[..1]).unwrap();
    assert_eq!(
        std::fs::read_to_string(dir.path().join("new/errors.csv")).unwrap(),
        "path,truth,predicted,probability\ngrey[0],\"a, \"\"very\"\" long name of a class\",K\u{e4}se,0.5\n"
    );
    assert!(dir.path().join("new/errors.png").is_file());
}
