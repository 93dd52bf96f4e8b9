//! The learning rate over the run: linear warm-up, then constant, a half cosine, or halved on a plateau.

use serde::{Deserialize, Serialize};

use crate::config::ScheduleKind;

/// By how much a plateau shrinks the rate.
const FACTOR: f64 = 0.5;
/// Epochs without a better accuracy that are borne; the next one shrinks the rate.
const PLATEAU_PATIENCE: usize = 3;
/// A value is better when it exceeds the best by this share of it.
const THRESHOLD: f64 = 1e-4;
/// A change of the rate smaller than this is not made.
const SMALLEST_CHANGE: f64 = 1e-8;

/// Learning rates by step, with what a resumed run must know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    kind: ScheduleKind,
    base: f64,
    warmup_steps: usize,
    total_steps: usize,
    plateau: Plateau,
}

/// State of the plateau rule, torch's ReduceLROnPlateau in `max` mode with a relative threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Plateau {
    lr: f64,
    // Not -inf before the first epoch: JSON has no infinities.
    best: Option<f64>,
    bad_epochs: usize,
}

impl Schedule {
    /// A schedule around the rate `base` for a run of `total_steps` optimiser steps, the first `warmup_steps` of them
    /// warming up.
    pub fn new(kind: ScheduleKind, base: f64, warmup_steps: usize, total_steps: usize) -> Self {
        let plateau = Plateau { lr: base, best: None, bad_epochs: 0 };
        Self { kind, base, warmup_steps, total_steps, plateau }
    }

    /// The rate of the update number `step`, counted from 0. Warm-up rises by equal parts and reaches the full rate with its
    /// last step, so no update is made at rate 0; the cosine would reach 0 one step after the last.
    pub fn lr(&self, step: usize) -> f64 {
        if step < self.warmup_steps {
            return self.full_rate() * (step + 1) as f64 / self.warmup_steps as f64;
        }
        match self.kind {
            ScheduleKind::Constant | ScheduleKind::Plateau => self.full_rate(),
            ScheduleKind::Cosine => {
                let length = self.total_steps.saturating_sub(self.warmup_steps).max(1);
                let done = ((step - self.warmup_steps) as f64 / length as f64).min(1.0);
                self.base * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }

    /// Tells the schedule an epoch's validation accuracy; returns whether that lowered the rate.
    pub fn after_validation(&mut self, accuracy: f64) -> bool {
        self.kind == ScheduleKind::Plateau && self.plateau.update(accuracy)
    }

    fn full_rate(&self) -> f64 {
        if self.kind == ScheduleKind::Plateau { self.plateau.lr } else { self.base }
    }
}

impl Plateau {
    fn update(&mut self, value: f64) -> bool {
        let better = match self.best {
            Some(best) => value > best * (1.0 + THRESHOLD),
            None => value > f64::NEG_INFINITY,
        };
        if better {
            self.best = Some(value);
            self.bad_epochs = 0;
        } else {
            self.bad_epochs += 1;
        }
        if self.bad_epochs <= PLATEAU_PATIENCE {
            return false;
        }
        self.bad_epochs = 0;
        let lower = self.lr * FACTOR;
        let lowers = self.lr - lower > SMALLEST_CHANGE;
        if lowers {
            self.lr = lower;
        }
        lowers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constant_after_warmup() {
        let schedule = Schedule::new(ScheduleKind::Constant, 0.4, 4, 10);
        let rates: Vec<f64> = (0..6).map(|step| schedule.lr(step)).collect();
        assert_eq!(rates, [0.1, 0.2, 0.4 * 0.75, 0.4, 0.4, 0.4]);
        assert_eq!(Schedule::new(ScheduleKind::Constant, 0.4, 0, 10).lr(0), 0.4);
    }

    #[test]
    fn cosine_falls_from_the_base_to_zero() {
        let schedule = Schedule::new(ScheduleKind::Cosine, 2.0, 2, 10);
        assert_eq!((schedule.lr(0), schedule.lr(1), schedule.lr(2)), (1.0, 2.0, 2.0));
        assert!((schedule.lr(6) - 1.0).abs() < 1e-15);
        // Two of eight steps done: half of 1 + cos(pi / 4).
        assert!((schedule.lr(4) - (1.0 + std::f64::consts::FRAC_1_SQRT_2)).abs() < 1e-15);
        assert_eq!(schedule.lr(10), 0.0);
        assert_eq!(schedule.lr(99), 0.0);
        assert!((1..10).all(|step| schedule.lr(step + 1) <= schedule.lr(step)));
        // A warm-up longer than the run neither divides by zero nor goes up after it.
        assert_eq!(Schedule::new(ScheduleKind::Cosine, 2.0, 20, 10).lr(9), 1.0);
    }

    /// Values that torch 2's ReduceLROnPlateau(mode='max', factor=0.5, patience=3) gives for the same accuracies.
    #[test]
    fn plateau_as_torch() {
        let mut schedule = Schedule::new(ScheduleKind::Plateau, 1.0, 0, 100);
        // 0.50004 is within the threshold of 0.5, so it counts as no better.
        let accuracies = [0.5, 0.5, 0.50004, 0.4, 0.5, 0.6, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1];
        let rates: Vec<f64> = accuracies
            .iter()
            .map(|&accuracy| {
                schedule.after_validation(accuracy);
                schedule.lr(0)
            })
            .collect();
        assert_eq!(rates, [1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125]);
    }

    #[test]
    fn plateau_stops_lowering_what_is_tiny() {
        let mut schedule = Schedule::new(ScheduleKind::Plateau, 1.5e-8, 0, 100);
        for _ in 0..9 {
            assert!(!schedule.after_validation(0.0));
        }
        assert_eq!(schedule.lr(0), 1.5e-8);
    }

    #[test]
    fn state_survives_json_bitwise() {
        let mut schedule = Schedule::new(ScheduleKind::Plateau, 0.1 + 0.2, 3, 100);
        for accuracy in [1.0 / 3.0, 0.2, 0.1] {
            schedule.after_validation(accuracy);
            let text = serde_json::to_string(&schedule).unwrap();
            assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), schedule);
        }
        let fresh = Schedule::new(ScheduleKind::Cosine, 1e-3, 0, 5);
        assert_eq!(serde_json::from_str::<Schedule>(&serde_json::to_string(&fresh).unwrap()).unwrap(), fresh);
    }
}
