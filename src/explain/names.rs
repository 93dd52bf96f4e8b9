//! Names of the pictures, which neither images of one name nor labels of odd ones may take from each other.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Most bytes of an image's part of a name, and of a label's: file systems take 255 in all.
const LONGEST: (usize, usize) = (120, 80);

/// Hands out file names in one folder, each once.
pub struct FileNames {
    /// Of each image.
    stems: Vec<String>,
    /// Handed out, in small letters: some file systems take `A` and `a` for the same.
    taken: HashSet<String>,
}

impl FileNames {
    /// For these images. One is called by its file name without the ending; those that share that by their folder's name too, and a number where
    /// that does not help either.
    pub fn new(images: &[PathBuf]) -> Self {
        let stem = |path: &Path| safe(&lossy(path.file_stem()), LONGEST.0);
        let mut count: HashMap<String, usize> = HashMap::new();
        for path in images {
            *count.entry(stem(path).to_lowercase()).or_default() += 1;
        }
        let alone = |stem: &str| count.get(&stem.to_lowercase()) == Some(&1);
        // Those that need nothing more are served first.
        let mut taken: HashSet<String> =
            images.iter().map(|path| stem(path)).filter(|stem| alone(stem)).map(|stem| stem.to_lowercase()).collect();
        let mut name = |path: &PathBuf| {
            let stem = stem(path);
            if alone(&stem) {
                return stem;
            }
            let folder = path.parent().map(|folder| lossy(folder.file_name())).filter(|folder| !folder.is_empty());
            let wanted = folder.map_or(stem.clone(), |folder| safe(&format!("{folder}_{stem}"), LONGEST.0));
            free(&wanted, "", &mut taken)
        };
        let stems = images.iter().map(&mut name).collect();
        Self { stems, taken: HashSet::new() }
    }

    /// The name of an image's picture by a method, of a label where there may be several.
    pub fn name(&mut self, image: usize, method: &str, label: Option<&str>) -> String {
        let stem = &self.stems[image];
        let wanted = match label {
            Some(label) => format!("{stem}.{method}.{}", safe(label, LONGEST.1)),
            None => format!("{stem}.{method}"),
        };
        free(&wanted, ".png", &mut self.taken)
    }
}

/// The name, or the first with a number behind it that nobody has.
fn free(wanted: &str, ending: &str, taken: &mut HashSet<String>) -> String {
    let mut name = format!("{wanted}{ending}");
    let mut number = 2;
    while !taken.insert(name.to_lowercase()) {
        name = format!("{wanted}_{number}{ending}");
        number += 1;
    }
    name
}

fn lossy(name: Option<&std::ffi::OsStr>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `text` as a part of a file name: `_` for what separates folders, for what some file system forbids and for white space; cut where it is long.
fn safe(text: &str, most: usize) -> String {
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || r#"/\:*?"<>|"#.contains(c);
    let name: String = text.trim().chars().map(|c| if forbidden(c) { '_' } else { c }).collect();
    let end = (0..=most.min(name.len())).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    let name = name[..end].trim_matches('.');
    if name.is_empty() { "_".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_one_name_keep_their_own_pictures() {
        let images: Vec<PathBuf> = ["a/x.png", "b/x.jpg", "b/X.png", "y.png", "b_x.png", "y/..", "z.z.jpg"]
            .iter()
            .map(PathBuf::from)
            .collect();
        let mut names = FileNames::new(&images);
        let all: Vec<String> = (0..images.len()).map(|image| names.name(image, "rollout", None)).collect();
        assert_eq!(
            all,
            [
                "a_x.rollout.png",
                "b_x_2.rollout.png",
                "b_X_3.rollout.png",
                "y.rollout.png",
                "b_x.rollout.png",
                "_.rollout.png",
                "z.z.rollout.png"
            ]
        );
    }

    #[test]
    fn labels_of_any_name_are_files_of_the_folder() {
        let mut names = FileNames::new(&["x.png".into(), "x.gradient.png".into()]);
        let mut name = |label: &str| names.name(0, "gradient", Some(label));
        assert_eq!(name("cat"), "x.gradient.cat.png");
        assert_eq!(name("../a b"), "x.gradient._a_b.png");
        assert_eq!(name("a/b"), "x.gradient.a_b.png");
        assert_eq!(name("a:b"), "x.gradient.a_b_2.png");
        assert_eq!(name("A\\b"), "x.gradient.A_b_3.png");
        assert_eq!(name(".."), "x.gradient._.png");
        assert_eq!(name("K\u{e4}se"), "x.gradient.K\u{e4}se.png");
        assert!(name(&"\u{e4}".repeat(300)).len() < 120);
        // The other image's gradient picture is not the first's of a label called so.
        assert_eq!(name("gradient"), "x.gradient.gradient.png");
        assert_eq!(names.name(1, "gradient", None), "x.gradient.gradient_2.png");
    }
}
