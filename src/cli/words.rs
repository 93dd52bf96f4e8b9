//! Values of flags that are words or lists, read as the configuration file reads them.

use std::str::FromStr;

use serde::Deserialize;
use serde::de::value::{Error as WordError, StrDeserializer};

pub(super) use crate::config::bytes;

/// A word of an enum, by the names that the configuration file has for it.
pub fn word<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, String> {
    T::deserialize(StrDeserializer::<WordError>::new(text)).map_err(|e| e.to_string().replace('`', "'"))
}

/// `--decay`: whether only matrices decay.
pub fn decay(text: &str) -> Result<bool, String> {
    match text {
        "all" => Ok(false),
        "matrices" => Ok(true),
        _ => Err(format!("unknown decay '{text}', expected all or matrices")),
    }
}

/// Numbers between commas.
pub fn numbers(text: &str) -> Result<Vec<usize>, String> {
    let number = |part: &str| part.trim().parse().map_err(|_| format!("'{part}' is not a block's number"));
    text.split(',').map(number).collect()
}

/// `PATTERN=NUMBER` between commas. A pattern may hold `=`, but no comma; `--config` takes any.
pub fn patterns<T: FromStr>(text: &str) -> Result<Vec<(String, T)>, String> {
    text.split(',')
        .map(|part| {
            let (key, value) = part.rsplit_once('=').ok_or_else(|| format!("'{part}' is not PATTERN=NUMBER"))?;
            let value = value.trim().parse().map_err(|_| format!("'{value}' in '{part}' is not such a number"))?;
            Ok((key.trim().to_owned(), value))
        })
        .collect()
}

/// The linears that can have an adapter: transformers 5 name, then every other word for it.
const TARGETS: [(&str, &[&str]); 9] = [
    ("q_proj", &["q", "query"]),
    ("k_proj", &["k", "key"]),
    ("v_proj", &["v", "value"]),
    ("o_proj", &["o", "dense", "attention.output.dense", "output.dense"]),
    ("fc1", &[]),
    ("fc2", &[]),
    ("gate_proj", &["gate"]),
    ("up_proj", &["up"]),
    ("down_proj", &["down", "weights_out"]),
];

/// All linears of every block; which those are depends on the backbone.
pub const ALL_LINEAR: &str = "all-linear";

/// `--targets` in transformers 5 names, each once, in the order given.
pub fn targets(names: &[String]) -> Result<Vec<String>, String> {
    let mut targets: Vec<String> = Vec::new();
    for name in names.iter().map(|name| name.trim()) {
        let known = TARGETS.iter().find(|(long, others)| *long == name || others.contains(&name));
        let target = match known {
            Some((long, _)) => long,
            None if name == ALL_LINEAR && names.len() == 1 => ALL_LINEAR,
            None if name == ALL_LINEAR => return Err(format!("{ALL_LINEAR} stands alone, found it in a list")),
            None => {
                return Err(format!(
                    "'{name}' is no linear of DINOv2; expected {ALL_LINEAR} or a list of q, k, v, o, fc1, fc2, gate, up, down"
                ));
            }
        };
        if !targets.iter().any(|t| t == target) {
            targets.push(target.to_owned());
        }
    }
    if targets.is_empty() { Err("expected at least one linear, found none".to_owned()) } else { Ok(targets) }
}

/// The list of `--targets`, as words.
pub fn list(text: &str) -> Result<Vec<String>, String> {
    Ok(text.split(',').map(|part| part.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Pool, ScheduleKind};

    #[test]
    fn enums_by_the_file_s_names() {
        assert_eq!(word::<Pool>("cls+mean"), Ok(Pool::ClsMean));
        assert_eq!(word::<ScheduleKind>("plateau"), Ok(ScheduleKind::Plateau));
        let error = word::<ScheduleKind>("linear").unwrap_err();
        assert!(error.contains("'linear'") && error.contains("cosine"), "{error}");
    }

    #[test]
    fn targets_become_the_long_names_once() {
        let names = |text: &str| targets(&list(text).unwrap());
        assert_eq!(names("q,v").unwrap(), ["q_proj", "v_proj"]);
        assert_eq!(names("query, q,o,gate,fc2").unwrap(), ["q_proj", "o_proj", "gate_proj", "fc2"]);
        assert_eq!(names("all-linear").unwrap(), ["all-linear"]);
        for bad in ["", "q,", "q,all-linear", "classifier", "Q"] {
            assert!(names(bad).is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn lists() {
        assert_eq!(numbers("0, 2,11"), Ok(vec![0, 2, 11]));
        assert!(numbers("0,-1").is_err() && numbers("").is_err());
        assert_eq!(
            patterns::<usize>("layer.0.*q_proj=4,v=2"),
            Ok(vec![("layer.0.*q_proj".into(), 4), ("v".into(), 2)])
        );
        assert!(patterns::<usize>("q=x").is_err() && patterns::<usize>("q").is_err());
    }
}
