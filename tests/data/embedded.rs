use std::collections::HashSet;

use peftk::config::Task;
use peftk::data::{ImageCache, OpenOptions, embedded, verify};

use crate::{folder, message, options};

#[test]
fn every_embedded_image_decodes_small() {
    let mut splits = embedded(&options()).expect("embedded data");
    let val = splits.val.as_mut().expect("validation split");
    assert_eq!((splits.train.classes.len(), splits.train.items.len(), val.items.len()), (20, 809, 347));
    assert_eq!(splits.train.classes[0], "animals__birds");
    assert!(splits.train.class_counts().iter().chain(&val.class_counts()).all(|&n| n > 0));
    let names: HashSet<_> = splits.train.items.iter().chain(&val.items).map(|i| i.source.name()).collect();
    assert_eq!(names.len(), 809 + 347, "a name comes twice");

    let cache = ImageCache::default();
    let bad = verify(&mut [&mut splits.train, val], false, &cache, &|_, _| {}).expect("all readable");
    assert!(bad.is_empty());
    for item in splits.train.items.iter().chain(&val.items) {
        let image = cache.get(&item.source).expect("cached");
        let (short, long) = (image.width.min(image.height), image.width.max(image.height));
        assert!(short <= 70 && long <= 140, "{}: {} x {}", item.source, image.width, image.height);
    }
}

#[test]
fn shots_and_other_validation_data_apply() {
    let splits = embedded(&OpenOptions { shots: Some(3), ..options() }).expect("embedded data");
    assert_eq!(splits.train.class_counts(), [3; 20]);
    let dir = folder(&["animals__bugs/a.png"]);
    let own = OpenOptions { val_data: Some(dir.path().to_owned()), ..options() };
    let val = embedded(&own).expect("embedded data").val.expect("given");
    assert_eq!(val.class_counts()[1], 1);
}

#[test]
fn it_is_not_multi_label() {
    let asked = OpenOptions { task: Some(Task::Multilabel), ..options() };
    let text = message(embedded(&asked), std::path::Path::new("/nowhere"));
    assert_eq!(text, "--task multilabel: the embedded data has one class an image; give --data");
}
