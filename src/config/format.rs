//! How data is laid out.

use serde::{Deserialize, Serialize};

/// How the data folder is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Found by looking.
    #[default]
    Auto,
    /// A folder a class, perhaps under train, val and test.
    Folder,
    /// A table `labels.csv`: a column of files, and one of classes or one 0/1 column a label.
    Csv,
    /// FGVC-Aircraft by variant.
    Aircraft,
    /// FGVC-Aircraft by family.
    AircraftFamily,
    /// FGVC-Aircraft by manufacturer.
    AircraftManufacturer,
    /// Food-101.
    Food101,
    /// Stanford Cars.
    StanfordCars,
    /// CUB-200-2011.
    Cub200,
    /// HAM10000, split by lesion.
    Ham10000,
    /// RESISC45.
    Resisc45,
    /// KITTI: the distance of the nearest vehicle.
    Kitti,
    /// COCO's JSON: the categories in an image are its labels.
    Coco,
    /// Datumaro's JSON.
    Datumaro,
    /// MNIST's IDX files.
    Idx,
    /// Parquet files with the images in them, as Hugging Face's `datasets` writes them.
    Parquet,
}

impl Format {
    /// The word that stands for it on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Folder => "folder",
            Self::Csv => "csv",
            Self::Aircraft => "aircraft",
            Self::AircraftFamily => "aircraft-family",
            Self::AircraftManufacturer => "aircraft-manufacturer",
            Self::Food101 => "food101",
            Self::StanfordCars => "stanford-cars",
            Self::Cub200 => "cub200",
            Self::Ham10000 => "ham10000",
            Self::Resisc45 => "resisc45",
            Self::Kitti => "kitti",
            Self::Coco => "coco",
            Self::Datumaro => "datumaro",
            Self::Idx => "idx",
            Self::Parquet => "parquet",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_files() {
        for format in [Format::Auto, Format::AircraftManufacturer, Format::Food101, Format::Cub200, Format::Idx] {
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
        }
    }
}
