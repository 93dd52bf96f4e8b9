//! Results that others published, to show beside one's own where the data sets are the same.

use crate::config::Strategy;

/// A published table of strategies by data sets.
#[derive(Debug)]
pub struct Published {
    /// What `--against` calls it.
    pub name: &'static str,
    /// Where it is from and how it was measured, in a sentence.
    pub source: &'static str,
    /// Its data sets.
    pub datasets: &'static [PublishedSet],
    /// A row a strategy.
    pub rows: &'static [PublishedRow],
}

/// A data set of a published table.
#[derive(Debug)]
pub struct PublishedSet {
    /// Its name there.
    pub name: &'static str,
    /// What else it is called, in small letters and digits alone.
    aliases: &'static [&'static str],
}

/// A strategy's published numbers.
#[derive(Debug)]
pub struct PublishedRow {
    /// What was trained.
    pub strategy: Strategy,
    /// Its name there.
    pub name: &'static str,
    /// Top-1 in per cent, in the order of the data sets.
    pub accuracy: &'static [f64],
    /// GPU memory in GB, as it was published.
    pub memory_gb: f64,
}

/// The classification results of OTX with PEFT, Google Summer of Code 2025.
pub static GSOC2025: Published = Published {
    name: "gsoc2025",
    source: "OTX classification with PEFT, Google Summer of Code 2025: DINOv2-small with registers, top-1, batch 64. \
             Its memory is what the framework had allocated and reserved, not the peak of the device.",
    datasets: &[
        set("Aircraft", &["fgvcaircraft", "fgvcaircraft2013b", "fgvcaircraft100", "aircrafts"]),
        set("Food-101", &["food", "food101"]),
        set("Cars", &["stanfordcars", "cars196", "stanfordcars196"]),
        set("CUB-200", &["cub", "cub2002011", "cub200", "caltechucsdbirds2002011", "cubbirds"]),
        set("HAM10000", &["ham", "ham10k"]),
        set("RESISC45", &["resisc", "nwpuresisc45", "nwpuresisc"]),
        set("KITTI distance", &["kitti", "kittidist", "kittidistance"]),
    ],
    rows: &[
        row(Strategy::Full, "full", &[47.1, 83.9, 75.0, 75.4, 78.2, 92.1, 72.8], 4.03),
        row(Strategy::Freeze, "freeze", &[38.5, 87.1, 66.2, 82.0, 59.8, 80.9, 62.1], 0.55),
        row(Strategy::Lora, "LoRA", &[49.1, 88.5, 76.5, 80.3, 78.6, 93.1, 77.5], 2.59),
        row(Strategy::Dora, "DoRA", &[49.9, 88.9, 75.7, 81.1, 79.0, 92.9, 78.8], 2.69),
    ],
};

const fn set(name: &'static str, aliases: &'static [&'static str]) -> PublishedSet {
    PublishedSet { name, aliases }
}

const fn row(strategy: Strategy, name: &'static str, accuracy: &'static [f64], memory_gb: f64) -> PublishedRow {
    PublishedRow { strategy, name, accuracy, memory_gb }
}

/// Every published table.
pub static ALL: [&Published; 1] = [&GSOC2025];

/// The table of that name.
pub fn named(name: &str) -> Option<&'static Published> {
    ALL.into_iter().find(|published| published.name == name)
}

impl Published {
    /// Which of its data sets a name means, whatever its case and punctuation.
    pub fn dataset(&self, name: &str) -> Option<usize> {
        let plain = plain(name);
        self.datasets.iter().position(|set| plain == self::plain(set.name) || set.aliases.contains(&plain.as_str()))
    }

    /// A strategy's row.
    pub fn row(&self, strategy: Strategy) -> Option<&PublishedRow> {
        self.rows.iter().find(|row| row.strategy == strategy)
    }
}

impl PublishedRow {
    /// Mean accuracy over all data sets, in per cent.
    pub fn mean(&self) -> f64 {
        self.accuracy.iter().sum::<f64>() / self.accuracy.len().max(1) as f64
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        for row in GSOC2025.rows {
            assert_eq!(row.accuracy.len(), GSOC2025.datasets.len());
        }
        // The means as they were published.
        let means: Vec<String> = GSOC2025.rows.iter().map(|row| format!("{:.1}", row.mean())).collect();
        assert_eq!(means, ["74.9", "68.1", "77.7", "78.0"]);
        assert_eq!(named("gsoc2025").map(|published| published.rows.len()), Some(4));
        assert!(named("gsoc").is_none());
    }

    #[test]
    fn names_are_matched() {
        let matched = |name| GSOC2025.dataset(name).map(|set| GSOC2025.datasets[set].name);
        let cases = [
            ("fgvc-aircraft", "Aircraft"),
            ("fgvc-aircraft-2013b", "Aircraft"),
            ("Food-101", "Food-101"),
            ("food_101", "Food-101"),
            ("stanford-cars", "Cars"),
            ("CUB_200_2011", "CUB-200"),
            ("ham10000", "HAM10000"),
            ("NWPU-RESISC45", "RESISC45"),
            ("resisc45", "RESISC45"),
            ("kitti", "KITTI distance"),
            ("KITTI_distance", "KITTI distance"),
        ];
        for (name, expected) in cases {
            assert_eq!(matched(name), Some(expected), "{name}");
        }
        for name in ["birds", "car", "", "food-10"] {
            assert_eq!(matched(name), None, "{name}");
        }
        let all: Vec<String> =
            GSOC2025.datasets.iter().flat_map(|set| set.aliases).map(|&alias| plain(alias)).collect();
        assert!(GSOC2025.datasets.iter().flat_map(|set| set.aliases).eq(all.iter()), "an alias is not plain");
    }
}
