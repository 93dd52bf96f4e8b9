//! KITTI (Geiger et al. 2012) as the task of VTAB (Zhai et al. 2019): how far the nearest vehicle is. `training/image_2/*.png` and
//! `training/label_2/*.txt`, an object a line; its 14th column is z, metres ahead.

use std::path::{Path, PathBuf};

use super::lines::lines;
use super::{Listed, Part};
use crate::config::Task;
use crate::data::folder::list;
use crate::data::open::Given;
use crate::data::{Item, Label};
use crate::{Error, Result};

const CLASSES: [&str; 4] = ["up to 8 m", "8 to 20 m", "over 20 m", "no vehicle"];

fn root(dir: &Path) -> PathBuf {
    if dir.join("training/label_2").is_dir() { dir.join("training") } else { dir.to_owned() }
}

pub(super) fn lies_in(dir: &Path) -> bool {
    let root = root(dir);
    root.join("label_2").is_dir() && root.join("image_2").is_dir()
}

pub(super) fn read(dir: &Path) -> Result<Given> {
    let root = root(dir);
    let mut listed = Listed::new(CLASSES.map(str::to_owned).to_vec(), Task::Multiclass);
    for image in list(&root.join("image_2"))?.images {
        listed.entry(|listed| {
            let name = image.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let labels = root.join(format!("label_2/{name}.txt"));
            let mut nearest = f64::INFINITY;
            for line in lines(&labels)? {
                let columns: Vec<&str> = line.text.split_whitespace().collect();
                // DontCare regions have no place, other kinds are no vehicles.
                if !matches!(columns.first(), Some(&("Car" | "Van" | "Truck"))) {
                    continue;
                }
                let z =
                    columns.get(13).and_then(|z| z.parse::<f64>().ok()).filter(|z| z.is_finite()).ok_or_else(|| {
                        Error::input(format!(
                            "{}: expected 15 columns with z in the 14th; correct the line",
                            line.place
                        ))
                    })?;
                nearest = nearest.min(z);
            }
            let class = match nearest {
                z if z <= 8.0 => 0,
                z if z <= 20.0 => 1,
                z if z.is_finite() => 2,
                _ => 3,
            };
            let place = labels.display().to_string();
            listed.add(Part::Train, image, Label::Class(class), &place)
        })?;
    }
    let described = format!("{}: KITTI, distance of the nearest vehicle, split 60/20/20", dir.display());
    listed.split_60_20_20(|item: &Item| item.source.name(), described)
}
