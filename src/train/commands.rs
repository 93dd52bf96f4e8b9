//! What the commands besides train and predict do: eval, merge, plan.

use std::path::Path;
use std::sync::Arc;

use super::errors_sheet::{self, Errors};
use super::eval_files;
use super::evaluate::{Evaluation, Thresholds, evaluate_each};
use super::loaded::load;
use super::place::Place;
use super::report::{EvalReport, Planned};
use super::run_dir::{RunDir, write_labels};
use super::step::StepOptions;
use super::ui::Ui;
use super::{init_adapter, inputs, loss};
use crate::autograd::Backend;
use crate::config::{
    Augment, Device, EvalConfig, Format, MergeConfig, ModelSource, Precision, Recompute, Resize, TrainConfig,
};
use crate::cpu::Cpu;
use crate::cuda::Cuda;
use crate::data::{self, Batch, Dataset, ImageCache, Loader, LoaderOptions, Splits};
use crate::gpu::{self, Arch};
use crate::io::{BackboneSpec, atomic};
use crate::task::labels::Labels;
use crate::vit::VitConfig;
use crate::{Error, Result, kernels};

/// Images that go through the model at once.
const BATCH: usize = 64;

/// Measures a run's best epoch on labelled images.
///
/// # Errors
/// What [`load`] says; data whose classes the model does not know.
pub fn eval(config: &EvalConfig, ui: &Ui) -> Result<EvalReport> {
    let run = RunDir::open(&config.model, "--model")?;
    let settings = run.read_config()?;
    let labels = run.read_labels()?;
    let set = match held_out(&run, &settings, &labels, &config.data, ui)? {
        Some(set) => set,
        None => {
            let format = config.format.unwrap_or(match settings.format {
                // What is evaluated need not lie as what was trained on did.
                Format::Folder | Format::Csv => Format::Auto,
                own => own,
            });
            data::open_for_eval(&config.data, format, &labels)?
        }
    };
    let cache = Arc::new(ImageCache::open(&config.cache)?);
    let mut splits = Splits { train: set, val: None, test: None, description: String::new() };
    inputs::verify(&mut splits, false, &cache, ui)?;
    let evaluation = eval_set(config, splits.train, cache, ui)?;
    let mut more = evaluation.more();
    let images = more.shift_remove("images").and_then(|count| count.as_u64()).unwrap_or(0);
    Ok(EvalReport { images, loss: evaluation.loss, accuracy: evaluation.accuracy(), more })
}

/// The images that a run held back for testing, where `data` is what it was trained on: the rest it has seen.
fn held_out(run: &RunDir, config: &TrainConfig, labels: &Labels, data: &Path, ui: &Ui) -> Result<Option<Dataset>> {
    let Some(own) = config.data.as_ref().filter(|_| config.test_fraction > 0.0) else { return Ok(None) };
    let same = matches!((own.canonicalize(), data.canonicalize()), (Ok(own), Ok(data)) if own == data);
    if !same {
        ui.note(&format!(
            "note: the run held images of {} back for testing; of another folder all are measured, also copies of those it was trained on",
            own.display()
        ));
        return Ok(None);
    }
    let splits = inputs::open_data(config)?;
    // Other images are held back of others: some of these it may have seen.
    if splits.train.labels().names != labels.names
        || run.images()?.is_some_and(|was| was != inputs::fingerprint(&splits))
    {
        return Err(Error::input(format!(
            "--data {}: its images are not those that the run was trained on, so the ones held back cannot be told; give test images in a folder of their own",
            data.display()
        )));
    }
    if let Some(test) = &splits.test {
        ui.note(&format!("data: the {} images held back for testing", test.items.len()));
    }
    Ok(splits.test)
}

/// Measures a run's best epoch on a set that was read before.
///
/// # Errors
/// What [`load`] says.
pub(crate) fn eval_set(config: &EvalConfig, set: Dataset, cache: Arc<ImageCache>, ui: &Ui) -> Result<Evaluation> {
    match Place::choose(config.device, config.precision)? {
        Place::Cpu => eval_on(Cpu::new(None)?, config, set, cache, ui),
        Place::Cuda(device, precision) => eval_on(Cuda::new(&device, precision), config, set, cache, ui),
    }
}

fn eval_on<B: Backend>(
    backend: B,
    config: &EvalConfig,
    set: Dataset,
    cache: Arc<ImageCache>,
    ui: &Ui,
) -> Result<Evaluation> {
    let source = ModelSource::Run(config.model.clone());
    let loaded = load(backend, &source, None, None, ui)?.with_threshold(config.threshold)?;
    let labels = &loaded.model.labels;
    let run = RunDir::open(&config.model, "--model")?.read_config()?;
    let options = LoaderOptions {
        batch_size: BATCH,
        input_size: loaded.model.vit.input_size,
        resize: loaded.resize,
        augment: Augment::None,
        shuffle: false,
        balanced: false,
        seed: 0,
        on_device: loaded.model.params.backend().crops(),
    };
    let set = Arc::new(set);
    let loader = Loader::new(set.clone(), options, cache)?;
    let bar = ui.bar(loader.batches_per_epoch() as u64, "eval");
    // Without the weights that training may have used: what is evaluated may lack a class.
    let run_micro = run.micro_batch;
    let plain = TrainConfig { class_weights: None, ..run };
    let criterion = loss::criterion(&plain, labels, &vec![1; labels.len()])?.plain();
    let options = StepOptions { criterion, micro_batch: run_micro, recompute: Recompute::NOTHING };
    let thresholds = Thresholds::Given(labels.thresholds.as_deref());
    let mut errors = config.out.is_some().then(|| Errors::new(labels));
    let mut keep = |batch: &Batch, logits: &[f32]| errors.iter_mut().for_each(|errors| errors.add(batch, logits));
    let evaluation = evaluate_each(&loaded.model, loader.epoch(0, 0), &options, thresholds, &bar, &mut keep)?;
    bar.finish();
    if let Some(out) = &config.out {
        eval_files::write(out, &labels.names, &evaluation.measures)?;
        errors_sheet::write(out, &errors.map_or_else(Vec::new, |errors| errors.ranked(&set.items)))?;
        ui.note(&format!("by class: {}", out.join("classes.csv").display()));
        ui.note(&format!("what is wrong: {}", out.join("errors.png").display()));
    }
    Ok(evaluation)
}

/// Writes a classifier as a plain transformers folder, adapters merged into the weights.
///
/// # Errors
/// An output folder that holds something, what [`load`] says, a full disk.
pub fn merge(config: &MergeConfig, ui: &Ui) -> Result<()> {
    RunDir::check_free(&config.out)?;
    let loaded = load(Cpu::new(None)?, &config.model, None, None, ui)?;
    if let Some(parent) = config.out.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(|e| Error::io("create", parent, e))?;
    }
    atomic::replace_dir(&config.out, |dir| {
        loaded.model.save_whole(dir)?;
        // A tree and thresholds have no place in transformers' config.json.
        if loaded.model.labels.is_plain() { Ok(()) } else { write_labels(dir, &loaded.model.labels) }
    })?;
    let resize = if loaded.resize == Resize::Crop { "crop" } else { "squash" };
    ui.note(&format!(
        "trained on images of {} px, resized by {resize}: use it with --input-size {} --resize {resize}",
        loaded.model.vit.input_size, loaded.model.vit.input_size
    ));
    Ok(())
}

/// The memory plan of `peftk train` with the same flags; nothing is trained and no weights are read, where a name says enough.
///
/// # Errors
/// Data or a backbone that cannot be read.
pub fn plan(config: &TrainConfig, ui: &Ui) -> Result<Planned> {
    let splits = inputs::open_data(config)?;
    let spec = config.backbone.as_deref().map_or(Ok(BackboneSpec::Embedded), BackboneSpec::parse)?;
    let vit = match &spec {
        BackboneSpec::Embedded => VitConfig::named("micro")?,
        BackboneSpec::Random { size } => VitConfig::named(size)?,
        BackboneSpec::Hub { name } => VitConfig::named(name.trim_start_matches("dinov2-"))?,
        BackboneSpec::Folder(_) | BackboneSpec::File(_) => crate::io::load(&spec, &mut |note| ui.note(note))?.config,
    };
    let mut config = config.clone();
    init_adapter::settle(&mut config, &vit)?;
    let place = match config.device {
        // A plan needs no GPU: without one it is for the kernels of a Hopper.
        Device::Cuda(_) if gpu::probe().problem.is_some() || kernels::require().is_err() => {
            Place::Cuda(gpu::Device::dry(Arch::Sm90a), config.precision.unwrap_or(Precision::Bf16))
        }
        device => Place::choose(device, config.precision)?,
    };
    ui.note(&format!("planned for: {}", place.words()));
    let memory = super::run::settle(&place, &mut config, &vit, &splits, ui)?;
    (config.device, config.precision) = place.settings(config.device);
    Ok(Planned { memory, config, arch: place.arch() })
}
