//! What is wrong with a configuration, and where: one line each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// One mistake. Displays as one line: `file:line: key: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    file: Arc<str>,
    line: Option<usize>,
    key: String,
    message: String,
}

impl Problem {
    /// A mistake in `file`; `line` counts from 1, `key` is the dotted path and may be empty.
    #[must_use]
    pub fn new(file: &str, line: Option<usize>, key: &str, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line,
            key: key.to_owned(),
            message: message.into(),
        }
    }

    /// The line that is meant, out of the file's text, with what is wrong underlined.
    #[must_use]
    pub fn excerpt(&self, text: &str) -> Option<String> {
        let number = self.line?;
        let line = text.lines().nth(number.checked_sub(1)?)?.replace('\t', " ");
        if line.chars().any(char::is_control) {
            return None; // it would do things to the terminal
        }
        let name = self.key.rsplit('.').next().unwrap_or_default();
        let about_name = self.message.starts_with("unknown key");
        let marked = match line.split_once('=') {
            Some((key, value)) if !about_name && key.trim().ends_with(name) => value.trim(),
            _ if !name.is_empty() && line.contains(name) => name,
            _ => line.trim(),
        };
        let at = if about_name {
            line.find(marked)?
        } else {
            line.rfind(marked)?
        };
        let before = line.get(..at)?.chars().count();
        let margin = " ".repeat(number.to_string().len());
        let mark = "^".repeat(marked.chars().count().max(1));
        let space = " ".repeat(before);
        Some(format!("  {number} | {line}\n  {margin} | {space}{mark}"))
    }

    /// Dotted path of the key, empty when the whole file is meant.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;

        let mut line = self.file.to_string();
        if let Some(number) = self.line {
            write!(line, ":{number}")?;
        }
        line.push_str(": ");
        if !self.key.is_empty() {
            line.push_str(&self.key);
            line.push_str(": ");
        }
        line.push_str(&self.message);
        // A key or a value can hold anything; the promise is one line per mistake.
        for char in line.chars() {
            if char.is_control() {
                write!(f, "{}", char.escape_default())?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

/// All the mistakes found, at least one. Displays one per line, without a line feed at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// A list of one.
    #[must_use]
    pub fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// All of `problems`, which is not empty, in the order of the file.
    #[must_use]
    pub fn of(mut problems: Vec<Problem>) -> Self {
        debug_assert!(!problems.is_empty(), "no problem is no error");
        problems.sort_by_key(|problem| problem.line);
        let mut seen = BTreeSet::new();
        problems.retain(|problem| seen.insert(problem.to_string())); // what several clusters share
        Self(problems)
    }

    /// Each mistake.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Which file a configuration came from, and at which line each of its keys stands.
#[derive(Debug, Clone)]
pub struct Origin {
    file: Arc<str>,
    lines: BTreeMap<String, usize>,
    /// Keys are those of this `[[cluster]]` first, counted from 1.
    cluster: Option<usize>,
}

impl Origin {
    /// An origin without known lines.
    #[must_use]
    pub fn new(file: &str) -> Self {
        Self {
            file: file.into(),
            lines: BTreeMap::new(),
            cluster: None,
        }
    }

    /// The same for the keys of one `[[cluster]]`, counted from 1.
    #[must_use]
    pub(super) fn of_cluster(&self, number: usize) -> Self {
        Self {
            cluster: Some(number),
            ..self.clone()
        }
    }

    /// Where a key stands: with one of several clusters, below its `[[cluster]]` before anywhere else.
    fn place(&self, key: &str) -> String {
        let Some(number) = self.cluster else {
            return key.to_owned();
        };
        if let Some(own) = key.strip_prefix("cluster.") {
            return format!("cluster.{number}.{own}");
        }
        let own = format!("cluster.{number}.{key}");
        let section = |key: &str| {
            let section = key.rsplit_once('.').map(|(section, _)| section);
            section.is_some_and(|section| self.lines.contains_key(section))
        };
        let is_own = self.lines.contains_key(&own);
        if is_own || (!self.lines.contains_key(key) && section(&own)) {
            own
        } else {
            key.to_owned()
        }
    }

    /// Notes that the value of `key` (dotted path) stands at `line`, counted from 1.
    pub(super) fn note(&mut self, key: String, line: usize) {
        self.lines.insert(key, line);
    }

    /// Whether `key` was written at all.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.lines.contains_key(&self.place(key))
    }

    /// A mistake at `key`; at its section's line when the key itself is missing.
    #[must_use]
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let key = self.place(key);
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        let line = self
            .lines
            .get(&key)
            .or_else(|| self.lines.get(section))
            .copied();
        Problem {
            file: self.file.clone(),
            line,
            message: message.into(),
            key,
        }
    }
}
