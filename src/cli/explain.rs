//! `peftk explain`.

use std::path::PathBuf;

use super::predict::SourceFlags;
use super::{check_input_size, check_precision, words};
use crate::config::{Device, ExplainConfig, Method, Precision, Resize};
use crate::train::{self, ExplainedLabel, Explanation, Probability, Ui};
use crate::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: SourceFlags,
    /// Folder of the pictures; one of the same name is replaced
    #[arg(long, value_name = "DIR", default_value = "explained")]
    out: PathBuf,
    /// rollout (where attention went, the same for every label) or gradient (what counted for a label) [default: both]
    #[arg(long, value_name = "METHOD", value_parser = words::word::<Method>)]
    method: Option<Method>,
    /// Explain this label instead of what is predicted; may be given again, or be a list between commas
    #[arg(long, value_name = "NAME")]
    label: Vec<String>,
    /// Side of the model's input in pixels, a multiple of 14 [default: the run's, or the backbone's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    input_size: Option<usize>,
    /// How an image becomes a square: crop or squash [default: the run's, or squash]
    #[arg(long, value_name = "HOW", value_parser = words::word::<Resize>)]
    resize: Option<Resize>,
    /// Where it runs: auto, cpu or cuda[:N]
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Device,
    /// bf16 (a GPU alone) or f32 [default: bf16 on a GPU, f32 on the CPU]
    #[arg(long, value_name = "TYPE", value_parser = words::word::<Precision>)]
    precision: Option<Precision>,
    /// One JSON object an image on stdout
    #[arg(long)]
    json: bool,
    /// Nothing on stderr but errors
    #[arg(long)]
    quiet: bool,
    /// Images and folders of images
    #[arg(value_name = "IMAGE|DIR", required = true)]
    paths: Vec<PathBuf>,
}

pub fn main(args: Args) -> Result<()> {
    check_precision(args.device, args.precision)?;
    let config = ExplainConfig {
        input_size: args.input_size.map(check_input_size).transpose()?,
        model: args.source.source()?,
        resize: args.resize,
        out: args.out,
        methods: args.method.map_or(Method::ALL.to_vec(), |method| vec![method]),
        labels: args.label,
        json: args.json,
        device: args.device,
        precision: args.precision,
        paths: args.paths,
    };
    let ui = Ui::new(args.quiet);
    train::explain(&config, &ui, &mut |explanation| ui.result(&line(&explanation, config.json)?))
}

/// One image's line: a JSON object, or path, labels, probabilities and files between tabs.
fn line(explanation: &Explanation, json: bool) -> Result<String> {
    let path = explanation.path.display();
    if json {
        return serde_json::to_string(explanation)
            .map_err(|e| Error::input(format!("{path}: --json cannot name it or its pictures: {e}")));
    }
    let labels = match &explanation.label {
        ExplainedLabel::One(name) => name.clone(),
        ExplainedLabel::Many(names) => names.join(", "),
    };
    let probs = match &explanation.prob {
        Probability::One(prob) => format!("{prob:.4}"),
        Probability::Many(probs) => probs.iter().map(|prob| format!("{prob:.4}")).collect::<Vec<_>>().join(", "),
    };
    let files: Vec<String> = explanation.files.iter().map(|file| file.display().to_string()).collect();
    Ok(format!("{path}\t{labels}\t{probs}\t{}", files.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::PredictedLabel;

    #[test]
    fn lines() {
        let mut explanation = Explanation {
            path: "a/b.jpg".into(),
            label: ExplainedLabel::One("cat".into()),
            prob: Probability::One(0.75),
            method: Method::ALL.to_vec(),
            files: vec!["out/b.rollout.png".into(), "out/b.gradient.png".into()],
            predicted: PredictedLabel::One("cat".into()),
        };
        assert_eq!(
            line(&explanation, true).unwrap(),
            r#"{"path":"a/b.jpg","label":"cat","prob":0.75,"method":["rollout","gradient"],"files":["out/b.rollout.png","out/b.gradient.png"],"predicted":"cat"}"#
        );
        assert_eq!(line(&explanation, false).unwrap(), "a/b.jpg\tcat\t0.7500\tout/b.rollout.png, out/b.gradient.png");
        explanation.label = ExplainedLabel::Many(vec!["cat".into(), "night".into()]);
        explanation.prob = Probability::Many(vec![0.75, 0.5]);
        assert!(line(&explanation, false).unwrap().starts_with("a/b.jpg\tcat, night\t0.7500, 0.5000\t"));
        assert!(line(&explanation, true).unwrap().contains(r#""label":["cat","night"],"prob":[0.75,0.5]"#));
    }
}
