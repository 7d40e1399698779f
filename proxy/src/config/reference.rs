//! The reference, `docs/configuration.md`, as a configuration file: every key with its default, its
//! meaning as a comment. So there is one text, and a test holds it against the types.

use std::fmt::Write as _;

const REFERENCE: &str = include_str!("../../../docs/configuration.md");
/// Comments are broken at this width.
const WIDTH: usize = 96;
/// What stands for values that must be given.
const EXAMPLES: [(&str, &str); 3] = [
    ("listen.tls.certificate", "\"cert.pem\""),
    ("listen.tls.key", "\"key.pem\""),
    ("cluster.seeds", "[\"valkey-0.valkey:6379\"]"),
];
/// Sections that mean something by being there.
const OPTIONAL: [&str; 2] = ["cluster.tls", "users.NAME"];

/// A row of the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    pub(super) section: &'a str,
    /// It may be there more than once: `[[section]]`.
    list: bool,
    pub(super) key: &'a str,
    default: &'a str,
    meaning: &'a str,
}

impl Row<'_> {
    /// The default as TOML, if it is one and not told in words.
    pub(super) fn default(&self) -> Option<&str> {
        let inside = self.default.strip_prefix('`')?.strip_suffix('`')?;
        (!inside.contains('`') && !inside.starts_with("NAME")).then_some(inside)
    }
}

/// All rows, in the order of the reference.
pub(super) fn rows() -> Vec<Row<'static>> {
    let (mut rows, mut section, mut list) = (Vec::new(), "", false);
    for line in REFERENCE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            let name = title.trim_matches('`');
            list = name.starts_with("[[");
            section = name.trim_matches(['[', ']']);
        } else if let Some(cells) = line.strip_prefix("| `")
            && let Some((key, rest)) = cells.split_once("` | ")
            && let Some((default, meaning)) = rest.split_once(" | ")
        {
            rows.push(Row {
                section,
                list,
                key,
                default,
                meaning: meaning.trim_end_matches(" |"),
            });
        }
    }
    rows
}

/// The file that `--print-default-config` prints.
#[must_use]
pub fn commented() -> String {
    let mut text = "# Keyway's configuration: every key with its default. Three must be given: certificate, key \
         and\n# seeds. See docs/configuration.md.\n"
        .to_owned();
    let (mut section, mut list) = ("", false);
    for row in rows() {
        let optional = row.list || OPTIONAL.contains(&row.section);
        if (row.section, row.list) != (section, list) {
            (section, list) = (row.section, row.list);
            let mark = if optional { "# " } else { "" };
            let header = if row.list {
                format!("[[{section}]]")
            } else {
                format!("[{section}]")
            };
            let _ = writeln!(text, "\n{mark}{header}");
        }
        let path = format!("{section}.{}", row.key);
        comment(&mut text, &plain(row.meaning));
        let example = EXAMPLES.iter().find(|(key, _)| *key == path);
        let _ = match (example, row.default()) {
            (Some((_, example)), _) => writeln!(text, "{} = {example}", row.key),
            (None, Some(default)) => writeln!(text, "# {} = {default}", row.key),
            (None, None) => writeln!(text, "# {} =     # {}", row.key, plain(row.default)),
        };
    }
    text
}

/// Without the marks of Markdown.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((shown, after)) = link.split_once("](") else {
            break;
        };
        plain.push_str(before);
        plain.push_str(shown);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    plain.push_str(rest);
    plain.replace('`', "")
}

fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split(' ') {
        if line.len() + word.len() >= WIDTH {
            let _ = writeln!(text, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::*;
    use crate::config::{Config, typed};

    fn parse(text: &str) -> Config {
        let parsed = Config::parse(text, "k.toml", Path::new(""), &|_| None);
        parsed.unwrap_or_else(|problems| panic!("{problems}\n{text}"))
    }

    #[test]
    fn the_reference_has_every_key_and_no_other() {
        let rows = rows();
        let told: BTreeSet<String> = rows
            .iter()
            .map(|row| format!("{}.{}", row.section, row.key))
            .collect();
        assert_eq!(told.len(), rows.len(), "a key is told twice");
        let sections = typed::sections();
        // One of several clusters has these sections again, and they are told once.
        let again = ["listen", "reads", "users", "limits"].map(|own| format!("cluster.{own}"));
        let is_again = |path: &str| again.iter().any(|own| path.starts_with(own));
        let is_section = |path: &str| sections.iter().any(|(name, _)| *name == path);
        let known: BTreeSet<String> = sections
            .iter()
            .filter(|(section, _)| !section.is_empty() && !is_again(section))
            .flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")))
            .filter(|path| !is_section(path) && !is_again(path))
            .collect();
        assert_eq!(told, known);
    }

    /// Every default that stands there is the one in force when nothing is written.
    #[test]
    fn the_defaults_of_the_reference_are_the_defaults() {
        let text = commented();
        let bare = parse(&text);
        let mut written = String::new();
        let mut count = 0;
        for line in text.lines() {
            let default = line
                .strip_prefix("# ")
                .and_then(|line| line.split_once(" = "));
            let is_default = default.is_some_and(|(key, value)| {
                rows()
                    .iter()
                    .any(|row| row.key == key && row.default() == Some(value))
            });
            if is_default {
                count += 1;
            }
            written += if is_default {
                line.strip_prefix("# ").unwrap()
            } else {
                line
            };
            written.push('\n');
        }
        assert!(count > 20, "{count} defaults in\n{text}");
        assert_eq!(parse(&written).to_string(), bare.to_string());
        assert_eq!(text.lines().find(|line| line.len() > 200), None);
    }

    #[test]
    fn links_and_marks_are_left_out() {
        assert_eq!(plain("see [a b](c.md) and `d`"), "see a b and d");
        assert_eq!(plain("a [list] of"), "a [list] of");
    }
}
