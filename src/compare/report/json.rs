//! `results.json`: the results, which read back as [`Results`], with the rows and sentences that were computed from them.

use serde::Serialize;

use crate::compare::advice::Advice;
use crate::compare::results::Results;
use crate::compare::summary::{self, Row};
use crate::{Error, Result};

#[derive(Serialize)]
struct File<'a> {
    #[serde(flatten)]
    results: &'a Results,
    summary: Summary,
    advice: &'a Advice,
}

#[derive(Serialize)]
struct Summary {
    overall: Vec<Row>,
    by_dataset: Vec<Row>,
}

/// The whole file.
pub fn of(results: &Results, advice: &Advice) -> Result<Vec<u8>> {
    let summary = Summary { overall: summary::overall(results), by_dataset: summary::by_dataset(results) };
    let mut bytes = serde_json::to_vec_pretty(&File { results, summary, advice })
        .map_err(|e| Error::Internal(format!("the results are no JSON: {e}")))?;
    bytes.push(b'\n');
    Ok(bytes)
}
