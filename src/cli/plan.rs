//! `peftk plan`.

use serde_json::{Value, json};

use super::table;
use super::train::SettingFlags;
use crate::Result;
use crate::config::Precision;
use crate::train::{self, MemoryPlan, Planned, Ui};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    flags: SettingFlags,
    /// One JSON object on stdout
    #[arg(long, help_heading = "Run")]
    json: bool,
    /// Nothing on stderr but errors
    #[arg(long, help_heading = "Run")]
    quiet: bool,
}

/// Width of the longest bar.
const BAR: usize = 30;

pub fn main(args: Args) -> Result<()> {
    let config = args.flags.resolve()?;
    let ui = Ui::new(args.quiet);
    let planned = train::plan(&config, &ui)?;
    let text = if args.json { json(&planned).to_string() } else { words(&planned.memory) };
    ui.result(text.trim_end())
}

/// The parts in order, their sum, and what they are for.
fn json(planned: &Planned) -> Value {
    let Planned { memory, config, arch } = planned;
    let part = |(purpose, bytes): &(String, u64)| json!({ "purpose": purpose, "bytes": bytes });
    json!({
        "strategy": config.strategy.name(),
        "batch": config.batch_size,
        "micro_batch": config.micro_batch,
        "recompute": config.recompute.map(|recompute| recompute.to_string()),
        "device": config.device.to_string(),
        "precision": config.precision.map(Precision::name),
        "arch": arch.map(|arch| arch.to_string()),
        "parts": memory.parts.iter().map(part).collect::<Vec<_>>(),
        "total": memory.total(),
    })
}

/// A line a purpose: bytes, a readable unit, the share of the total in per cent and as a bar. Then the total.
fn words(plan: &MemoryPlan) -> String {
    let total = plan.total();
    let parts = plan.parts.iter().map(|(purpose, bytes)| (purpose.as_str(), *bytes));
    let rows: Vec<(&str, u64)> = parts.chain([("total", total)]).collect();
    let width = rows.iter().map(|row| row.1.to_string().len()).max().unwrap_or(0);
    let cell = |bytes: u64| {
        let (unit, percent) = (table::bytes(bytes), 100.0 * table::share(bytes, total));
        let text = format!("{bytes:>width$} bytes  {unit:>10}  {percent:>5.1} %  {}", table::bar(bytes, total, BAR));
        text.trim_end().to_owned()
    };
    let rows: Vec<(&str, String)> = rows.into_iter().map(|(purpose, bytes)| (purpose, cell(bytes))).collect();
    table::aligned(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Recompute;
    use crate::config::{Device, TrainConfig};
    use crate::gpu::Arch;

    fn plan(parts: &[(&str, u64)]) -> MemoryPlan {
        MemoryPlan { parts: parts.iter().map(|(purpose, bytes)| ((*purpose).to_owned(), *bytes)).collect() }
    }

    #[test]
    fn a_plan_adds_up() {
        let plan = plan(&[("weights", 3072), ("gradients", 0), ("saved", 1024)]);
        let full = "█".repeat(BAR);
        let expected = format!(
            "weights    3072 bytes     3.0 KiB   75.0 %  {}▌\n\
             gradients     0 bytes         0 B    0.0 %\n\
             saved      1024 bytes     1.0 KiB   25.0 %  {}▌\n\
             total      4096 bytes     4.0 KiB  100.0 %  {full}\n",
            &full[..22 * "█".len()],
            &full[..7 * "█".len()],
        );
        assert_eq!(words(&plan), expected);
        assert_eq!(words(&MemoryPlan::default()), "total  0 bytes         0 B    0.0 %\n");
    }

    #[test]
    fn a_plan_in_json() {
        let config = TrainConfig {
            device: Device::Cuda(0),
            precision: Some(Precision::Bf16),
            batch_size: 64,
            micro_batch: Some(16),
            recompute: Some(Recompute::QKV),
            ..TrainConfig::default()
        };
        let planned =
            Planned { memory: plan(&[("weights", 2048), ("gradients", 100)]), config, arch: Some(Arch::Sm90a) };
        let expected = concat!(
            r#"{"strategy":"dora","batch":64,"micro_batch":16,"recompute":"qkv","device":"cuda:0","precision":"bf16","arch":"sm_90a","#,
            r#""parts":[{"purpose":"weights","bytes":2048},{"purpose":"gradients","bytes":100}],"total":2148}"#
        );
        assert_eq!(json(&planned).to_string(), expected);
    }
}
