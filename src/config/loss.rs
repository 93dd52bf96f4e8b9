//! What is minimised.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The loss of labels that are yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelLoss {
    /// Binary cross-entropy.
    Bce,
    /// The asymmetric loss (Ridnik et al. 2021).
    Asymmetric,
}

/// Constants of the asymmetric loss. The defaults are those of OTX's multi-label classification.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AsymmetricSettings {
    /// Focusing of positives, gamma+.
    pub gamma_pos: f64,
    /// Focusing of negatives, gamma-.
    pub gamma_neg: f64,
    /// Weight of the positives.
    pub k: f64,
    /// How far negatives' probabilities are shifted down.
    pub clip: f64,
}

impl Default for AsymmetricSettings {
    fn default() -> Self {
        Self { gamma_pos: 0.0, gamma_neg: 1.0, k: 0.8, clip: 0.05 }
    }
}

impl FromStr for AsymmetricSettings {
    type Err = String;

    /// `gamma_pos=F,gamma_neg=F,k=F,clip=F`, any of them.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut settings = Self::default();
        for part in text.split(',') {
            let unknown = || format!("'{part}' is none of gamma_pos=F, gamma_neg=F, k=F and clip=F");
            let (name, value) = part.split_once('=').ok_or_else(unknown)?;
            let place = match name.trim() {
                "gamma_pos" => &mut settings.gamma_pos,
                "gamma_neg" => &mut settings.gamma_neg,
                "k" => &mut settings.k,
                "clip" => &mut settings.clip,
                _ => return Err(unknown()),
            };
            *place = value.trim().parse().map_err(|_| format!("'{value}' in '{part}' is not a number"))?;
        }
        Ok(settings)
    }
}

/// What the loss of an image is multiplied by, by its class.
#[derive(Clone, Debug, PartialEq)]
pub enum ClassWeights {
    /// images / (classes x images of the class): 1 on average over the training images.
    Balanced,
    /// One a class, in index order.
    List(Vec<f64>),
}

impl FromStr for ClassWeights {
    type Err = String;

    /// `balanced`, or numbers between commas.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "balanced" {
            return Ok(Self::Balanced);
        }
        let number = |part: &str| part.trim().parse().map_err(|_| format!("'{part}' is neither balanced nor a number"));
        text.split(',').map(number).collect::<Result<_, _>>().map(Self::List)
    }
}

// In a file the word, or a list.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Word(String),
    List(Vec<f64>),
}

impl Serialize for ClassWeights {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Balanced => Written::Word("balanced".into()).serialize(to),
            Self::List(list) => Written::List(list.clone()).serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for ClassWeights {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Written::deserialize(from)? {
            Written::Word(word) => word.parse().map_err(serde::de::Error::custom),
            Written::List(list) => Ok(Self::List(list)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_files_say_the_same() {
        assert_eq!("balanced".parse(), Ok(ClassWeights::Balanced));
        assert_eq!("1, 2.5".parse(), Ok(ClassWeights::List(vec![1.0, 2.5])));
        assert!("evenly".parse::<ClassWeights>().is_err());
        for weights in [ClassWeights::Balanced, ClassWeights::List(vec![1.0, 2.5])] {
            let text = serde_json::to_string(&weights).unwrap();
            assert_eq!(serde_json::from_str::<ClassWeights>(&text).unwrap(), weights);
        }
        let settings: AsymmetricSettings = "gamma_neg=4, clip=0".parse().unwrap();
        assert_eq!(settings, AsymmetricSettings { gamma_neg: 4.0, clip: 0.0, ..AsymmetricSettings::default() });
        assert!("gamma=1".parse::<AsymmetricSettings>().is_err() && "k=x".parse::<AsymmetricSettings>().is_err());
    }
}
