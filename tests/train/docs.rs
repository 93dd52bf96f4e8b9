//! The commands of docs/tasks.md and docs/tutorial.md, in their order, on small pictures laid out as they say.

use std::path::Path;

use crate::{done, pictures};

fn laid_out(dir: &Path) {
    for (part, seed) in [("train", 1), ("val", 2)] {
        let (birds, scenes, zoo) =
            (dir.join("birds").join(part), dir.join("scenes").join(part), dir.join("zoo").join(part));
        for place in [&birds, &scenes, &zoo] {
            pictures(place, 6, seed);
        }
        let to = |from: &Path, name: &str, to: &str| {
            std::fs::create_dir_all(from.join(to).parent().unwrap()).unwrap();
            std::fs::rename(from.join(name), from.join(to)).unwrap();
        };
        to(&birds, "disc", "robin");
        to(&birds, "flat", "wren");
        std::fs::remove_dir_all(birds.join("stripes")).unwrap();
        let mut table = "filename,beach,people,night\n".to_owned();
        for (kind, row) in [("disc", "1,1,0"), ("flat", "1,,0"), ("stripes", "0,0,1")] {
            (0..6).for_each(|number| table.push_str(&format!("{kind}/{number:03}.png,{row}\n")));
        }
        std::fs::write(scenes.join("labels.csv"), table).unwrap();
        to(&zoo, "disc", "animal/cat");
        to(&zoo, "flat", "animal/dog");
        to(&zoo, "stripes", "vehicle/bus");
        pictures(&zoo, 6, seed + 2);
        to(&zoo, "stripes", "vehicle/car");
        std::fs::remove_dir_all(zoo.join("disc")).unwrap();
        std::fs::remove_dir_all(zoo.join("flat")).unwrap();
    }
}

#[test]
fn the_commands_of_tasks_work() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    laid_out(dir);
    let text = include_str!("../../docs/tasks.md");
    let mut count = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("    peftk ")) {
        // No test downloads weights.
        let line = line.replace("--backbone dinov2-small", "--backbone random:micro --input-size 28 --epochs 1");
        let line = line.replace("--backbone merged", "--backbone merged --input-size 28");
        let out = done(dir, &line);
        assert!(!out.is_empty() || line.starts_with("merge"), "{line} said nothing");
        count += 1;
    }
    assert_eq!(count, 15, "commands in docs/tasks.md");
}

#[test]
fn the_commands_of_the_tutorial_work() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("pictures"), 15, 1);
    for (from, to) in [("disc", "birds"), ("flat", "bugs"), ("stripes", "mammals")] {
        std::fs::rename(dir.join("pictures").join(from), dir.join("pictures").join(to)).unwrap();
    }
    let text = include_str!("../../docs/tutorial.md");
    let mut count = 0;
    for line in text.lines().filter_map(|line| line.strip_prefix("    peftk ")) {
        // No test downloads weights.
        let epochs = if line.starts_with("plan") { "" } else { " --epochs 1" };
        let line = line.replace("--backbone dinov2-small", &format!("--backbone random:micro --input-size 28{epochs}"));
        let out = done(dir, &line);
        assert!(!out.is_empty() || line.starts_with("merge"), "{line} said nothing");
        count += 1;
    }
    assert_eq!(count, 9, "commands in docs/tutorial.md");
    for file in
        ["pictures.png", "report/report.html", "mistakes/errors.png", "mistakes/confusion.png", "merged/config.json"]
    {
        assert!(dir.join(file).is_file(), "{file}");
    }
}
