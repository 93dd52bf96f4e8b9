//! What an adapter's configuration says about every module.

use super::patterns;
use crate::config::AdapterInit;
use crate::vit::VitConfig;
use crate::vit::names::Linear;
use crate::{Error, Result};

/// A linear of one block: (block, linear).
pub type Site = (usize, Linear);

/// Largest rank that is believed.
pub(super) const MAX_RANK: usize = 1 << 16;

/// By which release of transformers modules are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFamily {
    /// transformers 4: `attention.attention.query`, `mlp.weights_in`.
    V4,
    /// transformers 5: `attention.q_proj`, `mlp.gate_proj` and `mlp.up_proj`.
    V5,
}

impl NameFamily {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::V4 => Self::V5,
            Self::V5 => Self::V4,
        }
    }

    /// Module path of a linear inside its block.
    pub fn path(self, linear: Linear) -> &'static str {
        match self {
            Self::V4 => linear.v4_path(),
            Self::V5 => linear.v5_path(),
        }
    }

    /// The linears of a model's blocks as this family's modules: SwiGLU's first is one module in V4 and two in V5.
    pub fn linears(self, config: &VitConfig) -> Vec<Linear> {
        let exists = |linear: &Linear| match linear {
            Linear::WeightsIn => self == Self::V4,
            Linear::GateProj | Linear::UpProj => self == Self::V5,
            _ => true,
        };
        Linear::ALL.into_iter().filter(|linear| linear.is_in(config) && exists(linear)).collect()
    }
}

/// A choice of modules, in the three forms peft allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Names that a module's name is, or ends in after a dot.
    Names(Vec<String>),
    /// A regular expression that matches the whole name.
    Pattern(String),
    /// `all-linear`: every linear of every block.
    AllLinear,
}

impl Targets {
    fn contains(&self, names: &[String]) -> bool {
        match self {
            Self::Names(list) => list.iter().any(|end| names.iter().any(|name| patterns::ends_in(name, end))),
            Self::Pattern(text) => {
                patterns::whole(text).is_ok_and(|regex| names.iter().any(|name| regex.is_match(name)))
            }
            Self::AllLinear => true,
        }
    }
}

/// An adapter's configuration: what peft's adapter_config.json says that matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rank r of modules that `rank_pattern` does not name.
    pub rank: usize,
    /// alpha of modules that `alpha_pattern` does not name.
    pub alpha: f64,
    /// Scale alpha / sqrt(r) instead of alpha / r.
    pub rslora: bool,
    /// DoRA: a magnitude beside A and B.
    pub use_dora: bool,
    /// Probability that an input of the adapter is dropped in training.
    pub dropout: f64,
    /// The modules that have an adapter.
    pub target_modules: Targets,
    /// Modules among them that have none.
    pub exclude_modules: Option<Targets>,
    /// Ranks by module: (pattern, rank).
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas by module: (pattern, alpha).
    pub alpha_pattern: Vec<(String, f64)>,
    /// Blocks that have adapters; empty: all.
    pub layers_to_transform: Vec<usize>,
    /// Modules stored whole: `classifier` or nothing.
    pub modules_to_save: Vec<String>,
    /// How A and B started, for the record.
    pub init: AdapterInit,
    /// The names the adapter was read under, kept when it is written; V5 for a new one.
    pub family: NameFamily,
    /// What module names start with: `dinov2`, `dinov2_with_registers`, or nothing for a bare model.
    pub prefix: String,
    /// The backbone it was trained on, for the record.
    pub base_model: Option<String>,
}

impl Default for AdapterConfig {
    /// q and v, rank 8, alpha 8, with the classifier, transformers 5 names.
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            rslora: false,
            use_dora: false,
            dropout: 0.0,
            target_modules: Targets::Names(vec!["q_proj".into(), "v_proj".into()]),
            exclude_modules: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            layers_to_transform: Vec::new(),
            modules_to_save: vec!["classifier".into()],
            init: AdapterInit::Default,
            family: NameFamily::V5,
            prefix: "dinov2".into(),
            base_model: None,
        }
    }
}

impl AdapterConfig {
    /// A module's full name.
    pub fn module_name(&self, (layer, linear): Site, family: NameFamily) -> String {
        let dot = if self.prefix.is_empty() { "" } else { "." };
        format!("{}{dot}encoder.layer.{layer}.{}", self.prefix, family.path(linear))
    }

    /// The names to match patterns with: the own family's, then the other's.
    fn names(&self, site: Site) -> [String; 2] {
        [self.module_name(site, self.family), self.module_name(site, self.family.other())]
    }

    /// Whether a pattern names a site.
    pub(super) fn pattern_names(&self, pattern: &str, site: Site) -> bool {
        patterns::first_match(&[(pattern.to_owned(), ())], &self.names(site)).is_some()
    }

    /// The rank of a site: the first `rank_pattern` that matches, else `rank`.
    pub fn rank_of(&self, site: Site) -> usize {
        patterns::first_match(&self.rank_pattern, &self.names(site)).copied().unwrap_or(self.rank)
    }

    /// The alpha of a site: the first `alpha_pattern` that matches, else `alpha`.
    pub fn alpha_of(&self, site: Site) -> f64 {
        patterns::first_match(&self.alpha_pattern, &self.names(site)).copied().unwrap_or(self.alpha)
    }

    /// What B A is multiplied by at a site: alpha / r, or alpha / sqrt(r) with rslora, both the site's own.
    pub fn scale_of(&self, site: Site) -> f64 {
        let rank = self.rank_of(site) as f64;
        self.alpha_of(site) / if self.rslora { rank.sqrt() } else { rank }
    }

    /// Whether a site has an adapter.
    pub fn is_target(&self, site: Site) -> bool {
        let names = self.names(site);
        (self.layers_to_transform.is_empty() || self.layers_to_transform.contains(&site.0))
            && self.target_modules.contains(&names)
            && !self.exclude_modules.as_ref().is_some_and(|exclude| exclude.contains(&names))
    }

    /// Every site of a model that has an adapter, by block, then in the order of the forward pass.
    pub fn sites(&self, config: &VitConfig) -> Vec<Site> {
        let linears = self.family.linears(config);
        let all = (0..config.layers).flat_map(|layer| linears.iter().map(move |&linear| (layer, linear)));
        all.filter(|&site| self.is_target(site)).collect()
    }

    /// Checks what holds whatever the model: ranks from 1, finite alphas, dropout in 0..1, patterns that compile.
    ///
    /// # Errors
    /// One line naming `source` and the field.
    pub fn check(&self, source: &str) -> Result<()> {
        let bad = |what: String| Err(Error::input(format!("{source}: {what}")));
        for (key, rank) in
            std::iter::once(("r", &self.rank)).chain(self.rank_pattern.iter().map(|(k, v)| (k.as_str(), v)))
        {
            if !(1..=MAX_RANK).contains(rank) {
                return bad(format!("rank {rank} for {} must be from 1 to {MAX_RANK}", crate::io::quoted(key)));
            }
        }
        let alphas = std::iter::once(("lora_alpha", &self.alpha));
        for (key, alpha) in alphas.chain(self.alpha_pattern.iter().map(|(k, v)| (k.as_str(), v))) {
            if !alpha.is_finite() {
                return bad(format!("alpha {alpha} for {} must be a number", crate::io::quoted(key)));
            }
        }
        // peft stores patterns as a JSON object: of two alike only the last would be left.
        let ranks: Vec<&String> = self.rank_pattern.iter().map(|(key, _)| key).collect();
        let alphas_by: Vec<&String> = self.alpha_pattern.iter().map(|(key, _)| key).collect();
        for (name, keys) in [("rank_pattern", ranks), ("alpha_pattern", alphas_by)] {
            if let Some(key) = keys.iter().enumerate().find_map(|(i, key)| keys[..i].contains(key).then_some(key)) {
                return bad(format!("{name} names {} twice: give it once", crate::io::quoted(key)));
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return bad(format!("lora_dropout {} must be from 0 to below 1", self.dropout));
        }
        let suffixes =
            self.rank_pattern.iter().map(|(key, _)| key).chain(self.alpha_pattern.iter().map(|(key, _)| key));
        let wholes = [Some(&self.target_modules), self.exclude_modules.as_ref()].into_iter().flatten();
        let result = suffixes.map(|key| patterns::suffix(key).map(drop)).chain(wholes.map(|targets| match targets {
            Targets::Pattern(text) => patterns::whole(text).map(drop),
            _ => Ok(()),
        }));
        match result.into_iter().find_map(std::result::Result::err) {
            Some(what) => bad(what),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_go_through_the_other_names_too() {
        let mut config = AdapterConfig { alpha: 4.0, rank: 4, ..AdapterConfig::default() };
        config.rank_pattern = vec![("attention.query".into(), 2), ("layer.1.attention.v_proj".into(), 6)];
        config.alpha_pattern = vec![("q_proj".into(), 10.0), ("query".into(), 1.0)];
        assert_eq!(config.rank_of((0, Linear::Query)), 2);
        assert_eq!(config.rank_of((1, Linear::Value)), 6);
        assert_eq!(config.rank_of((0, Linear::Value)), 4);
        assert_eq!(config.scale_of((0, Linear::Query)), 5.0);
        config.family = NameFamily::V4;
        assert_eq!(config.scale_of((0, Linear::Query)), 0.5);
        config.rslora = true;
        assert_eq!(config.scale_of((1, Linear::Value)), 4.0 / 6f64.sqrt());
    }

    #[test]
    fn sites_follow_targets_layers_and_exclusions() {
        let small = VitConfig::named("small").unwrap();
        let giant = VitConfig::named("giant").unwrap();
        let mut config = AdapterConfig::default();
        assert_eq!(config.sites(&small).len(), 24);
        config.target_modules = Targets::AllLinear;
        assert_eq!(config.sites(&small).len(), 72);
        assert_eq!(config.sites(&giant).len(), 40 * 7);
        config.layers_to_transform = vec![1];
        config.exclude_modules = Some(Targets::Pattern(r".*mlp\..*".into()));
        use Linear::{Key, Output, Query, Value};
        assert_eq!(config.sites(&giant), [(1, Query), (1, Key), (1, Value), (1, Output)]);
        config.exclude_modules = None;
        config.target_modules = Targets::Names(vec!["weights_in".into()]);
        assert_eq!(config.sites(&giant), [(1, Linear::GateProj), (1, Linear::UpProj)]);
        config.family = NameFamily::V4;
        assert_eq!(config.sites(&giant), [(1, Linear::WeightsIn)]);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |change: fn(&mut AdapterConfig)| {
            let mut config = AdapterConfig::default();
            change(&mut config);
            config.check("x").unwrap_err().to_string()
        };
        assert!(AdapterConfig::default().check("x").is_ok());
        assert!(refused(|c| c.rank = 0).contains("rank 0"));
        assert!(refused(|c| c.alpha = f64::NAN).contains("lora_alpha"));
        assert!(refused(|c| c.dropout = 1.0).contains("lora_dropout"));
        assert!(refused(|c| c.rank_pattern = vec![("fc1".into(), 0)]).contains("fc1"));
        assert!(refused(|c| c.alpha_pattern = vec![("(".into(), 1.0)]).contains("regular expression"));
        assert!(refused(|c| c.target_modules = Targets::Pattern("[".into())).contains("regular expression"));
    }
}
