//! peft's two files: adapter_config.json and adapter_model.safetensors.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::config::{AdapterConfig, NameFamily, Site};
use super::config_json;
use crate::io::state::check_finite;
use crate::io::{Classifier, HostTensor, StateDict, atomic, one_line, quoted, tensor_file};
use crate::vit::VitConfig;
use crate::vit::names::Linear;
use crate::{Error, Result};

/// What every tensor's name starts with.
const ROOT: &str = "base_model.model.";

/// One module's adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterModule {
    /// The block, from 0.
    pub layer: usize,
    /// The linear.
    pub linear: Linear,
    /// A [r, in].
    pub a: HostTensor,
    /// B [out, r].
    pub b: HostTensor,
    /// DoRA's magnitude, shape `[out]`.
    pub magnitude: Option<HostTensor>,
}

/// An adapter in host memory.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterFile {
    /// Its configuration.
    pub config: AdapterConfig,
    /// The modules, by block, then in the order of the forward pass.
    pub modules: Vec<AdapterModule>,
    /// The head, where it was stored beside them.
    pub classifier: Option<Classifier>,
}

/// Reads an adapter's folder. [`AdapterFile::check`] then holds it against a model.
///
/// # Errors
/// One line naming the file and the field or tensor: a setting that would change what the adapter computes and is not
/// supported; a module that is no linear of a DINOv2 block; A without B; a magnitude without DoRA or the reverse; a rank
/// that differs from the configuration's; names of both families mixed.
pub fn read(dir: &Path) -> Result<AdapterFile> {
    let json = dir.join("adapter_config.json");
    let text = std::fs::read(&json).map_err(|e| Error::io("read", &json, e))?;
    let bad = |what: String| Error::input(format!("{}: {what}", json.display()));
    let map: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|e| bad(format!("expected a JSON object ({})", one_line(e))))?;
    let config = config_json::read(&map).map_err(bad)?;
    config.check(&json.display().to_string())?;

    let path = dir.join("adapter_model.safetensors");
    assemble(config, tensor_file::read(&path)?, &path.display().to_string())
}

/// A, B and magnitude of a module while they are being found.
#[derive(Default)]
struct Parts {
    a: Option<HostTensor>,
    b: Option<HostTensor>,
    magnitude: Option<HostTensor>,
}

fn assemble(mut config: AdapterConfig, mut tensors: StateDict, source: &str) -> Result<AdapterFile> {
    let bad = |what: String| Error::input(format!("{source}: {what}"));
    let classifier = Classifier::take(&mut tensors, &format!("{ROOT}classifier."), source)?;
    if let Some(name) = config.modules_to_save.iter().find(|name| *name != "classifier") {
        return Err(bad(format!("modules_to_save names {}; only the classifier can be stored whole", quoted(name))));
    }
    if classifier.is_none() && !config.modules_to_save.is_empty() {
        return Err(bad(format!("tensor {} is missing, though modules_to_save names it", quoted("classifier.weight"))));
    }
    let mut found: BTreeMap<Site, Parts> = BTreeMap::new();
    let mut names = Names::default();
    for (name, tensor) in tensors {
        check_finite(source, &name, &tensor)?;
        let (site, part) = names.parse(&name).map_err(bad)?;
        let parts = found.entry(site).or_default();
        let slot = match part {
            Part::A => &mut parts.a,
            Part::B => &mut parts.b,
            Part::Magnitude => &mut parts.magnitude,
        };
        if slot.replace(tensor).is_some() {
            return Err(bad(format!("tensor {} is there twice under different spellings", quoted(&name))));
        }
    }
    config.family = names.family(&config);
    config.prefix = names.prefix.unwrap_or("dinov2").to_owned();
    let modules =
        found.into_iter().map(|(site, parts)| module(&config, site, parts).map_err(bad)).collect::<Result<_>>()?;
    Ok(AdapterFile { config, modules, classifier })
}

/// Puts a module together and checks what needs no model.
fn module(config: &AdapterConfig, site: Site, parts: Parts) -> std::result::Result<AdapterModule, String> {
    let name = quoted(&config.module_name(site, config.family));
    let missing = |part: &str| format!("{part} of {name} is missing");
    let a = parts.a.ok_or_else(|| missing("lora_A"))?;
    let b = parts.b.ok_or_else(|| missing("lora_B"))?;
    if config.use_dora && parts.magnitude.is_none() {
        return Err(missing("lora_magnitude_vector") + ", though use_dora is true");
    }
    if !config.use_dora && parts.magnitude.is_some() {
        return Err(format!("{name} has a lora_magnitude_vector, though use_dora is false"));
    }
    let rank = config.rank_of(site);
    match (&a.shape[..], &b.shape[..]) {
        (&[found, _], &[_, also]) if found == rank && also == rank => {}
        (a, b) => return Err(format!("{name} has lora_A {a:?} and lora_B {b:?}, expected rank {rank}")),
    }
    Ok(AdapterModule { layer: site.0, linear: site.1, a, b, magnitude: parts.magnitude })
}

enum Part {
    A,
    B,
    Magnitude,
}

/// What the tensors' names have told so far.
#[derive(Default)]
struct Names {
    prefix: Option<&'static str>,
    /// A module whose name only one family has.
    decisive: Option<(NameFamily, String)>,
}

impl Names {
    fn parse(&mut self, name: &str) -> std::result::Result<(Site, Part), String> {
        let unknown = || format!("tensor {} belongs to no linear of a DINOv2 block", quoted(name));
        let rest = name.strip_prefix(ROOT).ok_or_else(unknown)?;
        // peft stores the magnitude bare; the module that holds it in memory calls it `weight`.
        let ends = [
            (".lora_A.weight", Part::A),
            (".lora_B.weight", Part::B),
            (".lora_magnitude_vector", Part::Magnitude),
            (".lora_magnitude_vector.weight", Part::Magnitude),
        ];
        let (module, part) =
            ends.into_iter().find_map(|(end, part)| Some((rest.strip_suffix(end)?, part))).ok_or_else(unknown)?;
        let (prefix, inside) = ["dinov2", "dinov2_with_registers", ""]
            .into_iter()
            .find_map(|prefix| {
                let rest = module.strip_prefix(prefix)?;
                let rest = if prefix.is_empty() { rest } else { rest.strip_prefix('.')? };
                Some((prefix, rest.strip_prefix("encoder.layer.")?))
            })
            .ok_or_else(unknown)?;
        if *self.prefix.get_or_insert(prefix) != prefix {
            return Err(format!("tensor {} has another prefix than those before it", quoted(name)));
        }
        let (layer, path) = inside.split_once('.').ok_or_else(unknown)?;
        let layer: usize = layer.parse().map_err(|_| unknown())?;
        let families = [NameFamily::V5, NameFamily::V4];
        let named = |family: NameFamily| {
            let exists = |linear: &Linear| match linear {
                Linear::WeightsIn => family == NameFamily::V4,
                Linear::GateProj | Linear::UpProj => family == NameFamily::V5,
                _ => true,
            };
            Linear::ALL.into_iter().filter(exists).find(|&linear| family.path(linear) == path)
        };
        let (linear, only) = match families.map(named) {
            [Some(linear), Some(_)] => (linear, None),
            [Some(linear), None] => (linear, Some(NameFamily::V5)),
            [None, Some(linear)] => (linear, Some(NameFamily::V4)),
            [None, None] => return Err(unknown()),
        };
        if let Some(only) = only {
            let (family, first) = self.decisive.get_or_insert_with(|| (only, name.to_owned()));
            if *family != only {
                return Err(format!("tensors {} and {} mix transformers 4 and 5 names", quoted(first), quoted(name)));
            }
        }
        Ok(((layer, linear), part))
    }

    /// The family of the names; where every module is called the same in both, by what the targets say.
    fn family(&self, config: &AdapterConfig) -> NameFamily {
        if let Some((family, _)) = &self.decisive {
            return *family;
        }
        let super::Targets::Names(list) = &config.target_modules else { return NameFamily::V5 };
        let old = |name: &String| {
            ["query", "key", "value", "dense", "weights_in", "weights_out"]
                .iter()
                .any(|&o| super::patterns::ends_in(name, o))
        };
        if list.iter().any(old) { NameFamily::V4 } else { NameFamily::V5 }
    }
}

impl AdapterFile {
    /// Holds the adapter against a model: every site that the configuration targets has a module, every module is a
    /// target, lies in the model, and has its shape; the classifier fits.
    ///
    /// # Errors
    /// One line that names the module, what was expected and what was found.
    pub fn check(&self, model: &VitConfig) -> Result<()> {
        self.config.check("adapter")?;
        let name = |site: Site| quoted(&self.config.module_name(site, self.config.family));
        let bad = |what: String| Err(Error::input(format!("adapter: {what}")));
        for module in &self.modules {
            let site = (module.layer, module.linear);
            if module.layer >= model.layers {
                return bad(format!(
                    "{} is in block {}, the model has {} blocks",
                    name(site),
                    module.layer,
                    model.layers
                ));
            }
            if !module.linear.is_in(model) {
                let mlp = if model.swiglu { "SwiGLU" } else { "GELU" };
                return bad(format!("the model has no {}: its MLP is {mlp}", name(site)));
            }
            if !self.config.is_target(site) {
                return bad(format!("{} has an adapter but is not among the configuration's targets", name(site)));
            }
            let (out, input) = module.linear.shape(model);
            let rank = self.config.rank_of(site);
            if module.a.shape != [rank, input] || module.b.shape != [out, rank] {
                return bad(format!(
                    "{} has lora_A {:?} and lora_B {:?}, expected [{rank}, {input}] and [{out}, {rank}]",
                    name(site),
                    module.a.shape,
                    module.b.shape
                ));
            }
            match &module.magnitude {
                Some(magnitude) if magnitude.shape != [out] => {
                    return bad(format!("{} has a magnitude of {:?}, expected [{out}]", name(site), magnitude.shape));
                }
                magnitude if magnitude.is_some() != self.config.use_dora => {
                    return bad(format!("{} must have a magnitude with DoRA and none without", name(site)));
                }
                _ => {}
            }
        }
        let expected = self.config.sites(model);
        if expected.is_empty() {
            return bad("target_modules name no linear of the model".into());
        }
        if let Some(&site) = expected.iter().find(|&&site| !self.modules.iter().any(|m| (m.layer, m.linear) == site)) {
            return bad(format!(
                "lora_A and lora_B of {} are missing, though the configuration targets it",
                name(site)
            ));
        }
        self.classifier.as_ref().map_or(Ok(()), |classifier| classifier.check(model.hidden, "adapter"))
    }
}

/// Writes peft's two files into `dir` (made if need be), under the adapter's own family of names. `registers`: the
/// backbone has them, which decides how modules are prefixed. `base_model` is recorded; absent, what was read is kept.
///
/// # Errors
/// [`Error::Io`] where a file cannot be written; a configuration out of range.
pub fn write(dir: &Path, adapter: &AdapterFile, registers: bool, base_model: Option<&str>) -> Result<()> {
    let prefix = if registers { "dinov2_with_registers" } else { "dinov2" };
    let mut config = AdapterConfig { prefix: prefix.into(), ..adapter.config.clone() };
    if adapter.classifier.is_some() {
        // Without it peft takes the head's tensors for keys it doesn't know.
        config.modules_to_save = vec!["classifier".into()];
    }
    config.check(&dir.display().to_string())?;
    let mut tensors: Vec<(String, &HostTensor)> = Vec::new();
    for module in &adapter.modules {
        let name = format!("{ROOT}{}", config.module_name((module.layer, module.linear), config.family));
        tensors.push((format!("{name}.lora_A.weight"), &module.a));
        tensors.push((format!("{name}.lora_B.weight"), &module.b));
        if let Some(magnitude) = &module.magnitude {
            tensors.push((format!("{name}.lora_magnitude_vector"), magnitude));
        }
    }
    if let Some(classifier) = &adapter.classifier {
        tensors.push((format!("{ROOT}classifier.weight"), &classifier.weight));
        tensors.push((format!("{ROOT}classifier.bias"), &classifier.bias));
    }
    std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    let json = config_json::write(&config, registers, base_model);
    let mut text = serde_json::to_vec_pretty(&json).map_err(|e| Error::Internal(one_line(e)))?;
    text.push(b'\n');
    atomic::write_file(&dir.join("adapter_config.json"), &text)?;
    tensor_file::write(&dir.join("adapter_model.safetensors"), tensors)
}
