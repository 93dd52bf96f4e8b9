//! What a report is made of.

use std::path::Path;

use peftk::compare::report::Extras;
use peftk::compare::results::{Outcome, Results};
use peftk::compare::{advice, example};

use crate::harness::{Needs, Test};
use crate::made;
use crate::tags;

pub const TESTS: &[Test] = &[
    plain("files::every_file_is_there_and_well_formed", every_file_is_there_and_well_formed),
    plain("files::the_same_results_give_the_same_bytes", the_same_results_give_the_same_bytes),
    plain("files::every_number_is_in_the_csv", every_number_is_in_the_csv),
    plain("files::the_json_reads_back", the_json_reads_back),
    plain("files::page_and_markdown_say_the_same", page_and_markdown_say_the_same),
    plain("files::names_are_escaped", names_are_escaped),
    plain("files::charts_agree_in_size", charts_agree_in_size),
    plain("files::the_page_needs_no_network_and_is_small", the_page_needs_no_network_and_is_small),
];

pub const fn plain(name: &'static str, run: fn()) -> Test {
    Test { name, needs: Needs::Nothing, run }
}

fn read(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn charts(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir.join("charts"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Everything that must hold of any report, however odd its results.
pub fn check(dir: &Path) {
    for name in ["report.html", "report.md", "results.csv", "results.json"] {
        let text = read(dir, name);
        assert!(!text.contains("NaN") && !text.contains("inf %"), "{name} holds what is no number");
    }
    assert_eq!(tags::problem(&read(dir, "report.html")), None);
    for name in charts(dir) {
        if name.ends_with(".svg") {
            let svg = read(dir, &format!("charts/{name}"));
            assert_eq!(tags::problem(&svg), None, "{name}");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
        }
    }
}

fn every_file_is_there_and_well_formed() {
    let (results, extras) = made::full();
    let dir = made::written("full", &results, &extras);
    check(&dir);
    let names = ["accuracy-by-dataset", "accuracy-memory", "accuracy-parameters", "accuracy", "curves", "memory"];
    let mut expected: Vec<String> = names.iter().flat_map(|n| [format!("{n}.png"), format!("{n}.svg")]).collect();
    expected.sort();
    assert_eq!(charts(&dir), expected);
    let page = read(&dir, "report.html");
    for word in
        ["What to choose", "invented numbers", "Published results", "Confident errors", "Trials of learning rates"]
    {
        assert!(page.contains(word), "{word}");
    }
    assert_eq!(page.matches("<svg ").count(), names.len());
    let markdown = read(&dir, "report.md");
    for name in names {
        assert!(markdown.contains(&format!("(charts/{name}.svg)")), "{name}");
    }
}

fn the_same_results_give_the_same_bytes() {
    let (results, extras) = made::full();
    let (a, b) = (made::written("same-a", &results, &extras), made::written("same-b", &results, &extras));
    let mut names: Vec<String> = charts(&a).iter().map(|name| format!("charts/{name}")).collect();
    names.extend(["report.html", "report.md", "results.csv", "results.json"].map(str::to_owned));
    for name in names {
        assert!(std::fs::read(a.join(&name)).unwrap() == std::fs::read(b.join(&name)).unwrap(), "{name}");
    }
}

/// Lines of a CSV file as cells.
fn parsed(text: &str) -> Vec<Vec<String>> {
    let line = |line: &str| {
        let (mut cells, mut cell, mut is_quoted) = (Vec::new(), String::new(), false);
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '"' if is_quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
                '"' => is_quoted = !is_quoted,
                ',' if !is_quoted => cells.push(std::mem::take(&mut cell)),
                c => cell.push(c),
            }
        }
        cells.push(cell);
        cells
    };
    text.lines().map(line).collect()
}

fn every_number_is_in_the_csv() {
    let mut results = example::results();
    results.datasets[1].name = "a, \"b\"".into();
    let dir = made::written("csv", &results, &Extras::default());
    let lines = parsed(&read(&dir, "results.csv"));
    assert_eq!(lines.len(), 1 + results.cells.len());
    let head = &lines[0];
    for (line, cell) in lines[1..].iter().zip(&results.cells) {
        assert_eq!(line.len(), head.len());
        let at = |name: &str| line[head.iter().position(|h| h == name).unwrap_or_else(|| panic!("{name}"))].as_str();
        assert_eq!(at("dataset"), results.datasets[cell.dataset].name);
        assert_eq!((at("variant"), at("run")), (results.variants[cell.variant].name.as_str(), cell.run.as_str()));
        assert_eq!(at("config.lr"), "0.001");
        match &cell.outcome {
            Outcome::Failed { reason } => assert_eq!((at("state"), at("reason")), ("failed", reason.as_str())),
            Outcome::Pending => assert_eq!(at("state"), "pending"),
            Outcome::Done(m) => {
                let number = |name: &str| at(name).parse::<f64>().unwrap_or_else(|e| panic!("{name}: {e}"));
                let pairs = [
                    ("test_accuracy", m.test_accuracy),
                    ("test_loss", m.test_loss),
                    ("val_accuracy", m.val_accuracy),
                    ("best_epoch", m.best_epoch as f64),
                    ("epochs_done", m.epochs as f64),
                    ("steps", m.steps as f64),
                    ("peak_bytes", m.peak_bytes as f64),
                    ("planned_bytes", m.planned_bytes as f64),
                    ("images_per_s", m.images_per_s),
                    ("seconds_per_epoch", m.seconds_per_epoch),
                    ("train_s", m.train_s),
                    ("wall_s", m.wall_s),
                    ("energy_j", m.energy_j.unwrap()),
                    ("trained_parameters", m.trained_parameters as f64),
                    ("parameters", m.parameters as f64),
                    ("saved_bytes", m.saved_bytes as f64),
                    ("test.macro_f1", m.test_more["macro_f1"].as_f64().unwrap()),
                ];
                for (name, value) in pairs {
                    assert!(number(name) == value, "{name}: {} is not {value}", at(name));
                }
            }
        }
    }
}

fn the_json_reads_back() {
    let (results, extras) = made::full();
    let dir = made::written("json", &results, &extras);
    let text = read(&dir, "results.json");
    let back: Results = serde_json::from_str(&text).unwrap();
    assert_eq!(back, results);
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["summary"]["overall"].as_array().unwrap().len(), 4);
    assert_eq!(value["summary"]["by_dataset"].as_array().unwrap().len(), 8);
    let advice = advice::of(&results, extras.published);
    assert_eq!(value["advice"]["sentences"].as_array().unwrap().len(), advice.sentences.len());
}

fn page_and_markdown_say_the_same() {
    let (results, extras) = made::full();
    let dir = made::written("words", &results, &extras);
    let (page, markdown) = (read(&dir, "report.html"), read(&dir, "report.md"));
    let plain =
        |text: &str| text.replace("&#39;", "'").replace("&quot;", "\"").replace('\\', "").replace('\u{a0}', " ");
    let (page, markdown) = (plain(&page), plain(&markdown));
    for sentence in advice::of(&results, extras.published).sentences {
        let text = sentence.text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        assert!(page.contains(&text), "page: {text}");
        assert!(markdown.contains(&text), "markdown: {text}");
    }
    for cell in &results.cells {
        assert!(page.contains(&cell.run) && markdown.contains(&cell.run));
        let shown = match &cell.outcome {
            Outcome::Done(m) => format!("{:.1} %", 100.0 * m.test_accuracy),
            Outcome::Failed { reason } => reason.clone(),
            Outcome::Pending => "not yet".into(),
        };
        assert!(page.contains(&shown) && markdown.contains(&shown), "{shown}");
    }
}

fn names_are_escaped() {
    let (mut results, _) = made::full();
    let nasty = "</script><script>alert('1')</script>\"&|";
    results.note = Some(nasty.into());
    results.datasets[0].name = nasty.into();
    results.variants[0].name = nasty.into();
    results.device = nasty.into();
    results.protocol.rates = nasty.into();
    for cell in &mut results.cells {
        cell.config["out"] = nasty.into();
        if let Outcome::Failed { reason } = &mut cell.outcome {
            *reason = nasty.into();
        }
    }
    let dir = made::written("nasty", &results, &Extras::default());
    check(&dir);
    let page = read(&dir, "report.html");
    assert!(!page.contains("<script>alert") && page.contains("&lt;script&gt;alert(&#39;1&#39;)"));
    assert_eq!(page.matches("<script>").count(), 1);
    assert!(!read(&dir, "report.md").contains("<script>"));
}

fn charts_agree_in_size() {
    let dir = made::written("sizes", &made::large(), &Extras::default());
    check(&dir);
    for name in charts(&dir).iter().filter_map(|name| name.strip_suffix(".svg")) {
        let svg = read(&dir, &format!("charts/{name}.svg"));
        let side = |key: &str| svg.split_once(key).unwrap().1.split('"').next().unwrap().parse::<f64>().unwrap();
        let (width, height) = (side(" width=\""), side(" height=\""));
        let png = image::open(dir.join(format!("charts/{name}.png"))).unwrap().into_rgb8();
        assert_eq!(png.dimensions(), ((2.0 * width).ceil() as u32, (2.0 * height).ceil() as u32), "{name}");
        let inked = png.pixels().filter(|pixel| pixel.0 != [255; 3]).count();
        assert!(inked > 2_000, "{name} is blank");
    }
}

fn the_page_needs_no_network_and_is_small() {
    let (results, extras) = made::full();
    let dir = made::written("small", &results, &extras);
    let page = read(&dir, "report.html");
    assert!(page.len() < 600_000, "{} bytes", page.len());
    for word in ["http:", "https:", "@import", "url(", "<script src", "<link rel=\"stylesheet\""] {
        assert!(!page.contains(word), "{word}");
    }
}
