//! Learning rates by successive halving (Jamieson and Talwalkar 2016, algorithm 1): many short runs, the better half of them again for twice as
//! long, and so on. Every variant gets the same rates relative to its default, the same epochs, the same seed and the same images; test
//! images play no part.

use super::results::{Trial, Tuning};
use crate::config::TrainConfig;

/// Rates of the first round: the default times a power of the square root of ten, from this one on.
const LOWEST: i32 = -4;
/// How many.
const RATES: usize = 8;
/// What the epochs of a run are divided by, round by round; each round has half the trials of the one before.
const SHARES: [usize; 3] = [8, 4, 2];
/// Seed of all trials: none that a comparison would take by itself.
pub const SEED: u64 = 1 << 20;

/// A search under way.
#[derive(Clone, Debug, PartialEq)]
pub struct Search {
    /// The default rate, in the middle of the rates.
    default: f64,
    /// Epochs of a whole run.
    epochs: usize,
    trials: Vec<Trial>,
}

/// The next run of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Next {
    /// Round, counted from 1.
    pub round: usize,
    /// Learning rate.
    pub lr: f64,
    /// Its epochs.
    pub epochs: usize,
}

impl Search {
    /// The search for a run's rate, with the trials that are done already.
    pub fn new(run: &TrainConfig, trials: Vec<Trial>) -> Self {
        Self { default: run.lr, epochs: run.epochs, trials }
    }

    /// What is to be tried next; none: the search is over.
    pub fn next(&self) -> Option<Next> {
        let mut done = &self.trials[..];
        let mut rates = self.rates();
        for (round, share) in (1..).zip(SHARES) {
            if done.len() < rates.len() {
                let epochs = self.epochs.div_ceil(share).max(1);
                return Some(Next { round, lr: rates[done.len()], epochs });
            }
            let (these, later) = done.split_at(rates.len());
            rates = best(these).into_iter().take(rates.len() / 2).map(|trial| trial.lr).collect();
            done = later;
        }
        None
    }

    /// Takes a trial up.
    pub fn add(&mut self, trial: Trial) {
        self.trials.push(trial);
    }

    /// Trials done so far.
    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Trials of a whole search.
    pub fn total() -> usize {
        (0..SHARES.len()).map(|round| RATES >> round).sum()
    }

    /// The result, of a search that is over: the best of the last round, the default where none of it came to anything.
    pub fn result(&self, dataset: usize, variant: usize) -> Tuning {
        let last = self.trials.iter().map(|trial| trial.round).max().unwrap_or(0);
        let finals: Vec<Trial> = self.trials.iter().filter(|trial| trial.round == last).cloned().collect();
        let lr =
            best(&finals).first().filter(|trial| trial.val_accuracy.is_some()).map_or(self.default, |trial| trial.lr);
        let epochs = self.trials.iter().map(|trial| trial.epochs).sum();
        Tuning { dataset, variant, trials: self.trials.clone(), lr, epochs }
    }

    fn rates(&self) -> Vec<f64> {
        let powers = (LOWEST..).take(RATES);
        powers.map(|power| two_digits(self.default * 10_f64.powf(f64::from(power) / 2.0))).collect()
    }
}

/// By accuracy, then by loss, then the lower rate; what failed last.
fn best(trials: &[Trial]) -> Vec<&Trial> {
    let mut sorted: Vec<&Trial> = trials.iter().collect();
    let accuracy = |trial: &Trial| trial.val_accuracy.unwrap_or(f64::NEG_INFINITY);
    let loss = |trial: &Trial| trial.val_loss.unwrap_or(f64::INFINITY);
    sorted.sort_by(|a, b| {
        accuracy(b).total_cmp(&accuracy(a)).then(loss(a).total_cmp(&loss(b))).then(a.lr.total_cmp(&b.lr))
    });
    sorted
}

/// A rate that can be read, and typed.
fn two_digits(rate: f64) -> f64 {
    format!("{rate:.1e}").parse().unwrap_or(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_all(score: impl Fn(Next) -> Option<(f64, f64)>) -> (Vec<Trial>, Tuning) {
        let mut search = Search::new(&TrainConfig { lr: 2e-3, epochs: 30, ..TrainConfig::default() }, Vec::new());
        while let Some(next) = search.next() {
            let scored = score(next);
            search.add(Trial {
                round: next.round,
                lr: next.lr,
                epochs: next.epochs,
                val_accuracy: scored.map(|s| s.0),
                val_loss: scored.map(|s| s.1),
                reason: scored.is_none().then(|| "NaN".to_owned()),
            });
            // Taken up again at any point it goes on as it would have.
            let again = Search { trials: search.trials.clone(), ..search.clone() };
            assert_eq!(again.next(), search.next());
        }
        (search.trials.clone(), search.result(0, 1))
    }

    #[test]
    fn halving_keeps_the_better_half_and_doubles_their_epochs() {
        let (trials, tuning) = run_all(|next| Some((1.0 - (next.lr / 6.3e-3).log10().abs() / 10.0, 1.0)));
        assert_eq!(trials.len(), Search::total());
        let of = |round| trials.iter().filter(move |t| t.round == round).map(|t| (t.lr, t.epochs)).collect::<Vec<_>>();
        let first: Vec<f64> = of(1).iter().map(|t| t.0).collect();
        assert_eq!(first, [2e-5, 6.3e-5, 2e-4, 6.3e-4, 2e-3, 6.3e-3, 2e-2, 6.3e-2]);
        assert!(of(1).iter().all(|t| t.1 == 4) && of(2).iter().all(|t| t.1 == 8) && of(3).iter().all(|t| t.1 == 15));
        assert_eq!(of(2).iter().map(|t| t.0).collect::<Vec<_>>(), [6.3e-3, 2e-3, 2e-2, 6.3e-4]);
        assert_eq!((of(3).len(), tuning.lr, tuning.epochs), (2, 6.3e-3, 8 * 4 + 4 * 8 + 2 * 15));
    }

    #[test]
    fn what_fails_is_last_and_equals_go_by_loss() {
        // High rates diverge, all others are equally right: the loss tells.
        let (_, tuning) = run_all(|next| (next.lr < 1e-3).then_some((0.5, next.lr)));
        assert_eq!(tuning.lr, 2e-5);
        let (trials, tuning) = run_all(|_| None);
        assert_eq!((trials.len(), tuning.lr), (14, 2e-3));
    }
}
