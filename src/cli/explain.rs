//! `peftk explain`.

use std::path::PathBuf;

use super::predict::OnImages;
use super::{check_input_size, check_precision, words};
use crate::config::{ExplainConfig, Method};
use crate::train::{self, ExplainedLabel, Explanation, Probability, Ui};
use crate::{Error, Result};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    of: OnImages,
    /// Folder of the pictures; one of the same name is replaced
    #[arg(long, value_name = "DIR", default_value = "explained")]
    out: PathBuf,
    /// rollout (where attention went, the same for every label) or gradient (what counted for a label) [default: both]
    #[arg(long, value_name = "METHOD", value_parser = words::word::<Method>)]
    method: Option<Method>,
    /// Explain this label instead of what is predicted; may be given again, or be a list between commas
    #[arg(long, value_name = "NAME")]
    label: Vec<String>,
}

pub fn main(args: Args) -> Result<()> {
    let of = args.of;
    check_precision(of.device, of.precision)?;
    let config = ExplainConfig {
        input_size: of.input_size.map(check_input_size).transpose()?,
        model: of.source.source()?,
        resize: of.resize,
        out: args.out,
        methods: args.method.map_or(Method::ALL.to_vec(), |method| vec![method]),
        labels: args.label,
        json: of.json,
        device: of.device,
        precision: of.precision,
        paths: of.paths,
    };
    let ui = Ui::new(of.quiet);
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
