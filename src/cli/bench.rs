//! `peftk bench`: the bare training step on random images, a line a configuration.

use super::resolve::{count, resolve};
use super::settings::{AdapterFlags, BatchSize, Settings};
use super::table::{Columns, Side};
use super::words;
use crate::config::{Device, Memory, Precision, Recompute, Strategy, TrainConfig};
use crate::train::Ui;
use crate::train::bench::{Case, Line, Outcome, What, bench};
use crate::vit::VitConfig;
use crate::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is trained: full, freeze, lora or dora; lists are measured in all combinations
    #[arg(long, value_name = "STRATEGY,..", value_delimiter = ',', value_parser = words::word::<Strategy>, default_value = "dora")]
    strategy: Vec<Strategy>,
    /// Images a step
    #[arg(long, value_name = "N,..", value_delimiter = ',', allow_negative_numbers = true, default_value = "64")]
    batch_size: Vec<usize>,
    /// fast, balanced or lean, as in train
    #[arg(long, value_name = "HOW,..", value_delimiter = ',', value_parser = words::word::<Memory>, default_value = "fast")]
    memory: Vec<Memory>,
    /// The fastest plan within this much device memory, such as 2GiB
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<String>,
    /// Images that go through the model at once, whatever --memory says
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    micro_batch: Option<usize>,
    /// What the backward pass computes again, whatever --memory says: nothing, qkv, hidden (the MLP's first linear too),
    /// pointwise (LayerNorm and GELU too) or blocks; with :N so in the first N blocks and one less in the others
    #[arg(long, value_name = "WHAT", value_parser = |text: &str| Recompute::try_from(text.to_owned()))]
    recompute: Option<Recompute>,
    /// Linears that get an adapter: all-linear, or a list of q, k, v, o, fc1, fc2, gate, up, down [default: q,v]
    #[arg(long, value_name = "LIST", value_parser = words::list)]
    targets: Option<::std::vec::Vec<String>>,
    /// Rank r of the adapters [default: 8]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    rank: Option<usize>,
    /// Model of random weights: micro, small, base, large or giant, each also with -reg
    #[arg(long, value_name = "SIZE", default_value = "small")]
    size: String,
    /// Classes of the head
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 100)]
    classes: usize,
    /// Side of the images in pixels, a multiple of 14 [default: 224; micro: 56]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    input_size: Option<usize>,
    /// Steps that are timed
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 20)]
    steps: usize,
    /// Steps before those
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 3)]
    warmup: usize,
    /// Where it runs: auto, cpu or cuda[:N]
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Device,
    /// bf16 (a GPU alone) or f32 [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_name = "TYPE", value_parser = words::word::<Precision>)]
    precision: Option<Precision>,
    /// One JSON object a configuration on stdout
    #[arg(long)]
    json: bool,
    /// Nothing on stderr but errors
    #[arg(long)]
    quiet: bool,
}

pub fn main(args: Args) -> Result<()> {
    let cases = args.cases()?;
    let ui = Ui::new(args.quiet);
    if args.json {
        return bench(&cases, &ui, &mut |line| {
            let text = serde_json::to_string(line).map_err(|e| Error::Internal(format!("a line is not JSON: {e}")))?;
            ui.result(&text)
        });
    }
    let table = Table::new(&cases);
    let mut head = Some(table.head());
    bench(&cases, &ui, &mut |line| {
        if let Some(head) = head.take() {
            ui.result(&head)?;
        }
        ui.result(&table.line(line))
    })
}

impl Args {
    /// All combinations, every flag checked before the first is measured.
    fn cases(&self) -> Result<Vec<Case>> {
        VitConfig::named(&self.size).map_err(|e| Error::input(format!("--size: {e}")))?;
        let classes = count("--classes", self.classes)?;
        let steps = count("--steps", self.steps)?;
        let warmup = if self.warmup == 0 { 0 } else { count("--warmup", self.warmup)? };
        let mut cases = Vec::new();
        for &strategy in &self.strategy {
            for &batch_size in &self.batch_size {
                for &memory in &self.memory {
                    cases.push(Case {
                        config: self.config(strategy, batch_size, memory)?,
                        size: self.size.clone(),
                        classes,
                        memory: memory.name().to_owned(),
                        targets: self.targets.as_ref().map_or_else(|| "q,v".to_owned(), |list| list.join(",")),
                        warmup,
                        steps,
                        residual: None,
                        profile: false,
                    });
                }
            }
        }
        Ok(cases)
    }

    /// The configuration that `peftk train` makes of the same flags.
    fn config(&self, strategy: Strategy, batch_size: usize, memory: Memory) -> Result<TrainConfig> {
        // In a list, flags of the adapter are for those that have one.
        let takes_adapter = strategy.has_adapter() || !self.strategy.iter().any(|other| other.has_adapter());
        let (targets, rank) = if takes_adapter { (self.targets.clone(), self.rank) } else { (None, None) };
        let settings = Settings {
            backbone: Some(format!("random:{}", self.size)),
            strategy: Some(strategy),
            batch_size: Some(BatchSize::Number(batch_size)),
            memory: Some(memory),
            memory_budget: self.memory_budget.clone(),
            micro_batch: self.micro_batch,
            input_size: self.input_size,
            device: Some(self.device),
            precision: self.precision,
            adapter: AdapterFlags { targets, rank, ..AdapterFlags::default() },
            ..Settings::default()
        };
        let resolved = resolve(&settings, &Settings::default())?;
        Ok(TrainConfig { recompute: self.recompute.or(resolved.recompute), ..resolved })
    }
}

/// Lines whose columns are as wide as any case needs, so that each can be printed as soon as it is there.
struct Table(Columns);

/// What a line is about, then its figures.
const HEAD: [(&str, Side); 10] = [
    ("strategy", Side::Left),
    ("size", Side::Left),
    ("batch", Side::Right),
    ("memory", Side::Left),
    ("targets", Side::Left),
    ("rank", Side::Right),
    ("images/s", Side::Right),
    ("ms/step", Side::Right),
    ("device MiB", Side::Right),
    ("planned MiB", Side::Right),
];

impl Table {
    fn new(cases: &[Case]) -> Self {
        let rows: Vec<Vec<String>> = cases.iter().map(|case| cells(&case.what())).collect();
        let width = |(index, (head, side)): (usize, (&str, Side))| {
            let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
            (cells.chain([head.len()]).max().unwrap_or(0), side)
        };
        Self(Columns::new(HEAD.into_iter().enumerate().map(width)))
    }

    fn head(&self) -> String {
        self.0.line(&HEAD.map(|(head, _)| head))
    }

    fn line(&self, line: &Line) -> String {
        let mut cells = cells(&line.what);
        match &line.outcome {
            Outcome::Measured(m) => cells.extend([
                format!("{:.1}", m.images_per_s),
                format!("{:.2}", m.ms_per_step),
                or_dash(m.device_mib.map(|mib| format!("{mib:.0}"))),
                format!("{:.0}", m.planned_mib),
            ]),
            Outcome::Failed { error, .. } => cells.push(format!("failed: {error}")),
        }
        self.0.line(&cells)
    }
}

fn cells(what: &What) -> Vec<String> {
    vec![
        what.strategy.to_owned(),
        what.size.clone(),
        what.batch.to_string(),
        what.memory.clone(),
        or_dash(what.targets.clone()),
        or_dash(what.rank.map(|rank| rank.to_string())),
    ]
}

fn or_dash(cell: Option<String>) -> String {
    cell.unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::train::bench::{COMMIT, Measured};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn cases(line: &str) -> Result<Vec<Case>> {
        Cli::try_parse_from(["bench"].into_iter().chain(line.split_whitespace())).unwrap().args.cases()
    }

    fn measured() -> Measured {
        Measured {
            images_per_s: 7344.25,
            ms_per_step: 34.857,
            device_mib: Some(8091.4),
            planned_mib: 7300.0,
            device: "a GPU".into(),
            commit: COMMIT,
            micro_batch: None,
            recompute: "nothing".into(),
            precision: "bf16",
            peak_mib: 7300.0,
            kernels: Some("sm_90a".into()),
            loss: 4.5,
        }
    }

    #[test]
    fn lists_are_combined() {
        assert!(cases("--strategy full,freeze --rank 16").is_err(), "no strategy takes the flag");
        let cases = cases("--strategy full,lora --batch-size 2,4 --memory fast,lean --rank 16 --size micro").unwrap();
        let what: Vec<String> = cases.iter().map(|case| cells(&case.what()).join(" ")).collect();
        assert_eq!(
            what,
            [
                "full micro 2 fast - -",
                "full micro 2 lean - -",
                "full micro 4 fast - -",
                "full micro 4 lean - -",
                "lora micro 2 fast q,v 16",
                "lora micro 2 lean q,v 16",
                "lora micro 4 fast q,v 16",
                "lora micro 4 lean q,v 16",
            ]
        );
        assert!(cases.iter().all(|case| case.config.input_size == 56 && case.steps == 20 && case.warmup == 3));
    }

    #[test]
    fn a_line_has_the_contract_s_keys_in_order() {
        let case = &cases("--strategy lora --batch-size 256").unwrap()[0];
        let line = |outcome| serde_json::to_string(&Line { what: case.what(), outcome }).unwrap();
        let head = r#"{"strategy":"lora","size":"small","batch":256,"memory":"fast","targets":"q,v","rank":8,"#;
        let figures = concat!(
            r#""images_per_s":7344.25,"ms_per_step":34.857,"device_mib":8091.4,"planned_mib":7300.0,"device":"a GPU","commit":"C","#,
            r#""micro_batch":null,"recompute":"nothing","precision":"bf16","peak_mib":7300.0,"kernels":"sm_90a","loss":4.5}"#
        );
        assert_eq!(line(Outcome::Measured(Measured { commit: "C", ..measured() })), format!("{head}{figures}"));
        let failed = Outcome::Failed { error: "full".into(), commit: "C" };
        assert_eq!(line(failed), format!(r#"{head}"error":"full","commit":"C"}}"#));
    }

    #[test]
    fn what_is_computed_again_can_be_given() {
        let of = |flags: &str| cases(flags).map(|cases| (cases[0].config.micro_batch, cases[0].config.recompute));
        let given = (Some(32), Some(Recompute::in_first(crate::config::Level::Hidden, 4)));
        assert_eq!(of("--micro-batch 32 --recompute hidden:4").unwrap(), given);
        assert_eq!(of("").unwrap(), (None, None));
        let wrong =
            Cli::try_parse_from(["bench", "--recompute", "much"]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(wrong.contains("expected nothing, qkv, hidden"), "{wrong}");
    }

    #[test]
    fn a_table_is_aligned_before_it_is_measured() {
        let cases = cases("--strategy lora,full --batch-size 256 --memory balanced --targets all-linear").unwrap();
        let table = Table::new(&cases);
        let line = |case: &Case, outcome| table.line(&Line { what: case.what(), outcome });
        let failed = Outcome::Failed { error: "no room".into(), commit: "C" };
        let text = [
            table.head(),
            line(&cases[0], Outcome::Measured(measured())),
            line(&cases[1], Outcome::Measured(Measured { device_mib: None, ..measured() })),
            line(&cases[1], failed),
        ];
        assert_eq!(
            text,
            [
                "strategy  size   batch  memory    targets     rank  images/s  ms/step  device MiB  planned MiB",
                "lora      small    256  balanced  all-linear     8    7344.2    34.86        8091         7300",
                "full      small    256  balanced  -              -    7344.2    34.86           -         7300",
                "full      small    256  balanced  -              -  failed: no room",
            ]
        );
    }
}
