//! `KEYWAY`: what the proxy knows of the cluster's load, over all its workers. Reads the question; who
//! counts has the answer.

/// Elements of an answer, unless `COUNT` says so.
const COUNT: usize = 10;

/// What `KEYWAY HELP` says.
pub const HELP: &[&str] = &[
    "KEYWAY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "HOTKEYS [COUNT <count>] [BY OPS|BYTES]",
    "    Return the keys with the most commands or bytes in a second, from a sample.",
    "HOTSLOTS [COUNT <count>] [BY OPS|BYTES]",
    "    Return the slots with the most, and what was counted of each since the start.",
    "BIGKEYS [COUNT <count>]",
    "    Return the keys with the biggest values that were read or written lately.",
    "SLOWLOG GET [<count>]",
    "    Return the last commands that took long for their clients, newest first.",
    "SLOWLOG LEN",
    "    Return how many there are.",
    "SLOWLOG RESET",
    "    Forget them.",
    "HELP",
    "    Print this help.",
];

/// What makes a key or a slot hot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HotBy {
    /// Commands.
    #[default]
    Operations,
    /// Bytes of requests and replies.
    Bytes,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// `KEYWAY HOTKEYS`
    HotKeys(usize, HotBy),
    /// `KEYWAY HOTSLOTS`
    HotSlots(usize, HotBy),
    /// `KEYWAY BIGKEYS`
    BigKeys(usize),
    /// `KEYWAY SLOWLOG GET`
    SlowGet(usize),
    /// `KEYWAY SLOWLOG LEN`
    SlowLen,
    /// `KEYWAY SLOWLOG RESET`
    SlowReset,
    /// `KEYWAY HELP`
    Help,
}

impl Question {
    /// Reads a command whose subcommand is `subcommand`; `None`: it is not one of these.
    pub(super) fn parse(subcommand: &str, args: &[&[u8]]) -> Option<Result<Self, String>> {
        let question = match subcommand {
            "hotkeys" => options(args, true).map(|(count, by)| Self::HotKeys(count, by)),
            "hotslots" => options(args, true).map(|(count, by)| Self::HotSlots(count, by)),
            "bigkeys" => options(args, false).map(|(count, _)| Self::BigKeys(count)),
            "slowlog" => slowlog(args),
            "help" if args.is_empty() => Ok(Self::Help),
            "help" => Err(super::inquiry::SYNTAX.to_owned()),
            _ => return None,
        };
        Some(question)
    }
}

fn slowlog(args: &[&[u8]]) -> Result<Question, String> {
    match args {
        [get] if get.eq_ignore_ascii_case(b"get") => Ok(Question::SlowGet(COUNT)),
        [get, number] if get.eq_ignore_ascii_case(b"get") => count(number).map(Question::SlowGet),
        [len] if len.eq_ignore_ascii_case(b"len") => Ok(Question::SlowLen),
        [reset] if reset.eq_ignore_ascii_case(b"reset") => Ok(Question::SlowReset),
        _ => Err("ERR KEYWAY SLOWLOG takes GET [count], LEN or RESET".to_owned()),
    }
}

fn options(mut args: &[&[u8]], with_by: bool) -> Result<(usize, HotBy), String> {
    let (mut shown, mut by) = (COUNT, HotBy::default());
    loop {
        args = match args {
            [] => return Ok((shown, by)),
            [word, number, rest @ ..] if word.eq_ignore_ascii_case(b"count") => {
                shown = count(number)?;
                rest
            }
            [word, what, rest @ ..] if with_by && word.eq_ignore_ascii_case(b"by") => {
                by = match *what {
                    ops if ops.eq_ignore_ascii_case(b"ops") => HotBy::Operations,
                    bytes if bytes.eq_ignore_ascii_case(b"bytes") => HotBy::Bytes,
                    _ => return Err("ERR BY takes OPS or BYTES".to_owned()),
                };
                rest
            }
            _ => return Err(super::inquiry::SYNTAX.to_owned()),
        };
    }
}

fn count(bytes: &[u8]) -> Result<usize, String> {
    let number = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok());
    number.ok_or_else(|| "ERR count should be 0 or a positive number".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Question, String> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let name = String::from_utf8_lossy(words[0]).into_owned();
        Question::parse(&name, &words[1..]).unwrap()
    }

    #[test]
    fn every_question_is_read() {
        use HotBy::{Bytes, Operations};
        for (line, question) in [
            ("hotkeys", Question::HotKeys(10, Operations)),
            ("hotkeys COUNT 3 by BYTES", Question::HotKeys(3, Bytes)),
            (
                "hotslots by ops count 16384",
                Question::HotSlots(16384, Operations),
            ),
            ("bigkeys count 0", Question::BigKeys(0)),
            ("slowlog GET", Question::SlowGet(10)),
            ("slowlog get 5", Question::SlowGet(5)),
            ("slowlog len", Question::SlowLen),
            ("slowlog reset", Question::SlowReset),
            ("help", Question::Help),
        ] {
            assert_eq!(parsed(line), Ok(question), "{line}");
        }
        assert!(Question::parse("list", &[]).is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "hotkeys 3",
            "hotkeys count",
            "hotkeys count -1",
            "hotkeys by heat",
            "bigkeys by bytes",
            "slowlog",
            "slowlog len 1",
            "slowlog get many",
            "help me",
        ] {
            let error = parsed(line).unwrap_err();
            assert!(error.starts_with("ERR "), "{line}: {error}");
        }
    }
}
