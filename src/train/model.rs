//! A classifier from its parts: backbone, adapter, head; for training, and from a run folder.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::adapter::{self, AdapterFile};
use crate::autograd::{Backend, Params};
use crate::config::{AdapterInit, Pool, Strategy, Task, TrainConfig};
use crate::io::atomic;
use crate::io::state::{Backbone, Classifier, HostTensor, StateDict};
use crate::task::labels::Labels;
use crate::vit::build::{BuildOptions, build};
use crate::vit::{Vit, VitConfig, export};
use crate::{Error, Result};

/// A model on a device with what is needed to write it to disk.
pub struct Model<B: Backend> {
    /// Its structure.
    pub vit: Vit,
    /// Its values.
    pub params: Params<B>,
    /// What the outputs stand for.
    pub labels: Labels,
    /// The adapters' configuration and starting values.
    adapter: Option<AdapterFile>,
    /// Adapters that took a part out of the backbone (PiSSA): written as plain adapters on the untouched one.
    rewrote_base: bool,
    /// The backbone on the host, for whole-model files; only kept where one is written.
    original: StateDict,
    /// What the backbone came from, for the adapter's own record.
    base_name: String,
}

impl<B: Backend> Model<B> {
    /// A model to train as `config` says, for data of these classes. `note` is told where the head came from.
    pub fn for_training(
        backend: B,
        config: &TrainConfig,
        mut backbone: Backbone,
        labels: Labels,
        note: &mut dyn FnMut(String),
    ) -> Result<Self> {
        let mut adapter = match (&config.init_adapter, &config.adapter) {
            (Some(dir), _) => {
                let file = adapter::read(dir)?;
                file.check(&backbone.config)?;
                Some(file)
            }
            (None, Some(settings)) if config.strategy.has_adapter() => {
                let dora = config.strategy == Strategy::Dora;
                Some(adapter::init(settings, dora, &backbone.config, &mut backbone.state, config.seed)?)
            }
            _ => None,
        };
        if let Some(file) = &adapter
            && file.config.use_dora != (config.strategy == Strategy::Dora)
        {
            return Err(Error::input(format!(
                "--init-adapter: the folder holds a {} adapter, --strategy says {}",
                if file.config.use_dora { "DoRA" } else { "LoRA" },
                if config.strategy == Strategy::Dora { "dora" } else { "lora" }
            )));
        }
        let width = head_width(&backbone.config, config.pool);
        let from_adapter = adapter.as_mut().and_then(|file| file.classifier.take());
        let head = choose_head(from_adapter, &backbone, width, labels.len(), config.seed, note)?;
        let options = BuildOptions {
            train_backbone: config.strategy == Strategy::Full,
            train: true,
            adapter: adapter.as_ref(),
            dora_norm_grad: config.adapter.as_ref().is_some_and(|a| a.dora_norm_grad),
            pool: config.pool,
            input_size: config.input_size,
        };
        let writes_whole = !config.strategy.has_adapter();
        let mut params = Params::new(backend);
        let original = if writes_whole { backbone.state.clone() } else { StateDict::new() };
        let vit = build(&mut params, &backbone.config, backbone.state, &head, &options)?;
        let rewrote_base =
            config.init_adapter.is_none() && config.adapter.as_ref().is_some_and(|a| a.init == AdapterInit::Pissa);
        Ok(Self { vit, params, labels, adapter, rewrote_base, original, base_name: backbone.source })
    }

    /// A model that is only run. `labels`: what is known of its outputs besides what the backbone says.
    pub fn for_inference(
        backend: B,
        backbone: Backbone,
        mut adapter: Option<AdapterFile>,
        labels: Option<Labels>,
        input_size: usize,
    ) -> Result<Self> {
        if let Some(file) = &adapter {
            file.check(&backbone.config)?;
        }
        let head =
            adapter.as_mut().and_then(|file| file.classifier.take()).or(backbone.classifier).ok_or_else(|| {
                Error::input(format!(
                    "{}: no classifier in the backbone or the adapter: give --model RUN, or --adapter",
                    backbone.source
                ))
            })?;
        let width = head.weight.shape.get(1).copied().unwrap_or(0);
        // A head that was trained on CLS alone is stored with zeros for the mean: its width tells how it is to be run.
        let pool = if width == backbone.config.hidden { Pool::Cls } else { Pool::ClsMean };
        let classes = head.bias.data.len();
        let labels = labels.unwrap_or_else(|| {
            let names = backbone.labels.unwrap_or_else(|| (0..classes).map(|i| format!("LABEL_{i}")).collect());
            Labels::new(backbone.task.unwrap_or(Task::Multiclass), &names)
        });
        if labels.len() != classes {
            return Err(Error::input(format!(
                "the classifier has {classes} classes, {} names are given",
                labels.len()
            )));
        }
        let options = BuildOptions {
            train_backbone: false,
            train: false,
            adapter: adapter.as_ref(),
            dora_norm_grad: false,
            pool,
            input_size,
        };
        let mut params = Params::new(backend);
        let original = backbone.state.clone();
        let vit = build(&mut params, &backbone.config, backbone.state, &head, &options)?;
        Ok(Self { vit, params, labels, adapter, rewrote_base: false, original, base_name: backbone.source })
    }

    /// Numbers that training changes.
    pub fn trainable(&self) -> usize {
        self.params.trainable().map(|(_, param)| param.value.elements()).sum()
    }

    /// All numbers of the model.
    pub fn total(&self) -> usize {
        self.params.iter().map(|(_, param)| param.value.elements()).sum()
    }

    /// Writes the trained result into a run folder: `adapter/`, or for full and freeze a whole model.
    pub fn save_result(&self, run: &Path) -> Result<()> {
        let Some(template) = &self.adapter else { return self.save_whole(run) };
        let mut file = export::adapter(&self.vit, &self.params, template)?;
        if self.rewrote_base {
            file = adapter::as_plain(&file, template)?;
        }
        // A head on CLS alone is widened by zeros: peft's model has no other form.
        file.classifier = file.classifier.map(|head| head.with_mean(self.vit.config.hidden));
        let registers = self.vit.config.registers > 0;
        atomic::replace_dir(&run.join("adapter"), |dir| adapter::write(dir, &file, registers, Some(&self.base_name)))
    }

    /// Writes a transformers folder, adapters merged.
    pub fn save_whole(&self, dir: &Path) -> Result<()> {
        let state = export::backbone(&self.vit, &self.params, &self.original)?;
        let head = export::classifier(&self.vit, &self.params)?;
        crate::io::save_transformers(dir, &self.vit.config, &state, Some(&head), Some(&self.labels.names))?;
        crate::io::save_task(dir, self.labels.task)
    }
}

/// What the head reads: D, or 2 D with the mean.
pub fn head_width(config: &VitConfig, pool: Pool) -> usize {
    config.hidden * if pool == Pool::ClsMean { 2 } else { 1 }
}

/// The adapter's head, else the backbone's where its class count is the data's, else a fresh one.
fn choose_head(
    from_adapter: Option<Classifier>,
    backbone: &Backbone,
    width: usize,
    classes: usize,
    seed: u64,
    note: &mut dyn FnMut(String),
) -> Result<Classifier> {
    if let Some(head) = from_adapter {
        let head = if width == backbone.config.hidden { head.cls_only(width).unwrap_or(head) } else { head };
        if head.weight.shape != [classes, width] {
            return Err(Error::input(format!(
                "--init-adapter: its classifier is {:?}, the data and --pool need [{classes}, {width}]",
                head.weight.shape
            )));
        }
        note("head: the adapter folder's classifier".into());
        return Ok(head);
    }
    if let Some(head) = &backbone.classifier {
        if head.weight.shape == [classes, width] {
            note(format!("head: the backbone's own classifier ({classes} classes, as the data)"));
            return Ok(head.clone());
        }
        note(format!(
            "head: fresh, from the seed; the backbone's classifier is {:?}, the data needs [{classes}, {width}]",
            head.weight.shape
        ));
    } else {
        note("head: fresh, from the seed".into());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // A stream of its own, apart from the adapters'.
    rng.set_stream(u64::MAX);
    // transformers' initializer_range.
    let values = (0..classes * width).map(|_| {
        let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
        ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos() * 0.02) as f32
    });
    Ok(Classifier {
        weight: HostTensor { shape: vec![classes, width], data: values.collect() },
        bias: HostTensor { shape: vec![classes], data: vec![0.0; classes] },
    })
}
