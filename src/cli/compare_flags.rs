//! Flags of `peftk compare` that are lists, or stand for several of train's.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{ArgAction, ArgMatches, Command, FromArgMatches};

use super::settings::Settings;
use crate::config::toml_error;

/// The flags of train, `--data` repeated.
#[derive(Debug)]
pub struct Flags {
    pub settings: Settings,
    pub data: Vec<PathBuf>,
}

/// Flags of train that a comparison has in another form: what to say instead.
pub const OTHERWISE: [(&str, &str); 5] = [
    ("strategy", "--strategy: a comparison has several; give --strategies"),
    ("rank", "--rank: a comparison may have several; give --ranks"),
    ("lr", "--lr: strategies need different rates; give --lrs full=3e-5,lora=2e-3"),
    ("seed", "--seed: a comparison has several; give --seeds"),
    ("init_adapter", "--init-adapter: strategies start alike in a comparison; leave it out"),
];

/// Settings that hold for a comparison as a whole.
const WHOLE: [&str; 9] =
    ["data", "backbone", "split_seed", "memory_budget", "memory", "device", "precision", "cache", "batch_auto"];

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let data = matches.get_many::<PathBuf>("data").into_iter().flatten().cloned().collect();
        Ok(Self { settings: Settings::from_arg_matches(matches)?, data })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let command = <Settings as clap::Args>::augment_args(command).mut_arg("data", |arg| {
            arg.action(ArgAction::Append)
                .num_args(1..)
                .help("Data folder, as in train; may be repeated [default: the embedded images]")
        });
        OTHERWISE.iter().fold(command, |command, (name, _)| command.mut_arg(name, |arg| arg.hide(true)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// `--seeds`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(pub Vec<u64>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        const MOST: u64 = 1000;
        // TOML's integers have a sign.
        let number = |part: &str| match part.trim().parse::<u64>() {
            Ok(number) if i64::try_from(number).is_ok() => Ok(number),
            _ => Err(format!("'{part}' is not a number up to {}", i64::MAX)),
        };
        let seeds = match text.split_once(',') {
            None => (0..number(text)?.min(MOST + 1)).collect(),
            Some(_) => text.split(',').map(number).collect::<std::result::Result<Vec<_>, _>>()?,
        };
        if seeds.is_empty() || seeds.len() as u64 > MOST {
            return Err(format!("expected 1 to {MOST} seeds"));
        }
        let twice = seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed));
        twice.map_or(Ok(Self(seeds.clone())), |(_, seed)| Err(format!("seed {seed} is there twice")))
    }
}

/// `--for NAME:KEY=VALUE,..`: a data set's own settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Only {
    pub name: String,
    pub settings: Settings,
}

impl FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, rest) = text.split_once(':').ok_or_else(|| format!("'{text}' is not NAME:KEY=VALUE,.."))?;
        let mut toml = String::new();
        for part in rest.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| format!("'{part}' is not KEY=VALUE"))?;
            let (key, value) = (key.trim().replace('-', "_"), value.trim());
            if OTHERWISE.iter().any(|(other, _)| *other == key) || WHOLE.contains(&key.as_str()) {
                return Err(format!("'{key}' is not a setting of one data set"));
            }
            // A number or a truth as it stands, anything else a word.
            let is_plain = value.parse::<f64>().is_ok() || matches!(value, "true" | "false");
            let value = if is_plain { value.to_owned() } else { toml::Value::from(value).to_string() };
            toml.push_str(&format!("{key} = {value}\n"));
        }
        let settings = toml::from_str(&toml).map_err(|e| toml_error(Path::new("--for"), &toml, &e).to_string())?;
        Ok(Self { name: name.to_owned(), settings })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_count_or_a_list() {
        let seeds = |text: &str| text.parse::<Seeds>().map(|seeds| seeds.0);
        assert_eq!(seeds("3"), Ok(vec![0, 1, 2]));
        assert_eq!(seeds("7,1"), Ok(vec![7, 1]));
        for bad in ["0", "", "a", "18446744073709551615,1", "1,1", "-1", "1,", "5000"] {
            assert!(seeds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_data_set_has_settings_of_its_own() {
        let only: Only = "fashion:epochs=3, input-size=56,resize=crop,skip_bad=true".parse().unwrap();
        assert_eq!(only.name, "fashion");
        assert_eq!(
            (only.settings.epochs, only.settings.input_size, only.settings.skip_bad),
            (Some(3), Some(56), Some(true))
        );
        for bad in ["fashion", "a:b", "a:lr=1", "a:backbone=x", "a:device=cpu", "a:seed=1", "a:wat=1", "a:epochs=x"] {
            assert!(bad.parse::<Only>().is_err(), "{bad}");
        }
    }
}
