//! RESISC45 (Cheng et al. 2017): 45 class folders of 700 images, no split.

use std::path::Path;

use super::{Listed, Part};
use crate::Result;
use crate::config::Task;
use crate::data::folder::{class_folders, list};
use crate::data::open::Given;
use crate::data::{Item, Source};

/// Class folders that no other set of 45 has.
const SOME: [&str; 4] = ["chaparral", "thermal_power_station", "sparse_residential", "wetland"];

pub(super) fn lies_in(dir: &Path) -> bool {
    SOME.iter().all(|class| dir.join(class).is_dir()) && list(dir).is_ok_and(|listing| listing.folders.len() == 45)
}

pub(super) fn read(dir: &Path) -> Result<Given> {
    let found = class_folders(dir, Some(Task::Multiclass))?;
    let mut listed = Listed::new(found.dataset.classes, Task::Multiclass);
    for item in found.dataset.items {
        let Source::File(path) = item.source else { continue };
        listed.add(Part::Train, path, item.label, &dir.display().to_string())?;
    }
    let given = listed
        .split_60_20_20(|item: &Item| item.source.name(), format!("{}: RESISC45, split 60/20/20", dir.display()))?;
    Ok(Given { ignored: found.ignored, ..given })
}
