//! `--resume`: a run goes on with its own settings; whatever else is given must agree with them.

use std::path::Path;

use super::resolve::resolve;
use super::settings::Settings;
use crate::config::{Device, Precision, TrainConfig};
use crate::train::run_dir::RunDir;
use crate::{Error, Result};

/// The configuration of the run in `out`, after a check that `flags` over `file` say nothing else.
///
/// # Errors
/// [`Error::Input`] where there is no run, or naming the first setting that differs.
pub fn resume(out: &Path, flags: &Settings, file: &Settings) -> Result<TrainConfig> {
    let run = RunDir::open(out, "--resume --out")?;
    let own = run.read_config()?;
    if flags.device == Some(Device::Cpu) && own.precision == Some(Precision::Bf16) {
        return Err(Error::input(
            "--resume --device cpu: the run computes in bf16, which the CPU does not; leave --device out, or start a new run",
        ));
    }
    let asked = resolve(&flags.clone().over(file.clone()), &Settings::read(&run.config())?)?;
    let (own_table, asked_table) = (table(&own)?, table(&asked)?);
    // The strategy first: where it differs, so does the adapter, and the strategy is what to say.
    let strategy = "strategy".to_owned();
    let names = std::iter::once(&strategy).chain(own_table.keys()).chain(asked_table.keys());
    if let Some(name) = difference(&own_table, &asked_table, names) {
        return Err(Error::input(format!(
            "--resume: the run in {} has {}, found {} asked for; leave it out, or start a new run",
            out.display(),
            describe(&own_table, &name),
            describe(&asked_table, &name),
        )));
    }
    // Where it runs and how it gets by with the memory and disk there is this call's affair, the numbers are the same; without a word of it, as before.
    let TrainConfig { cache, device, memory, memory_budget, micro_batch, recompute, .. } = asked;
    Ok(TrainConfig { cache, device, memory, memory_budget, micro_batch, recompute, ..own })
}

/// What may differ: it changes no bit of the run.
const FREE: [&str; 4] = ["cache", "device", "micro_batch", "recompute"];

fn table(config: &TrainConfig) -> Result<toml::Table> {
    let text = config.to_toml()?;
    text.parse().map_err(|e| Error::Internal(format!("settings that were just written: {e}")))
}

/// The dotted name of the first setting that differs, those aside that may.
fn difference<'a>(
    own: &toml::Table,
    asked: &toml::Table,
    mut names: impl Iterator<Item = &'a String>,
) -> Option<String> {
    let name = names.find(|name| !FREE.contains(&name.as_str()) && !is_same(own.get(*name), asked.get(*name)))?;
    match (own.get(name), asked.get(name)) {
        (Some(toml::Value::Table(own)), Some(toml::Value::Table(asked))) => {
            difference(own, asked, own.keys().chain(asked.keys())).map(|inner| format!("{name}.{inner}"))
        }
        _ => Some(name.clone()),
    }
}

/// Equal, or two ways to write the path of one thing.
fn is_same(own: Option<&toml::Value>, asked: Option<&toml::Value>) -> bool {
    if let (Some(toml::Value::String(own)), Some(toml::Value::String(asked))) = (own, asked)
        && let (Ok(own), Ok(asked)) = (std::fs::canonicalize(own), std::fs::canonicalize(asked))
    {
        return own == asked;
    }
    own == asked
}

fn describe(table: &toml::Table, name: &str) -> String {
    let mut value = None;
    let mut table = Some(table);
    for part in name.split('.') {
        value = table.and_then(|table| table.get(part));
        table = value.and_then(toml::Value::as_table);
    }
    value.map_or_else(|| format!("no {name}"), |value| format!("{name} = {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Strategy;

    #[test]
    fn the_same_flags_again_agree() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let flags = || {
            let mut flags =
                Settings { data: Some(data.clone()), strategy: Some(Strategy::Lora), ..Settings::default() };
            flags.adapter.rank = Some(4);
            flags.adapter.targets = Some(vec!["all-linear".to_owned()]);
            flags
        };
        let out = dir.path().join("r");
        let started = TrainConfig { out: out.clone(), ..resolve(&flags(), &Settings::default()).unwrap() };
        RunDir::create(&started).unwrap();
        let same = |resumed: TrainConfig| {
            assert_eq!(TrainConfig { given: started.given.clone(), device: started.device, ..resumed }, started);
        };
        let none = Settings::default();
        same(resume(&out, &none, &none).unwrap());
        same(resume(&out, &flags(), &none).unwrap());
        same(resume(&out, &none, &flags()).unwrap());
        // The same folder by another path, and another device, are no other run.
        let detour = data.join("../data");
        same(resume(&out, &Settings { data: Some(detour), ..flags() }, &none).unwrap());
        let elsewhere = Settings { device: Some(Device::Cpu), ..flags() };
        assert_eq!(resume(&out, &elsewhere, &none).unwrap().device, Device::Cpu);
        let cache: crate::config::Cache = "none,2GiB,/scratch".parse().unwrap();
        let cached = Settings { cache: Some(cache.clone()), ..flags() };
        assert_eq!(resume(&out, &cached, &none).unwrap().cache, cache);
        let error = resume(&out, &Settings { epochs: Some(7), ..flags() }, &none).unwrap_err().to_string();
        assert!(error.contains("epochs = 30") && error.contains("epochs = 7"), "{error}");
    }
}
