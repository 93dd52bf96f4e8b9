//! `--init-adapter`: the folder's settings become the run's, and whatever was asked for in so many words has to agree.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::Path;

use super::model::head_width;
use crate::adapter::{self, AdapterConfig, AdapterFile, NameFamily, Targets};
use crate::config::{AdapterInit, AdapterSettings, Given, Pool, Strategy, TrainConfig};
use crate::vit::VitConfig;
use crate::vit::names::Linear;
use crate::{Error, Result};

/// Gives `config` the strategy, the adapter settings and the pooling of its `init_adapter`, if it has one.
///
/// # Errors
/// A folder that cannot be read or is for another backbone; a flag that says something else than the folder.
pub(super) fn settle(config: &mut TrainConfig, vit: &VitConfig) -> Result<()> {
    let Some(dir) = config.init_adapter.clone() else { return Ok(()) };
    let file = adapter::read(&dir)?;
    file.check(vit).map_err(|error| match error {
        Error::Input(text) => Error::input(format!("--init-adapter {}: {text}", dir.display())),
        other => other,
    })?;
    let norm_grad = config.adapter.as_ref().is_some_and(|a| a.dora_norm_grad);
    let asked = Asked { dir: &dir, file: &file, vit };
    asked.check(&config.given, norm_grad)?;
    config.strategy = asked.strategy();
    config.adapter = Some(asked.settings(norm_grad));
    config.pool = asked.pool().unwrap_or(config.pool);
    Ok(())
}

/// What was asked for against what there is.
struct Asked<'a> {
    dir: &'a Path,
    file: &'a AdapterFile,
    vit: &'a VitConfig,
}

impl Asked<'_> {
    fn strategy(&self) -> Strategy {
        if self.file.config.use_dora { Strategy::Dora } else { Strategy::Lora }
    }

    /// What the folder's classifier sees, by its width.
    fn pool(&self) -> Option<Pool> {
        let width = *self.file.classifier.as_ref()?.weight.shape.get(1)?;
        [Pool::ClsMean, Pool::Cls].into_iter().find(|&pool| head_width(self.vit, pool) == width)
    }

    /// The folder's settings as a run's.
    fn settings(&self, dora_norm_grad: bool) -> AdapterSettings {
        let config = &self.file.config;
        let targets = match config.target_modules {
            Targets::AllLinear => vec!["all-linear".to_owned()],
            _ => names(&linears(config, self.vit)),
        };
        AdapterSettings {
            targets,
            rank: config.rank,
            alpha: config.alpha,
            rslora: config.rslora,
            dropout: config.dropout,
            dora_norm_grad,
            init: AdapterInit::Default,
            rank_pattern: config.rank_pattern.clone(),
            alpha_pattern: config.alpha_pattern.clone(),
            layers: config.layers_to_transform.clone(),
        }
    }

    fn refuse(&self, flag: &str, said: impl Display, held: impl Display) -> Result<()> {
        let dir = self.dir.display();
        Err(Error::input(format!("{flag} {said}: --init-adapter {dir} was made with {held}; leave {flag} out")))
    }

    fn check(&self, given: &Given, dora_norm_grad: bool) -> Result<()> {
        let config = &self.file.config;
        let own = self.strategy();
        if let Some(said) = given.strategy.filter(|&said| said != own) {
            return self.refuse("--strategy", said.name(), own.name());
        }
        if dora_norm_grad && own == Strategy::Lora {
            return self.refuse("--dora-norm-grad", "true", own.name());
        }
        if let Some(said) = given.rank.filter(|&said| said != config.rank) {
            return self.refuse("--rank", said, config.rank);
        }
        if let Some(said) = given.alpha.filter(|&said| said != config.alpha) {
            return self.refuse("--alpha", said, config.alpha);
        }
        if let Some(said) = given.rslora.filter(|&said| said != config.rslora) {
            return self.refuse("--rslora", said, config.rslora);
        }
        if let Some(said) = given.dropout.filter(|&said| said != config.dropout) {
            return self.refuse("--lora-dropout", said, config.dropout);
        }
        if let (Some(said), Some(own)) = (given.pool, self.pool())
            && said != own
        {
            let word = |pool| if pool == Pool::Cls { "cls" } else { "cls+mean" };
            return self.refuse("--pool", word(said), format!("a classifier on {}", word(own)));
        }
        self.check_places(given)?;
        self.check_patterns(given)
    }

    /// `--targets` and `--layers`, by the linears and blocks that they come to on this backbone.
    fn check_places(&self, given: &Given) -> Result<()> {
        let config = &self.file.config;
        if let Some(said) = &given.targets {
            let asked = match &said[..] {
                [one] if one == "all-linear" => Targets::AllLinear,
                _ => Targets::Names(said.clone()),
            };
            let asked = AdapterConfig { target_modules: asked, ..AdapterConfig::default() };
            let own = linears(config, self.vit);
            if linears(&asked, self.vit) != own {
                return self.refuse("--targets", said.join(","), names(&own).join(","));
            }
        }
        if let Some(said) = &given.layers {
            let blocks: BTreeSet<usize> = config.sites(self.vit).iter().map(|site| site.0).collect();
            let asked: BTreeSet<usize> =
                if said.is_empty() { (0..self.vit.layers).collect() } else { said.iter().copied().collect() };
            if asked != blocks {
                return self.refuse("--layers", numbers(&asked), numbers(&blocks));
            }
        }
        Ok(())
    }

    /// The patterns, by what they give each module.
    fn check_patterns(&self, given: &Given) -> Result<()> {
        let own = &self.file.config;
        let mut asked = own.clone();
        for flag in ["--rank-pattern", "--alpha-pattern"] {
            match flag {
                "--rank-pattern" => asked.rank_pattern = given.rank_pattern.clone().unwrap_or(asked.rank_pattern),
                _ => asked.alpha_pattern = given.alpha_pattern.clone().unwrap_or(asked.alpha_pattern),
            }
            for site in own.sites(self.vit) {
                let (said, held) =
                    ((asked.rank_of(site), asked.alpha_of(site)), (own.rank_of(site), own.alpha_of(site)));
                if said != held {
                    let name = own.module_name(site, own.family);
                    let said = format!("gives {name} rank {} and alpha {}", said.0, said.1);
                    return self.refuse(flag, said, format!("rank {} and alpha {} there", held.0, held.1));
                }
            }
        }
        Ok(())
    }
}

/// The linears that have an adapter, SwiGLU's packed one counted as the two that it holds.
fn linears(config: &AdapterConfig, vit: &VitConfig) -> BTreeSet<Linear> {
    let every_block = AdapterConfig { layers_to_transform: Vec::new(), ..config.clone() };
    let parts = |linear| match linear {
        Linear::WeightsIn => vec![Linear::GateProj, Linear::UpProj],
        other => vec![other],
    };
    every_block.sites(vit).into_iter().flat_map(|(_, linear)| parts(linear)).collect()
}

/// Their names on the command line.
fn names(linears: &BTreeSet<Linear>) -> Vec<String> {
    let last = |linear: &Linear| NameFamily::V5.path(*linear).rsplit('.').next().unwrap_or_default().to_owned();
    linears.iter().map(last).collect()
}

fn numbers(list: &BTreeSet<usize>) -> String {
    list.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}
