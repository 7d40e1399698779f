//! Reading the built-in table, `data/commands.tsv`.

use crate::category::Categories;
use crate::flags::Flags;
use crate::spec::KeySpec;
use crate::table::{LegacyRange, Row};

const TABLE: &str = include_str!("../data/commands.tsv");

/// Keyway's own commands, in the same form.
const OWN: &str = include_str!("../data/own-commands.tsv");

/// The remarks on key specs: name, number of the spec from 0, text.
const NOTES: &str = include_str!("../data/key-spec-notes.tsv");

/// The rows of the built-in table. A malformed row would be a mistake of ours: a test reads them
/// all, and here it is left out.
pub(crate) fn rows() -> Vec<Row> {
    let own = OWN.lines().skip(1);
    let mut rows: Vec<Row> = TABLE.lines().skip(1).chain(own).filter_map(row).collect();
    for (name, number, text) in notes() {
        if let Some(row) = rows.iter_mut().find(|row| *row.name == *name)
            && let Some(spec) = row.key_specs.get_mut(number)
        {
            spec.notes = Some(text.into());
        }
    }
    rows
}

fn notes() -> impl Iterator<Item = (&'static str, usize, &'static str)> {
    NOTES.lines().filter_map(|line| {
        let (name, rest) = line.split_once('\t')?;
        let (number, text) = rest.split_once('\t')?;
        Some((name, number.parse().ok()?, text))
    })
}

/// One line: name, kind, arity, flags, first, last, step, key specs, tips, ACL categories, since,
/// group, two more. `-` is nothing; flags, tips and categories are joined by `|`, specs by ` ; `.
fn row(line: &str) -> Option<Row> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [
        name,
        _,
        arity,
        flags,
        first,
        last,
        step,
        specs,
        tips,
        acl,
        since,
        group,
        _,
        _,
    ] = fields.as_slice()
    else {
        return None;
    };
    let flags = list(flags, '|').try_fold(Flags::NONE, |set, name| {
        Some(set.with(Flags::from_name(name)?))
    })?;
    let categories = list(acl, '|').try_fold(Categories::NONE, |set, name| {
        Some(set.with(Categories::from_name(name.strip_prefix('@')?)?))
    })?;
    Some(Row {
        name: (*name).into(),
        arity: arity.parse().ok()?,
        flags,
        legacy_range: LegacyRange {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            step: step.parse().ok()?,
        },
        key_specs: specs
            .split(" ; ")
            .filter(|spec| *spec != "-")
            .map(KeySpec::from_table)
            .collect::<Option<_>>()?,
        tips: list(tips, '|').map(Into::into).collect(),
        categories,
        group: (*group).into(),
        since: (*since).into(),
        ..Row::default()
    })
}

fn list(field: &str, separator: char) -> impl Iterator<Item = &str> {
    field
        .split(separator)
        .filter(|part| !part.is_empty() && *part != "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read() {
        let lines: Vec<&str> = TABLE.lines().collect();
        assert!(
            lines
                .first()
                .unwrap()
                .starts_with("name\tkind\tarity\tflags\t")
        );
        for line in lines.iter().skip(1) {
            assert!(row(line).is_some(), "malformed: {line}");
        }
        assert_eq!(lines.len() - 1, 399);
        for line in OWN.lines().skip(1) {
            assert!(row(line).is_some(), "malformed: {line}");
        }
        assert_eq!(rows().len(), 399 + 6);
    }

    #[test]
    fn every_note_has_its_spec() {
        let rows = rows();
        assert_eq!(notes().count(), NOTES.lines().count());
        for (name, number, text) in notes() {
            let row = rows.iter().find(|row| *row.name == *name).unwrap();
            let spec = row.key_specs.get(number).unwrap();
            assert_eq!(spec.notes.as_deref(), Some(text));
        }
    }
}
