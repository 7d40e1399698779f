//! Keys by key specs.

use crate::flags::KeyFlags;
use crate::keys::{Args, KeyRefs};
use crate::number;
use crate::spec::{BeginSearch, FindKeys, KeySpec};

/// What to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Include {
    /// Keys only.
    Keys,
    /// And what is routed like a key: sharded channels, cursors.
    LikeKeys,
}

/// Appends the keys that the specs find. `None`, and nothing appended, when a spec does not apply
/// or does not say everything; the answer then has to come from elsewhere.
pub(super) fn keys(
    specs: &[KeySpec],
    args: Args<'_>,
    include: Include,
    out: &mut KeyRefs,
) -> Option<()> {
    let start = out.len();
    let found = specs
        .iter()
        .filter(|spec| include == Include::LikeKeys || !spec.flags.contains(KeyFlags::NOT_KEY))
        .try_for_each(|spec| find(spec, args, out));
    if found.is_none() {
        out.truncate(start);
    }
    found
}

/// `Some` also when the spec's keyword is not there: it finds no keys then.
fn find(spec: &KeySpec, args: Args<'_>, out: &mut KeyRefs) -> Option<()> {
    let begin = match &spec.begin {
        BeginSearch::Index(index) => i64::from(*index),
        BeginSearch::Keyword { word, start_from } => {
            match behind_keyword(args, word, *start_from) {
                Some(index) => index,
                None => return Some(()),
            }
        }
        BeginSearch::Unknown => return None,
    };
    let count = i64::try_from(args.count()).ok()?;
    let (first, last, step) = match spec.find {
        FindKeys::Range { last, step, .. } if last >= 0 => (begin, begin + i64::from(last), step),
        FindKeys::Range {
            last,
            step,
            limit: 0,
        } => (begin, count + i64::from(last), step),
        FindKeys::Range { last, step, limit } => (
            begin,
            begin + (count - begin) / i64::from(limit) + i64::from(last),
            step,
        ),
        FindKeys::KeyNum {
            num_index,
            first,
            step,
        } => {
            let number = begin + i64::from(num_index);
            let keys = number::strict(args.get(usize::try_from(number).ok()?)?)?;
            let first = begin + i64::from(first);
            let span = keys.checked_sub(1)?.checked_mul(i64::from(step))?;
            (first, first.checked_add(span)?, step)
        }
        FindKeys::Unknown => return None,
    };
    if first < 1 || last < first || last >= count {
        return None;
    }
    for index in (first..=last).step_by(usize::from(step).max(1)) {
        args.push(out, usize::try_from(index).ok()?, spec.flags);
    }
    (!spec.flags.contains(KeyFlags::INCOMPLETE)).then_some(())
}

/// The index behind the keyword. As in the server, the last argument is not looked at when
/// searching forwards (nothing could follow), nor the first when searching backwards.
fn behind_keyword(args: Args<'_>, word: &str, start_from: i16) -> Option<i64> {
    let count = i64::try_from(args.count()).ok()?;
    let start = i64::from(start_from);
    let is_word = |index: &i64| usize::try_from(*index).is_ok_and(|index| args.is(index, word));
    if start > 0 {
        (start..count - 1).find(is_word)
    } else {
        (2..=count + start).rev().find(is_word)
    }
    .map(|index| index + 1)
}
