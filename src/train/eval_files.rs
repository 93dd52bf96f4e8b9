//! What `peftk eval --out` writes: a table by class, and of a multi-class set which classes were taken for which.

use std::path::Path;

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::evaluate::Measures;
use crate::io::atomic;
use crate::task::metrics::{ClassCounts, ClassMetrics};
use crate::{Error, Result};

/// Side of the picture in pixels, about; a cell is at least [`LEAST_CELL`].
const PICTURE: usize = 640;
const LEAST_CELL: usize = 2;
/// Between cells that are large enough for it.
const GAP: usize = 1;
/// Blue of Okabe and Ito, for a whole row.
const BLUE: [f64; 3] = [0.0, 114.0, 178.0];

/// Writes `classes.csv`, and for a multi-class set `confusion.csv` and `confusion.png`.
///
/// # Errors
/// A folder that cannot be made, a file that cannot be written.
pub fn write(dir: &Path, labels: &[String], measures: &Measures) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let (table, confusion) = match measures {
        Measures::Classes(metrics) => (of_classes(labels, &metrics.per_class), Some(metrics)),
        Measures::Tree(metrics) => (of_classes(labels, &metrics.per_label), None),
        Measures::Labels(metrics) => {
            let rows = labels.iter().zip(&metrics.per_label).map(|(label, counts)| {
                let precision = counts.average_precision.map_or(String::new(), |value| value.to_string());
                let [recall, exact, f1] = shares(counts.support, counts.predicted, counts.correct);
                let (support, predicted, correct) = (counts.support, counts.predicted, counts.correct);
                format!("{},{support},{predicted},{correct},{exact},{recall},{f1},{precision}\n", cell(label))
            });
            let head = "label,images,predicted,correct,precision,recall,f1,average_precision\n";
            (head.to_owned() + &rows.collect::<String>(), None)
        }
    };
    atomic::write_file(&dir.join("classes.csv"), table.as_bytes())?;
    if let Some(metrics) = confusion {
        atomic::write_file(&dir.join("confusion.csv"), matrix(labels, metrics).as_bytes())?;
        atomic::write_file(&dir.join("confusion.png"), &picture(metrics)?)?;
    }
    Ok(())
}

fn of_classes(labels: &[String], per_class: &[ClassCounts]) -> String {
    let rows = labels.iter().zip(per_class).map(|(label, counts)| {
        let [recall, precision, f1] = shares(counts.support, counts.predicted, counts.correct);
        let (support, predicted, correct) = (counts.support, counts.predicted, counts.correct);
        format!("{},{support},{predicted},{correct},{precision},{recall},{f1}\n", cell(label))
    });
    "class,images,predicted,correct,precision,recall,f1\n".to_owned() + &rows.collect::<String>()
}

/// Recall, precision and F1; empty where nothing is to be divided by.
fn shares(support: u64, predicted: u64, correct: u64) -> [String; 3] {
    let share =
        |part: u64, whole: u64| if whole == 0 { String::new() } else { (part as f64 / whole as f64).to_string() };
    [share(correct, support), share(correct, predicted), share(2 * correct, support + predicted)]
}

/// A row a true class, a column a predicted one.
fn matrix(labels: &[String], metrics: &ClassMetrics) -> String {
    let names: Vec<String> = labels.iter().map(|label| cell(label)).collect();
    let mut text = format!("true \\ predicted,{}\n", names.join(","));
    for (name, row) in names.iter().zip(&metrics.confusion) {
        let counts: Vec<String> = row.iter().map(u64::to_string).collect();
        text.push_str(&format!("{name},{}\n", counts.join(",")));
    }
    text
}

/// A cell of CSV, in quotes where it needs them.
pub(super) fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

/// The matrix as a picture: true classes from top to bottom, predicted ones from left to right, the darker the larger a share of its row.
fn picture(metrics: &ClassMetrics) -> Result<Vec<u8>> {
    let classes = metrics.confusion.len().max(1);
    let size = (PICTURE / classes).max(LEAST_CELL);
    let side = classes * size;
    let inner = if size >= 8 { size - GAP } else { size };
    let mut pixels = vec![255_u8; side * side * 3];
    for (y, row) in metrics.confusion.iter().enumerate() {
        let all = row.iter().sum::<u64>().max(1) as f64;
        for (x, &count) in row.iter().enumerate() {
            let share = count as f64 / all;
            // A root, so that few are seen at all.
            let colour = BLUE.map(|level| (255.0 - share.sqrt() * (255.0 - level)).round() as u8);
            for line in 0..inner {
                let start = ((y * size + line) * side + x * size) * 3;
                pixels[start..start + inner * 3].chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&colour));
            }
        }
    }
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&pixels, side as u32, side as u32, ExtendedColorType::Rgb8)
        .map_err(|e| Error::Internal(format!("the confusion matrix is no PNG: {e}")))?;
    Ok(png)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::metrics::ClassCounter;
    use crate::task::multilabel_metrics::LabelCounter;

    #[test]
    fn tables_and_a_picture() {
        let mut counter = ClassCounter::new(3);
        // True 0, 0, 0, 1; taken for 0, 0, 1, 0. Class 2 never occurs.
        for (truth, taken) in [(0, 0), (0, 0), (0, 1), (1, 0)] {
            let mut logits = [0.0; 3];
            logits[taken] = 1.0;
            counter.add(&logits, &[truth]);
        }
        let labels = ["a".to_owned(), "b, c".into(), "d\"".into()];
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("made/here");
        write(&out, &labels, &Measures::Classes(counter.metrics())).unwrap();
        let read = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
        let third = 2.0 / 3.0;
        assert_eq!(
            read("classes.csv"),
            format!(
                "class,images,predicted,correct,precision,recall,f1\na,3,3,2,{third},{third},{third}\n\"b, c\",1,1,0,0,0,0\n\"d\"\"\",0,0,0,,,\n"
            )
        );
        assert_eq!(
            read("confusion.csv"),
            "true \\ predicted,a,\"b, c\",\"d\"\"\"\na,2,1,0\n\"b, c\",1,0,0\n\"d\"\"\",0,0,0\n"
        );
        let picture = image::open(out.join("confusion.png")).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (639, 639));
        let at = |x: u32, y: u32| picture.get_pixel(x * 213 + 100, y * 213 + 100).0;
        assert_eq!((at(0, 1), at(1, 1), at(2, 2)), ([0, 114, 178], [255; 3], [255; 3]));
        assert!(at(0, 0)[0] < at(1, 0)[0] && at(1, 0)[0] < 255, "two thirds are darker than one");
    }

    #[test]
    fn a_table_of_labels() {
        let mut counter = LabelCounter::new(2, None);
        counter.add(&[1.0, -1.0, 2.0, -1.0], &[1.0, 0.0, 0.0, 0.0]);
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &["a".to_owned(), "b".into()], &Measures::Labels(counter.metrics())).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("classes.csv")).unwrap(),
            format!(
                "label,images,predicted,correct,precision,recall,f1,average_precision\na,1,2,1,0.5,1,{},0.5\nb,0,0,0,,,,\n",
                2.0 / 3.0
            )
        );
        assert!(!dir.path().join("confusion.csv").exists());
    }
}
