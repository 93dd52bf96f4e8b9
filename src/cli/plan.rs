//! `peftk plan`.

use super::table;
use super::train::SettingFlags;
use crate::Result;
use crate::train::{self, MemoryPlan, Ui};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: SettingFlags,
    /// Nothing on stderr but errors
    #[arg(long, help_heading = "Run")]
    quiet: bool,
}

pub fn main(args: Args) -> Result<()> {
    let config = args.flags.resolve()?;
    let ui = Ui::new(args.quiet);
    let plan = train::plan(&config, &ui)?;
    ui.result(words(&plan).trim_end())
}

/// A line a purpose, bytes and a readable unit, then the total.
fn words(plan: &MemoryPlan) -> String {
    let parts = plan.parts.iter().map(|(purpose, bytes)| (purpose.as_str(), *bytes));
    let rows: Vec<(&str, u64)> = parts.chain([("total", plan.total())]).collect();
    let width = rows.iter().map(|row| row.1.to_string().len()).max().unwrap_or(0);
    let rows: Vec<(&str, String)> = rows
        .into_iter()
        .map(|(purpose, bytes)| (purpose, format!("{bytes:>width$} bytes  {:>10}", table::bytes(bytes))))
        .collect();
    table::aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_adds_up() {
        let plan = MemoryPlan { parts: vec![("weights".into(), 2048), ("gradients".into(), 100)] };
        let expected =
            "weights    2048 bytes     2.0 KiB\ngradients   100 bytes       100 B\ntotal      2148 bytes     2.1 KiB\n";
        assert_eq!(words(&plan), expected);
    }
}
