//! Our numbers beside published ones.

use super::{Cell, Table, columns};
use crate::compare::numbers::{bytes, fixed, percent_within, points};
use crate::compare::published::Published;
use crate::compare::results::{DatasetInfo, Results};
use crate::compare::stats::Spread;
use crate::compare::summary;

/// Data sets here that the published table has, as (ours, theirs).
fn matched(results: &Results, published: &Published) -> Vec<(usize, usize)> {
    let of = |(set, info): (usize, &DatasetInfo)| Some((set, published.dataset(&info.name)?));
    results.datasets.iter().enumerate().filter_map(of).collect()
}

/// Data sets here that the published table lacks.
pub fn unmatched<'a>(results: &'a Results, published: &Published) -> Vec<&'a str> {
    let lacks = |set: &&DatasetInfo| published.dataset(&set.name).is_none();
    results.datasets.iter().filter(lacks).map(|set| set.name.as_str()).collect()
}

/// The whole published table, our numbers beside theirs where data sets match, and memory.
pub fn published(results: &Results, published: &Published) -> Vec<Table> {
    let mut tables = Vec::new();
    let matched = matched(results, published);
    if !matched.is_empty() {
        tables.push(beside(results, published, &matched));
    }
    tables.push(memory(results, published));
    tables.push(theirs(published));
    tables
}

fn beside(results: &Results, published: &Published, matched: &[(usize, usize)]) -> Table {
    let rows = summary::by_dataset(results);
    let mut lines = Vec::new();
    for (variant, info) in results.variants.iter().enumerate() {
        let Some(row) = published.row(info.strategy) else { continue };
        let (mut ours_all, mut theirs_all) = (Vec::new(), Vec::new());
        for &(set, theirs) in matched {
            let test = rows.iter().find(|r| r.dataset == Some(set) && r.variant == variant).and_then(|r| r.test);
            let theirs = row.accuracy[theirs];
            ours_all.push(test.map(|test| test.mean));
            theirs_all.push(theirs);
            lines.push(line(
                &results.datasets[set].name,
                &info.name,
                test.map(|test| (test.mean, test.half_width)),
                theirs,
            ));
        }
        let ours: Option<Vec<f64>> = ours_all.into_iter().collect();
        if let (true, Some(ours), Some(theirs)) = (matched.len() > 1, ours.and_then(Spread::of), Spread::of(theirs_all))
        {
            lines.push(line("mean of these", &info.name, Some((ours.mean, None)), theirs.mean));
        }
    }
    Table {
        id: "published-beside".into(),
        caption: "Ours beside theirs".into(),
        columns: columns(&["Data set", "Strategy", "Ours#", "Published#", "Difference, points#"]),
        rows: lines,
        foot: None,
    }
}

fn line(set: &str, variant: &str, ours: Option<(f64, Option<f64>)>, theirs: f64) -> Vec<Cell> {
    vec![
        Cell::text(set),
        Cell::text(variant),
        ours.map_or_else(|| Cell::faint("–"), |(mean, half)| Cell::number(mean, percent_within(mean, half))),
        Cell::number(theirs / 100.0, format!("{} %", fixed(theirs, 1))),
        Cell::or_dash(ours.map(|ours| ours.0 - theirs / 100.0), points),
    ]
}

fn memory(results: &Results, published: &Published) -> Table {
    let rows = summary::overall(results).into_iter().filter_map(|row| {
        let variant = results.variants.get(row.variant)?;
        let theirs = published.row(variant.strategy)?;
        let ours = (row.done.0 > 0).then_some(row.peak_bytes as f64);
        Some(vec![
            Cell::text(&variant.name),
            Cell::or_dash(ours, bytes),
            Cell::number(theirs.memory_gb, format!("{} GB", fixed(theirs.memory_gb, 2))),
        ])
    });
    Table {
        id: "published-memory".into(),
        caption: "Memory: ours at our batch and input size, theirs at theirs".into(),
        columns: columns(&["Strategy", "Our peak#", "Published#"]),
        rows: rows.collect(),
        foot: None,
    }
}

fn theirs(published: &Published) -> Table {
    let mut names = vec!["Strategy".to_owned()];
    names.extend(published.datasets.iter().map(|set| format!("{}#", set.name)));
    names.push("mean#".to_owned());
    let rows = published.rows.iter().map(|row| {
        let mut cells = vec![Cell::text(row.name)];
        let values = row.accuracy.iter().copied().chain([row.mean()]);
        cells.extend(values.map(|value| Cell::number(value, format!("{} %", fixed(value, 1)))));
        cells
    });
    Table {
        id: "published".into(),
        caption: format!("The published table ({})", published.name),
        columns: columns(&names.iter().map(String::as_str).collect::<Vec<_>>()),
        rows: rows.collect(),
        foot: None,
    }
}
