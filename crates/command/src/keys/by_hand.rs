//! Keys of the commands whose specs do not say all: as the server's own functions find them.

use crate::flags::KeyFlags;
use crate::keys::{Args, KeyRefs};
use crate::number;
use crate::spec::{BeginSearch, FindKeys};
use crate::table::{Command, Row};

/// What the commands' functions differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByHand {
    /// A destination perhaps, a count, and as many keys. The count is read laxly, so that ` 1` and
    /// `1x` find keys here though the command will refuse them.
    Counted {
        /// Argument 1 is the destination.
        destination: bool,
        /// The argument with the count.
        count: u16,
        /// The first key.
        first: u16,
    },
    /// `SORT key ... STORE key`.
    Sort,
    /// `SORT_RO key ...`.
    SortRo,
    /// `MIGRATE host port key ...` or `MIGRATE host port "" ... KEYS key...`.
    Migrate,
    /// `GEORADIUS` and `GEORADIUSBYMEMBER`, with `STORE key` or `STOREDIST key`.
    GeoRadius,
    /// `XREAD` and `XREADGROUP`: the first half of what follows `STREAMS`.
    Streams,
    /// `SET key value ... GET`: with `GET` the key is read too.
    Set,
    /// `BITFIELD key`: with `GET` alone the key is read only.
    BitField,
}

const READ: KeyFlags = KeyFlags::RO.with(KeyFlags::ACCESS);
const OVERWRITE: KeyFlags = KeyFlags::OW.with(KeyFlags::UPDATE);
const READ_AND_UPDATE: KeyFlags = KeyFlags::RW.with(KeyFlags::ACCESS).with(KeyFlags::UPDATE);
const TAKE: KeyFlags = KeyFlags::RW.with(KeyFlags::ACCESS).with(KeyFlags::DELETE);

/// The function of a command, if the server has one for it.
pub(crate) fn by_hand(row: &Row) -> Option<ByHand> {
    if row.learned {
        return None;
    }
    match row.name.as_ref() {
        "sort" => Some(ByHand::Sort),
        "sort_ro" => Some(ByHand::SortRo),
        "migrate" => Some(ByHand::Migrate),
        "georadius" | "georadiusbymember" => Some(ByHand::GeoRadius),
        "xread" | "xreadgroup" => Some(ByHand::Streams),
        "set" => Some(ByHand::Set),
        "bitfield" => Some(ByHand::BitField),
        // MSETEX has a count too, but no function of its own.
        "msetex" => None,
        _ => row
            .key_specs
            .last()
            .and_then(|spec| match (&spec.begin, &spec.find) {
                (
                    BeginSearch::Index(begin),
                    FindKeys::KeyNum {
                        num_index, first, ..
                    },
                ) => Some(ByHand::Counted {
                    destination: row.key_specs.len() > 1,
                    count: begin + num_index,
                    first: begin + first,
                }),
                _ => None,
            }),
    }
}

impl ByHand {
    /// Whether it is of the kind that finds keys without saying what is done to them.
    pub(super) fn is_counted(self) -> bool {
        matches!(self, Self::Counted { .. })
    }

    /// Appends the keys. None: the request will be refused.
    pub(super) fn keys(self, command: &Command, args: Args<'_>, out: &mut KeyRefs) {
        match self {
            Self::Counted {
                destination,
                count,
                first,
            } => {
                let flags = command
                    .key_specs()
                    .last()
                    .map_or(KeyFlags::NONE, |spec| spec.flags);
                counted(args, count.into(), first.into(), destination, flags, out);
            }
            Self::Sort => sort(args, out),
            Self::SortRo => args.push(out, 1, READ),
            Self::Migrate => migrate(args, out),
            Self::GeoRadius => geo_radius(args, out),
            Self::Streams => streams(args, out),
            Self::Set => {
                let reads = (3..args.count()).any(|index| args.is(index, "get"));
                args.push(out, 1, if reads { READ_AND_UPDATE } else { OVERWRITE });
            }
            Self::BitField => {
                args.push(
                    out,
                    1,
                    if bit_field_reads(args) {
                        READ
                    } else {
                        READ_AND_UPDATE
                    },
                );
            }
        }
    }
}

fn counted(
    args: Args<'_>,
    count: usize,
    first: usize,
    destination: bool,
    flags: KeyFlags,
    out: &mut KeyRefs,
) {
    let wanted = args.get(count).map_or(0, number::atoi);
    let wanted = usize::try_from(wanted).unwrap_or(0);
    if wanted == 0 || wanted > args.count().saturating_sub(first) {
        return;
    }
    for index in first..first.saturating_add(wanted) {
        args.push(out, index, flags);
    }
    if destination {
        args.push(out, 1, OVERWRITE);
    }
}

/// The last `STORE` counts. `LIMIT` has two arguments, `GET` and `BY` one.
fn sort(args: Args<'_>, out: &mut KeyRefs) {
    args.push(out, 1, READ);
    let mut destination = None;
    let mut index = 2;
    while index < args.count() {
        if args.is(index, "limit") {
            index += 2;
        } else if args.is(index, "get") || args.is(index, "by") {
            index += 1;
        } else if args.is(index, "store") && index + 1 < args.count() {
            destination = Some(index + 1);
        }
        index += 1;
    }
    if let Some(index) = destination {
        args.push(out, index, OVERWRITE);
    }
}

fn migrate(args: Args<'_>, out: &mut KeyRefs) {
    let mut keys = 3..4;
    let mut index = 6;
    while index < args.count() {
        if args.is(index, "keys") {
            let alone = args.get(3).is_some_and(<[u8]>::is_empty);
            keys = if alone { index + 1..args.count() } else { 0..0 };
            break;
        }
        if args.is(index, "auth") {
            index += 1;
        } else if args.is(index, "auth2") {
            index += 2;
        }
        index += 1;
    }
    for index in keys {
        args.push(out, index, TAKE);
    }
}

/// The last `STORE` or `STOREDIST` counts; what follows one is not read as another.
fn geo_radius(args: Args<'_>, out: &mut KeyRefs) {
    args.push(out, 1, READ);
    let mut destination = None;
    let mut index = 5;
    while index + 1 < args.count() {
        if args.is(index, "store") || args.is(index, "storedist") {
            destination = Some(index + 1);
            index += 1;
        }
        index += 1;
    }
    if let Some(index) = destination {
        args.push(out, index, OVERWRITE);
    }
}

/// Nothing if the ids are not as many as the streams.
fn streams(args: Args<'_>, out: &mut KeyRefs) {
    let Some(options) = streams_options(args) else {
        return;
    };
    let behind = args.count().saturating_sub(options.word + 1);
    if behind.is_multiple_of(2) {
        for key in options.word + 1..=options.word + behind / 2 {
            args.push(out, key, READ);
        }
    }
}

/// What stands before the streams of `XREAD` and `XREADGROUP`.
struct StreamsOptions {
    /// The place of `STREAMS`. Groups, consumers and streams may be called so too.
    word: usize,
    /// There is a `BLOCK`.
    block: bool,
}

/// `None` for a syntax error.
fn streams_options(args: Args<'_>) -> Option<StreamsOptions> {
    let (mut word, mut block) = (1, false);
    while word < args.count() {
        word += match () {
            () if args.is(word, "streams") => return Some(StreamsOptions { word, block }),
            () if args.is(word, "block") => {
                block = true;
                2
            }
            () if args.is(word, "count") => 2,
            () if args.is(word, "group") => 3,
            () if args.is(word, "noack") => 1,
            () => return None,
        };
    }
    None
}

/// Whether `XREAD` or `XREADGROUP` has a `BLOCK` option. When its options cannot be read, the word
/// anywhere counts: a command wrongly held to block costs a connection of its own, the opposite
/// would stall everyone on a shared one.
pub(crate) fn streams_block(args: Args<'_>) -> bool {
    match streams_options(args) {
        Some(options) => options.block,
        None => (1..args.count()).any(|index| args.is(index, "block")),
    }
}

fn bit_field_reads(args: Args<'_>) -> bool {
    let mut index = 2;
    while index < args.count() {
        let behind = args.count() - index - 1;
        index += match () {
            () if args.is(index, "get") && behind >= 2 => 3,
            () if args.is(index, "overflow") && behind >= 1 => 2,
            // A write, or a syntax error.
            () => return false,
        };
    }
    true
}
