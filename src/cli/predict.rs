//! `peftk predict`.

use std::path::PathBuf;

use super::{check_input_size, check_precision, check_threshold, words};
use crate::config::{Device, ModelSource, Precision, PredictConfig, Resize};
use crate::train::run_dir::RunDir;
use crate::train::{self, PredictedLabel, Prediction, Ui};
use crate::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    of: OnImages,
    /// Multi-label: give a label above this probability [default: the run's tuned thresholds, or 0.5]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    threshold: Option<f64>,
}

/// The flags of commands that use a classifier on images.
#[derive(Debug, clap::Args)]
pub struct OnImages {
    #[command(flatten)]
    pub source: SourceFlags,
    /// Side of the model's input in pixels, a multiple of 14 [default: the run's, or the backbone's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub input_size: Option<usize>,
    /// How an image becomes a square: crop or squash [default: the run's, or squash]
    #[arg(long, value_name = "HOW", value_parser = words::word::<Resize>)]
    pub resize: Option<Resize>,
    /// Where it runs: auto, cpu or cuda[:N]
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: Device,
    /// bf16 (a GPU alone) or f32 [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_name = "TYPE", value_parser = words::word::<Precision>)]
    pub precision: Option<Precision>,
    /// One JSON object an image on stdout
    #[arg(long)]
    pub json: bool,
    /// Nothing on stderr but errors
    #[arg(long)]
    pub quiet: bool,
    /// Images and folders of images
    #[arg(value_name = "IMAGE|DIR", required = true)]
    pub paths: Vec<PathBuf>,
}

/// The flags that name a classifier.
#[derive(Debug, clap::Args)]
pub struct SourceFlags {
    /// Run folder
    #[arg(long, value_name = "RUN", conflicts_with_all = ["backbone", "adapter"])]
    model: Option<PathBuf>,
    /// Backbone: a name, a folder or a file
    #[arg(long, value_name = "B")]
    backbone: Option<String>,
    /// Adapter folder of peft's form
    #[arg(long, value_name = "A", requires = "backbone")]
    adapter: Option<PathBuf>,
}

impl SourceFlags {
    /// The classifier; a run must be there.
    pub fn source(self) -> Result<ModelSource> {
        match (self.model, self.backbone) {
            (Some(run), _) => {
                RunDir::open(&run, "--model")?;
                Ok(ModelSource::Run(run))
            }
            (None, Some(backbone)) => Ok(ModelSource::Backbone { backbone, adapter: self.adapter }),
            (None, None) => Err(Error::input("expected --model RUN or --backbone B")),
        }
    }
}

pub fn main(args: Args) -> Result<()> {
    let Args { of, threshold } = args;
    check_precision(of.device, of.precision)?;
    let config = PredictConfig {
        input_size: of.input_size.map(check_input_size).transpose()?,
        model: of.source.source()?,
        resize: of.resize,
        threshold: threshold.map(check_threshold).transpose()?,
        json: of.json,
        device: of.device,
        precision: of.precision,
        paths: of.paths,
    };
    let ui = Ui::new(of.quiet);
    train::predict(&config, &ui, &mut |prediction| ui.result(&line(&prediction, config.json)?))
}

/// One image's line: a JSON object, or path, label and probability between tabs.
fn line(prediction: &Prediction, json: bool) -> Result<String> {
    if json {
        return serde_json::to_string(prediction)
            .map_err(|e| Error::input(format!("{}: --json cannot name it: {e}", prediction.path.display())));
    }
    let highest = prediction.probs.iter().copied().fold(0.0, f32::max);
    let path = prediction.path.display();
    Ok(match &prediction.label {
        PredictedLabel::One(name) => format!("{path}\t{name}\t{highest:.4}"),
        PredictedLabel::Many(names) | PredictedLabel::Path(names) if names.is_empty() => format!("{path}\t(none)"),
        PredictedLabel::Path(names) => format!("{path}\t{}", names.join(" > ")),
        PredictedLabel::Many(names) => format!("{path}\t{}", names.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let mut prediction = Prediction {
            path: "a/b.jpg".into(),
            logits: vec![0.1, -1.5],
            probs: vec![0.75, 0.25],
            label: PredictedLabel::One("cat".into()),
        };
        assert_eq!(
            line(&prediction, true).unwrap(),
            r#"{"path":"a/b.jpg","logits":[0.1,-1.5],"probs":[0.75,0.25],"label":"cat"}"#
        );
        assert_eq!(line(&prediction, false).unwrap(), "a/b.jpg\tcat\t0.7500");
        prediction.label = PredictedLabel::Many(vec![]);
        assert!(line(&prediction, true).unwrap().ends_with(r#""label":[]}"#));
        assert_eq!(line(&prediction, false).unwrap(), "a/b.jpg\t(none)");
    }
}
