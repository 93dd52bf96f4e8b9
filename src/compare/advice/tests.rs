use super::*;
use crate::compare::example;
use crate::compare::published::GSOC2025;
use crate::compare::results::Measured;

/// The example with other numbers: `set` gets (variant, data set, seed, numbers).
fn planted(mut set: impl FnMut(usize, usize, u64, &mut Measured)) -> Results {
    let mut results = example::results();
    let spare = results.cells[0].outcome.clone();
    for cell in &mut results.cells {
        if cell.outcome.measured().is_none() {
            cell.outcome = spare.clone();
        }
        if let Outcome::Done(measured) = &mut cell.outcome {
            set(cell.variant, cell.dataset, cell.seed, measured);
        }
    }
    results
}

/// Accuracies a variant, with so much noise between seeds.
fn accuracies(means: [f64; 4], noise: f64) -> Results {
    planted(|variant, _, seed, m| {
        m.test_accuracy = means[variant] + noise * (seed as f64 - 1.0);
        m.peak_bytes = [4_000, 500, 2_500, 2_600][variant] << 20;
        m.train_s = [100.0, 10.0, 60.0, 200.0][variant];
    })
}

fn said(results: &Results, about: About) -> String {
    let advice = of(results, None);
    let of_it: Vec<&str> = advice.sentences.iter().filter(|s| s.about == about).map(|s| s.text.as_str()).collect();
    of_it.join(" ")
}

#[test]
fn a_clear_winner() {
    let results = accuracies([0.75, 0.68, 0.78, 0.90], 0.001);
    assert_eq!(
        said(&results, About::Best),
        "Highest mean test accuracy over 2 data sets: dora, 90.0 % ± 0.2 (3 seeds). It is ahead of every other by more than the \
         noise between seeds: lora (12.0 points), full (15.0 points) and freeze (22.0 points)."
    );
    assert_eq!(
        said(&results, About::Memory),
        "The least: freeze, 500.0 MiB for 68.0 %. From 2.44 GiB on: lora, 10.0 points more. From 2.54 GiB on: dora, 12.0 points more. \
         More memory than that buys nothing that can be told from noise."
    );
    assert!(said(&results, About::Time).starts_with(
        "The quickest: freeze, 10.0 s a run for 68.0 %. Then lora: 50.0 s more for 10.0 points more. Then dora: 2 min 20 s more for \
         12.0 points more, 5.14 points a minute."
    ));
    assert_eq!(said(&results, About::Dataset), "");
    assert_eq!(said(&results, About::Failure), "");
}

#[test]
fn all_within_noise() {
    let results = accuracies([0.700, 0.702, 0.704, 0.706], 0.05);
    let best = said(&results, About::Best);
    assert!(
        best.contains("Within the noise between seeds of it: lora (70.4 % ± 12.4), freeze (70.2 % ± 12.4) and full"),
        "{best}"
    );
    assert!(
        best.contains("freeze takes the least memory (500.0 MiB) and trains the quickest (10.0 s a run)"),
        "{best}"
    );
    assert!(!best.contains("ahead"), "{best}");
    assert_eq!(
        said(&results, About::Memory),
        "The least: freeze, 500.0 MiB for 70.2 %. More memory than that buys nothing that can be told from noise."
    );
    assert!(said(&results, About::Time).contains("for 70.2 %. More time than that buys nothing"));
}

#[test]
fn cheapest_and_quickest_of_equals_may_differ() {
    let mut results = accuracies([0.80, 0.50, 0.801, 0.802], 0.01);
    for cell in &mut results.cells {
        if let Outcome::Done(m) = &mut cell.outcome
            && cell.variant == 0
        {
            m.train_s = 20.0;
        }
    }
    let best = said(&results, About::Best);
    assert!(
        best.contains("Of these lora takes the least memory (2.44 GiB) and full trains the quickest (20.0 s a run)."),
        "{best}"
    );
    assert!(best.contains("By more than the noise it is ahead of freeze (30.2 points)."), "{best}");
}

#[test]
fn one_seed_claims_nothing() {
    let mut results = accuracies([0.75, 0.68, 0.78, 0.90], 0.0);
    results.cells.retain(|cell| cell.seed == 0);
    results.protocol.seeds = vec![0];
    let best = said(&results, About::Best);
    assert!(
        best.contains("dora, 90.0 % (1 seed).") && best.contains("is unknown") && !best.contains("ahead"),
        "{best}"
    );
    assert!(
        said(&results, About::Memory).ends_with("This goes by the means alone: with one seed the noise is unknown.")
    );
    assert!(said(&results, About::Noise).starts_with("There is one seed"));
}

#[test]
fn within_a_budget() {
    let mut results = accuracies([0.75, 0.68, 0.78, 0.90], 0.001);
    results.protocol.memory_budget = Some(2_550 << 20);
    assert_eq!(
        said(&results, About::Memory),
        "Within the budget of 2.49 GiB the best is lora, 78.0 % in 2.44 GiB. Over the budget: dora (2.54 GiB) and full (3.91 GiB)."
    );
    results.protocol.memory_budget = Some(1 << 20);
    assert!(
        said(&results, About::Memory)
            .starts_with("No strategy stayed within the budget of 1.0 MiB: dora (2.54 GiB), lora")
    );
}

#[test]
fn failures_are_said_and_not_recommended() {
    // The example's full model failed in one run; here it would be the best.
    let mut results = example::results();
    for cell in &mut results.cells {
        if let Outcome::Done(m) = &mut cell.outcome
            && cell.variant == 0
        {
            (m.test_accuracy, m.peak_bytes, m.train_s) = (0.9 + 0.001 * cell.seed as f64, 1, 0.1);
        }
    }
    let failure = said(&results, About::Failure);
    assert_eq!(
        failure,
        "full: 1 of 6 runs failed (no GPU memory: 1.2 GiB asked, 0.9 GiB free; give --memory lean). Its numbers are of the runs that \
         finished."
    );
    assert!(said(&results, About::Best).starts_with("Highest mean test accuracy over 2 data sets: full"));
    assert!(said(&results, About::Memory).starts_with("The least: freeze"));
    assert!(said(&results, About::Time).contains("Left out here and under memory, because runs failed: full."));
}

#[test]
fn a_variant_that_failed_everywhere_is_not_ranked() {
    let mut results = accuracies([0.99, 0.68, 0.78, 0.70], 0.001);
    for cell in results.cells.iter_mut().filter(|cell| cell.variant == 0) {
        cell.outcome = Outcome::Failed { reason: "no memory.".into() };
    }
    assert!(said(&results, About::Best).starts_with("Highest mean test accuracy over 2 data sets: lora"));
    assert_eq!(said(&results, About::Failure), "full: 6 of 6 runs failed (no memory).");
}

#[test]
fn a_data_set_may_say_otherwise() {
    let results = planted(|variant, set, seed, m| {
        let means = if set == 0 { [0.5, 0.4, 0.6, 0.9] } else { [0.5, 0.4, 0.8, 0.7] };
        m.test_accuracy = means[variant] + 0.001 * seed as f64;
    });
    assert_eq!(
        said(&results, About::Dataset),
        "On parts & <pieces> lora has the highest mean, 80.1 % ± 0.2, ahead of dora by 10.0 points, more than the noise."
    );
}

#[test]
fn test_images_are_a_sample() {
    let results = accuracies([0.5; 4], 0.01);
    // sqrt(0.5 * 0.5 / 60) = 6.45 points.
    let noise = said(&results, About::Noise);
    assert!(noise.contains("about 6.5 points in birds (60 images) and 6.5 points in parts"), "{noise}");
    let mut labels = results;
    labels.datasets.iter_mut().for_each(|set| set.task = crate::config::Task::Multilabel);
    assert!(!said(&labels, About::Noise).contains("sample"));
}

#[test]
fn the_published_order() {
    let text = |results: &Results| {
        let advice = of(results, Some(&GSOC2025));
        advice.sentences.into_iter().find(|s| s.about == About::Published).map(|s| s.text).unwrap()
    };
    let same = text(&accuracies([0.75, 0.68, 0.777, 0.780], 0.001));
    assert!(same.contains("No difference here that exceeds the noise is against that order."), "{same}");
    let other = text(&accuracies([0.80, 0.68, 0.77, 0.75], 0.001));
    assert!(
        other.contains(
            "by more than the noise, full is ahead of lora, full is ahead of dora and lora is ahead of dora."
        ),
        "{other}"
    );
    assert!(other.ends_with("Data sets here that it has too: 0 of 2."), "{other}");
}

#[test]
fn runs_to_come_are_said_first() {
    let mut results = example::results();
    results.cells.iter_mut().skip(3).for_each(|cell| cell.outcome = Outcome::Pending);
    let advice = of(&results, None);
    assert_eq!(advice.sentences[0].about, About::Progress);
    assert_eq!(advice.sentences[1].text, "No strategy has a finished run on every data set yet.");
    results.cells.clear();
    results.datasets.clear();
    results.variants.clear();
    assert!(!of(&results, Some(&GSOC2025)).sentences.is_empty());
}
