//! `peftk explain`: what it finds where the answer is known, its files for every task, its refusals.

use std::path::Path;

use image::{Rgb, RgbImage};
use peftk::config::ModelSource;
use peftk::cpu::Cpu;
use peftk::data::{Source, decode};
use peftk::explain::Explainer;
use peftk::train::Ui;
use peftk::train::loaded::load;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::tasks::laid_out;
use crate::{done, failure, peftk, pictures, text};

/// Side of an image, of a patch and of the square that decides.
const SIDE: u32 = 84;
const PATCH: u32 = 14;
const COLOURS: [(&str, [u8; 3]); 3] = [("blue", [20, 40, 220]), ("green", [20, 190, 40]), ("red", [220, 30, 30])];

/// Grey noise with a square of the class's colour somewhere, and where that is.
fn planted(rng: &mut ChaCha8Rng, colour: [u8; 3]) -> (RgbImage, (u32, u32)) {
    let (left, top) = (rng.random_range(0..=SIDE - PATCH), rng.random_range(0..=SIDE - PATCH));
    let image = RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let level = rng.random_range(60..=190);
        let inside = (left..left + PATCH).contains(&x) && (top..top + PATCH).contains(&y);
        Rgb(if inside { colour } else { [level; 3] })
    });
    (image, (left, top))
}

/// Only the square tells the classes apart, so the highest patch of the class's map has to lie on it. By chance a patch does in 10 % of images.
#[test]
fn the_gradient_finds_what_decides() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut places = Vec::new();
    for (part, each) in [("train", 60), ("val", 20)] {
        for (class, colour) in COLOURS {
            let folder = dir.join("data").join(part).join(class);
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..each {
                let (image, place) = planted(&mut rng, colour);
                let path = folder.join(format!("{number:02}.png"));
                image.save(&path).unwrap();
                if part == "val" {
                    places.push((path, place));
                }
            }
        }
    }
    let train =
        "train --data data --backbone random:micro --input-size 84 --batch-size 15 --augment none --seed 2 --quiet";
    for (run, flags) in [
        ("full", "--strategy full --lr 5e-4 --epochs 10"),
        ("dora", "--strategy dora --lr 5e-3 --targets all-linear --epochs 10"),
        ("cls", "--strategy full --lr 5e-4 --epochs 20 --pool cls"),
    ] {
        done(dir, &format!("{train} {flags} --out {run}"));
        let source = ModelSource::Run(dir.join(run));
        let loaded = load(Cpu::new(None).unwrap(), &source, None, None, &Ui::new(true)).unwrap();
        let explainer = Explainer::new(&loaded.model.vit, &loaded.model.params).unwrap();
        let grid = explainer.grid();
        assert_eq!(grid, (SIDE / PATCH) as usize);
        let (mut right, mut found, mut chance, mut by_rollout) = (0, 0, 0.0, 0);
        for (path, (left, top)) in &places {
            let square = decode(&Source::File(path.clone())).unwrap().pixels;
            let (logits, rollout) = explainer.look(&square, true).unwrap();
            let class = (0..3).fold(0, |best, class| if logits[class] > logits[best] { class } else { best });
            right += usize::from(path.parent().unwrap().ends_with(COLOURS[class].0));
            let lies_on = |patch: usize| {
                let (x, y) = ((patch % grid) as u32 * PATCH, (patch / grid) as u32 * PATCH);
                x < left + PATCH && *left < x + PATCH && y < top + PATCH && *top < y + PATCH
            };
            let on_highest = |map: &[f64]| {
                lies_on((0..map.len()).fold(0, |best, patch| if map[patch] > map[best] { patch } else { best }))
            };
            found += usize::from(on_highest(&explainer.gradients(&square, &[class]).unwrap()[0]));
            by_rollout += usize::from(on_highest(&rollout.unwrap()));
            chance += (0..grid * grid).filter(|&patch| lies_on(patch)).count() as f64 / (grid * grid) as f64;
        }
        let count = places.len();
        let said =
            format!("{run}: {right} right of {count}, found {found}, by rollout {by_rollout}, by chance {chance:.1}");
        println!("{said}");
        assert!(right * 10 >= count * 9, "{said}");
        assert!(found * 10 >= count * 8, "{said}");
    }
}

/// Names in a folder, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn train(dir: &Path, data: &str, more: &str, run: &str) {
    let flags = "--backbone random:micro --input-size 28 --batch-size 8 --epochs 2 --quiet";
    // Of a flag that is given twice the last counts nowhere: the test's own come instead.
    let flags =
        if more.contains("--backbone") { flags.replace("--backbone random:micro ", "") } else { flags.to_owned() };
    done(dir, &format!("train --data {data} {flags} {more} --out {run}"));
}

#[test]
fn classes_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 6, 1);
    train(dir, "data", "--strategy lora", "run");
    let predicted = lines(&done(dir, "predict --model run --json data/disc data/flat/000.png"));
    let out = done(dir, "explain --model run --json --out made/here data/disc data/flat/000.png");
    let explained = lines(&out);
    assert_eq!(explained.len(), 7);
    for (explained, predicted) in explained.iter().zip(&predicted) {
        let most = predicted["probs"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).fold(0.0, f64::max);
        assert_eq!([&explained["path"], &explained["label"]], [&predicted["path"], &predicted["label"]]);
        assert_eq!(explained["predicted"], predicted["label"]);
        assert!((explained["prob"].as_f64().unwrap() - most).abs() < 1e-6, "{explained} {predicted}");
        assert_eq!(explained["method"], json!(["rollout", "gradient"]));
        let files = explained["files"].as_array().unwrap();
        assert_eq!(files.len(), 2);
        for file in files {
            let picture = image::open(dir.join(file.as_str().unwrap())).unwrap();
            assert_eq!((picture.width(), picture.height()), (448, 448));
        }
    }
    // Two are called 000.png.
    assert_eq!(explained[0]["files"], json!(["made/here/disc_000.rollout.png", "made/here/disc_000.gradient.png"]));
    assert_eq!(explained[1]["files"], json!(["made/here/001.rollout.png", "made/here/001.gradient.png"]));
    assert_eq!(explained[6]["files"][0], "made/here/flat_000.rollout.png");
    assert_eq!(names(&dir.join("made/here")).len(), 14);

    let label = predicted[0]["label"].as_str().unwrap();
    let line = done(dir, "explain --model run data/disc/000.png --method gradient");
    let (start, end) = (format!("data/disc/000.png\t{label}\t0."), "\texplained/000.gradient.png\n");
    assert!(line.starts_with(&start) && line.ends_with(end), "{line}");
    assert_eq!(names(&dir.join("explained")), ["000.gradient.png"]);
    let asked = "explain --model run data/disc/000.png --label stripes --label flat,disc --out asked --json";
    let asked = &lines(&done(dir, asked))[0];
    assert_eq!(asked["label"], json!(["stripes", "flat", "disc"]));
    let sum: f64 = asked["prob"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5);
    let pictures = ["disc", "flat", "stripes"].map(|label| format!("000.gradient.{label}.png"));
    assert_eq!(names(&dir.join("asked")), [&pictures[..], &["000.rollout.png".into()]].concat());
    // What is predicted and what is asked for are explained alike.
    let bytes = |file: &str| std::fs::read(dir.join(file)).unwrap();
    assert!(bytes("explained/000.gradient.png") == bytes(&format!("asked/000.gradient.{label}.png")));
    // One label's picture is not another's.
    assert!(bytes("asked/000.gradient.disc.png") != bytes("asked/000.gradient.flat.png"));

    // The same from its parts, in other numbers of threads, and cropped.
    let parts = "explain --backbone random:micro --adapter run/adapter --input-size 28 --out parts data/disc/000.png";
    let output = crate::command(dir, parts).env("RAYON_NUM_THREADS", "3").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    for picture in names(&dir.join("parts")) {
        assert!(bytes(&format!("parts/{picture}")) == bytes(&format!("made/here/disc_{picture}")), "{picture}");
    }
    let other = "explain --model run --input-size 42 --resize crop --out large data/disc/001.png --quiet";
    let output = peftk(dir, other);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    assert_eq!(image::open(dir.join("large/001.rollout.png")).unwrap().width(), 462);
}

#[test]
fn every_strategy_and_registers_are_explained() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 5, 1);
    for more in [
        "--strategy full",
        "--strategy freeze --pool cls",
        "--strategy lora --targets all-linear --rank 3 --backbone random:micro-reg",
        "--strategy dora --targets all-linear --pool cls --memory lean",
    ] {
        train(dir, "data", more, "run");
        done(dir, "explain --model run --out pictures data/flat --quiet");
        assert_eq!(names(&dir.join("pictures")).len(), 10, "{more}");
        // Merged into one model it is explained alike, but for rounding.
        done(dir, "merge --model run --out merged");
        done(dir, "explain --backbone merged --input-size 28 --out again data/flat --quiet");
        for picture in names(&dir.join("pictures")) {
            let of = |folder: &str| image::open(dir.join(folder).join(&picture)).unwrap().into_rgb8();
            let (one, other) = (of("pictures"), of("again"));
            let far = one.as_raw().iter().zip(other.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(far <= 3, "{more}: {picture} differs by {far} from the merged model's");
        }
        for folder in ["run", "pictures", "merged", "again"] {
            std::fs::remove_dir_all(dir.join(folder)).unwrap();
        }
    }
}

#[test]
fn labels_are_explained_each_on_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    laid_out(&dir.join("data"), "multilabel");
    for part in ["train", "val"] {
        let table = dir.join("data").join(part).join("labels.csv");
        let text = std::fs::read_to_string(&table).unwrap().replacen(
            "disc,flat,even",
            "../disc,\"flat, or not\",K\u{e4}se 1",
            1,
        );
        std::fs::write(table, text).unwrap();
    }
    train(dir, "data", "--strategy full", "run");
    let image = "data/val/disc/000.png";
    let with_threshold = |threshold: f64| {
        let path = dir.join("run/labels.json");
        let mut labels: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        labels["thresholds"] = json!([threshold, threshold, threshold]);
        std::fs::write(path, labels.to_string()).unwrap();
    };
    with_threshold(1e-6);
    let all = &lines(&done(dir, &format!("explain --model run --json {image}")))[0];
    assert_eq!(all["label"], json!(["../disc", "flat, or not", "K\u{e4}se 1"]));
    assert_eq!(all["label"], all["predicted"]);
    let expected =
        ["000.gradient.K\u{e4}se_1.png", "000.gradient._disc.png", "000.gradient.flat,_or_not.png", "000.rollout.png"];
    assert_eq!(names(&dir.join("explained")), expected);
    // Given none, the most probable is explained, and it is said.
    with_threshold(1.0 - 1e-9);
    let output = peftk(dir, &format!("explain --model run --json --out none {image}"));
    let line = &lines(&text(&output.stdout))[0];
    let probs: Vec<f64> = all["prob"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).collect();
    let most = (0..3).fold(0, |best, label| if probs[label] > probs[best] { label } else { best });
    assert_eq!(line["label"], json!([all["label"][most]]));
    assert_eq!(line["predicted"], json!([]));
    assert_eq!(names(&dir.join("none")).len(), 2);
    let note = format!(
        "{image}: given no label; the most probable one, {}, is explained",
        all["label"][most].as_str().unwrap()
    );
    assert!(text(&output.stderr).contains(&note), "{}", text(&output.stderr));
    // A name with a comma in it.
    let mut command = crate::command(dir, &format!("explain --model run --json --out asked {image} --label"));
    let output = command.arg("flat, or not").output().unwrap();
    assert_eq!(lines(&text(&output.stdout))[0]["label"], json!(["flat, or not"]));
}

#[test]
fn a_way_through_a_tree_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    laid_out(&dir.join("data"), "hierarchical");
    train(dir, "data", "--strategy dora", "run");
    let image = "data/val/plain/flat/000.png";
    let line = &lines(&done(dir, &format!("explain --model run --json {image}")))[0];
    let way: Vec<&str> = line["label"].as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
    assert_eq!((line["label"].clone(), way.len()), (line["predicted"].clone(), 2));
    let mut expected = way.iter().map(|label| format!("000.gradient.{label}.png")).collect::<Vec<_>>();
    expected.push("000.rollout.png".into());
    expected.sort();
    assert_eq!(names(&dir.join("explained")), expected);
    let asked = &lines(&done(dir, &format!("explain --model run --json {image} --label plain/flat,round")))[0];
    assert_eq!(asked["label"], json!(["flat", "round"]));
}

#[test]
fn what_cannot_be_explained_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    pictures(&dir.join("data"), 5, 1);
    train(dir, "data", "--strategy freeze", "run");
    std::fs::write(dir.join("file"), "no image").unwrap();
    std::fs::create_dir(dir.join("empty")).unwrap();
    for (flags, named) in [
        (
            "data/disc --label disk",
            "--label 'disk': the classifier has no such label; it has 'disc', 'flat', 'stripes'",
        ),
        ("data/disc --label disc,", "--label ''"),
        ("nothing.png", "nothing.png"),
        ("empty", "no images in this folder"),
        ("file", "file:"),
        ("data/disc --out file", "file"),
        ("data/disc --method saliency", "--method"),
        ("data/disc --input-size 27", "--input-size 27"),
        ("data/disc --device cpu --precision bf16", "--precision bf16"),
    ] {
        let error = failure(dir, &format!("explain --model run --quiet {flags}"), 2);
        assert!(error.contains(named), "{flags}: {error}");
    }
    // The one image that is no image stopped it after the folder was made; nothing else wrote anything.
    assert!(names(&dir.join("explained")).is_empty());
}
