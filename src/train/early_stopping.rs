//! Stops a run whose validation accuracy no longer rises, and knows the best epoch.

use serde::{Deserialize, Serialize};

/// Watches accuracy upward. Serialisable, so that a resumed run counts on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EarlyStopping {
    patience: Option<usize>,
    // Not -inf before the first epoch: JSON has no infinities.
    best: Option<f64>,
    best_epoch: usize,
    bad_epochs: usize,
}

/// What an epoch's accuracy means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// It is the best so far: keep the weights.
    pub best: bool,
    /// Patience is used up: stop.
    pub stop: bool,
}

impl EarlyStopping {
    /// Stops after `patience` epochs in a row without a better accuracy; `None`: never, but the best epoch is still known.
    pub fn new(patience: Option<usize>) -> Self {
        Self { patience, best: None, best_epoch: 0, bad_epochs: 0 }
    }

    /// Takes the accuracy of `epoch`, counted from 1. Only a strictly higher one is better, so of equals the first is kept;
    /// NaN never is.
    pub fn update(&mut self, epoch: usize, accuracy: f64) -> Verdict {
        let best = accuracy > self.best.unwrap_or(f64::NEG_INFINITY);
        if best {
            self.best = Some(accuracy);
            self.best_epoch = epoch;
            self.bad_epochs = 0;
        } else {
            self.bad_epochs += 1;
        }
        Verdict { best, stop: self.patience.is_some_and(|patience| self.bad_epochs >= patience) }
    }

    /// The best epoch, counted from 1, and its accuracy; `None` before the first.
    pub fn best(&self) -> Option<(usize, f64)> {
        self.best.map(|accuracy| (self.best_epoch, accuracy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_after_patience_epochs_without_a_rise() {
        let mut stopping = EarlyStopping::new(Some(2));
        let verdicts: Vec<(bool, bool)> = [0.3, 0.5, 0.5, 0.6, 0.1, f64::NAN]
            .iter()
            .enumerate()
            .map(|(i, &accuracy)| stopping.update(i + 1, accuracy))
            .map(|verdict| (verdict.best, verdict.stop))
            .collect();
        let expected = [(true, false), (true, false), (false, false), (true, false), (false, false), (false, true)];
        assert_eq!(verdicts, expected);
        assert_eq!(stopping.best(), Some((4, 0.6)));
    }

    #[test]
    fn without_patience_it_only_remembers() {
        let mut stopping = EarlyStopping::new(None);
        assert_eq!(stopping.best(), None);
        assert!((1..100).all(|epoch| !stopping.update(epoch, 0.0).stop));
        assert_eq!(stopping.best(), Some((1, 0.0)));
    }

    #[test]
    fn state_survives_json() {
        let mut stopping = EarlyStopping::new(Some(3));
        for accuracy in [2.0 / 3.0, 0.1] {
            let text = serde_json::to_string(&stopping).unwrap();
            assert_eq!(serde_json::from_str::<EarlyStopping>(&text).unwrap(), stopping);
            stopping.update(1, accuracy);
        }
    }
}
