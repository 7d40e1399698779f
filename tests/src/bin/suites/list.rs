//! The lists in `tests/rows`: what passes on a server and not through Keyway, and why. Compares a
//! run with its list; runs nothing by itself.

use std::collections::BTreeMap;

use keyway_tests::tools::root;

use crate::outcome::Outcomes;

/// Tests with the reason why they do not pass through Keyway.
fn listed(name: &str) -> BTreeMap<String, String> {
    let path = root().join(format!("tests/rows/{name}.tsv"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, reason)| (name.to_owned(), reason.to_owned()))
        .collect()
}

/// Compares what passed on a server and through Keyway with the list called `name`, prints what is
/// not true and the counts, and returns whether the list is.
///
/// Some tests fail by chance, on a server as well. What ended otherwise than listed is run again on
/// both, and counts when it does so twice.
pub(crate) fn compare(
    name: &str,
    title: &str,
    [server, keyway]: [&Outcomes; 2],
    again: impl Fn(&[&String]) -> (Outcomes, Outcomes),
) -> bool {
    let known = listed(name);
    let lost: Vec<&String> = server
        .all_passed()
        .filter(|test| !keyway.passed(test))
        .collect();
    let new: Vec<&String> = lost
        .iter()
        .copied()
        .filter(|test| !known.contains_key(*test))
        .collect();
    let gone: Vec<&String> = known.keys().filter(|test| !lost.contains(test)).collect();
    let odd = [&new[..], &gone[..]].concat();
    let mut good = true;
    if !odd.is_empty() {
        let (server, keyway) = again(&odd);
        for test in new {
            let lost = server.passed(test) && !keyway.passed(test);
            let says = if lost {
                "fails, and is not listed"
            } else {
                "failed once"
            };
            println!("{says}: {test}\t{}", keyway.failure(test));
            good &= !lost;
        }
        for test in gone {
            let lost = server.passed(test) && !keyway.passed(test);
            let says = if lost {
                "passed once"
            } else {
                "is listed, and does not fail"
            };
            println!("{says}: {test}");
            good &= lost;
        }
    }
    let count = server.all_passed().count();
    println!(
        "{title}: {} of {count} that pass on a server pass through Keyway; {} are listed with a reason",
        count - lost.len(),
        known.len()
    );
    good
}
