//! What a comparison found: tables, checks, and what went wrong. Knows nothing of what they are about.

use std::fmt::Write as _;

use keyway_bench::stats::Quartiles;
use serde::Serialize;

use crate::bounds::{Check, Verdict};

/// Everything found. Its JSON is the same, field by field.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Findings {
    /// When it began, on which machine, against which versions.
    pub(crate) about: Vec<(String, String)>,
    pub(crate) tables: Vec<Table>,
    pub(crate) checks: Vec<Check>,
    /// Wrong replies, lost connections: a figure got that way is none.
    pub(crate) failures: Vec<String>,
}

/// One table.
#[derive(Debug, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// One cell of a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Cell {
    Text(String),
    /// Shown with so many digits after the point.
    Number(f64, usize),
    Ratio(Option<Quartiles>),
}

impl Cell {
    /// A number, or nothing.
    pub(crate) fn maybe(number: Option<f64>, digits: usize) -> Self {
        match number {
            Some(number) => Self::Number(number, digits),
            None => Self::Text("-".to_owned()),
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number, digits) => format!("{number:.digits$}"),
            Self::Ratio(None) => "-".to_owned(),
            Self::Ratio(Some(ratio)) => {
                format!("{:.2} [{:.2} {:.2}]", ratio.median, ratio.q1, ratio.q3)
            }
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Table {
    /// As Markdown.
    pub(crate) fn shown(&self) -> String {
        let rows = self
            .rows
            .iter()
            .map(|row| row.iter().map(Cell::shown).collect())
            .collect::<Vec<Vec<String>>>();
        let columns: Vec<String> = self.columns.iter().map(ToString::to_string).collect();
        format!("\n{}\n\n{}", self.title, markdown(&columns, &rows))
    }
}

impl Findings {
    /// The checks as a table, and a line that sums them up.
    pub(crate) fn checks_shown(&self) -> String {
        let columns = ["figure", "measured", "must", "aim", ""].map(str::to_owned);
        let rows: Vec<Vec<String>> = self
            .checks
            .iter()
            .map(|check| check.cells().into())
            .collect();
        let missed = self.missed();
        let held = self.checks.len() - missed;
        let mut out = format!("\n{}", markdown(&columns, &rows));
        let _ = writeln!(out, "\n{held} of {} bounds held", self.checks.len());
        out
    }

    /// Bounds that were missed.
    pub(crate) fn missed(&self) -> usize {
        let missed = |check: &&Check| check.verdict() == Verdict::Missed;
        self.checks.iter().filter(missed).count()
    }
}

/// Columns padded to one width each.
fn markdown(columns: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let all = cells.chain(columns.get(column));
        all.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |cells: &[String]| {
        let padded = cells
            .iter()
            .enumerate()
            .map(|(column, cell)| format!(" {cell:<width$} |", width = width(column)));
        format!("|{}\n", padded.collect::<String>())
    };
    let rule: Vec<String> = (0..columns.len())
        .map(|column| "-".repeat(width(column).max(3)))
        .collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{body}", line(columns), line(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounds::Bound;

    #[test]
    fn a_table_is_markdown_of_one_width() {
        let ratio = Quartiles::of(vec![0.5, 0.6, 0.7]);
        let table = Table {
            title: "Title".into(),
            columns: vec!["load", "us", "ratio"],
            rows: vec![
                vec!["GET".into(), Cell::Number(5.126, 2), Cell::Ratio(ratio)],
                vec!["SET".into(), Cell::maybe(None, 2), Cell::Ratio(None)],
            ],
        };
        let expected = "\nTitle\n\n\
            | load | us   | ratio            |\n\
            | ---- | ---- | ---------------- |\n\
            | GET  | 5.13 | 0.60 [0.55 0.65] |\n\
            | SET  | -    | -                |\n";
        assert_eq!(table.shown(), expected);
    }

    #[test]
    fn missed_bounds_are_counted() {
        let check = |got| Check::new("x", Bound::at_most(1.0, 0.5), got);
        let findings = Findings {
            checks: vec![check(Some(0.5)), check(Some(1.5)), check(None)],
            ..Findings::default()
        };
        assert_eq!(findings.missed(), 2);
        assert!(findings.checks_shown().ends_with("1 of 3 bounds held\n"));
    }
}
