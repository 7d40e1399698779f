//! Key specs: where a command's keys are among its arguments, as the server describes it.

use crate::flags::KeyFlags;

/// Where the search for keys begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BeginSearch {
    /// At this argument; the command's name is argument 0.
    Index(u16),
    /// Behind this word. The search for it starts at an argument counted from the front, or, when
    /// negative, from the end and goes backwards.
    Keyword {
        /// The word, in any case.
        word: Box<str>,
        /// Where to start; never 0.
        start_from: i16,
    },
    /// The server cannot say.
    Unknown,
}

/// Which arguments are keys, from the place where the search began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindKeys {
    /// A range of arguments.
    Range {
        /// The last key: counted from the first key, or, when negative, from the end.
        last: i16,
        /// Every how many-th argument is a key; at least 1.
        step: u16,
        /// With a `last` of -1: only the first `1/limit` of the arguments. 0 and 1: no limit.
        limit: u16,
    },
    /// As many as another argument says.
    KeyNum {
        /// The argument with the number, counted from where the search began.
        num_index: u16,
        /// The first key, counted from there too.
        first: u16,
        /// Every how many-th argument is a key; at least 1.
        step: u16,
    },
    /// The server cannot say.
    Unknown,
}

/// One key spec of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// A remark for people, as `COMMAND INFO` shows it.
    pub notes: Option<Box<str>>,
    /// What the command does to these keys.
    pub flags: KeyFlags,
    /// Where the search begins.
    pub begin: BeginSearch,
    /// Which arguments are keys.
    pub find: FindKeys,
}

impl KeySpec {
    /// Reads `begin>find{flags}`, such as `index(1)>range(last=0,step=1,limit=0){RO|access}`: the
    /// form of the built-in table.
    pub(crate) fn from_table(text: &str) -> Option<Self> {
        let (search, flags) = text.strip_suffix('}')?.split_once('{')?;
        let (begin, find) = search.split_once('>')?;
        let flags = flags
            .split('|')
            .filter(|name| !name.is_empty())
            .try_fold(KeyFlags::NONE, |set, name| {
                Some(set.with(KeyFlags::from_name(name)?))
            })?;
        Some(Self {
            notes: None,
            flags,
            begin: begin_from(begin)?,
            find: find_from(find)?,
        })
    }
}

fn begin_from(text: &str) -> Option<BeginSearch> {
    if text == "unknown" {
        return Some(BeginSearch::Unknown);
    }
    let (kind, inner) = text.strip_suffix(')')?.split_once('(')?;
    match kind {
        "index" => Some(BeginSearch::Index(inner.parse().ok()?)),
        "keyword" => {
            let (word, start_from) = inner.split_once(',')?;
            let start_from = start_from.parse().ok().filter(|start: &i16| *start != 0)?;
            Some(BeginSearch::Keyword {
                word: word.into(),
                start_from,
            })
        }
        _ => None,
    }
}

fn find_from(text: &str) -> Option<FindKeys> {
    if text == "unknown" {
        return Some(FindKeys::Unknown);
    }
    let (kind, inner) = text.strip_suffix(')')?.split_once('(')?;
    let mut fields = inner.split(',');
    let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=');
    let find = match kind {
        "range" => FindKeys::Range {
            last: field("last")?.parse().ok()?,
            step: field("step")?.parse().ok().filter(|step| *step > 0)?,
            limit: field("limit")?.parse().ok()?,
        },
        "keynum" => FindKeys::KeyNum {
            num_index: field("numidx")?.parse().ok()?,
            first: field("first")?.parse().ok()?,
            step: field("step")?.parse().ok().filter(|step| *step > 0)?,
        },
        _ => return None,
    };
    fields.next().is_none().then_some(find)
}
