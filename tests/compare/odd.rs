//! Reports of what is not a whole comparison.

use peftk::compare::example;
use peftk::compare::report::Extras;
use peftk::compare::results::{Outcome, Results};

use crate::files::{check, plain};
use crate::harness::Test;
use crate::made;

pub const TESTS: &[Test] = &[
    plain("odd::nothing_is_done_yet", nothing_is_done_yet),
    plain("odd::half_is_done", half_is_done),
    plain("odd::everything_failed", everything_failed),
    plain("odd::one_seed", one_seed),
    plain("odd::one_data_set", one_data_set),
    plain("odd::one_variant", one_variant),
    plain("odd::one_run", one_run),
];

fn page(name: &str, results: &Results) -> String {
    let dir = made::written(name, results, &Extras::default());
    check(&dir);
    std::fs::read_to_string(dir.join("report.html")).unwrap()
}

fn nothing_is_done_yet() {
    let mut results = example::results();
    results.cells.iter_mut().for_each(|cell| cell.outcome = Outcome::Pending);
    let page = page("pending", &results);
    assert!(page.contains("not yet") && page.contains("0 of 24 runs are done"));
}

fn half_is_done() {
    let mut results = example::results();
    results.cells.iter_mut().skip(14).for_each(|cell| cell.outcome = Outcome::Pending);
    let page = page("half", &results);
    assert!(page.contains("14 of 24 runs are done and 10 are still to come") && page.contains("not yet"));
}

fn everything_failed() {
    let mut results = example::results();
    results.cells.iter_mut().for_each(|cell| cell.outcome = Outcome::Failed { reason: "no <GPU>".into() });
    let page = page("failed", &results);
    assert!(page.contains("none can be recommended") && page.contains("no &lt;GPU&gt;"));
}

fn one_seed() {
    let mut results = example::results();
    results.cells.retain(|cell| cell.seed == 0);
    results.protocol.seeds = vec![0];
    let page = page("one-seed", &results);
    assert!(page.contains("noise unknown") && page.contains("There is one seed"));
    assert!(!page.contains("within noise"));
}

fn one_data_set() {
    let mut results = example::results();
    results.cells.retain(|cell| cell.dataset == 0);
    results.datasets.truncate(1);
    let page = page("one-set", &results);
    assert!(!page.contains("chart-accuracy-by-dataset") && page.contains("Highest test accuracy (top-1): lora"));
}

fn one_variant() {
    let mut results = example::results();
    results.cells.retain(|cell| cell.variant == 0);
    results.variants.truncate(1);
    results.tuning.clear();
    let page = page("one-variant", &results);
    assert!(page.contains("It is the only one compared."));
}

fn one_run() {
    let mut results = example::results();
    results.cells.retain(|cell| cell.variant == 0 && cell.dataset == 0 && cell.seed == 0);
    results.variants.truncate(1);
    results.datasets.truncate(1);
    results.protocol.seeds = vec![0];
    results.tuning.clear();
    results.note = None;
    let Outcome::Done(measured) = &mut results.cells[0].outcome else { panic!("the example's first run is done") };
    measured.curve.truncate(1);
    measured.energy_j = None;
    measured.test_more.clear();
    page("one-run", &results);
}
