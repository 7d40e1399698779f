//! The keys of one client: names, and what it knows of each.

use crate::load::model::{Counter, Log, Register};

/// Registers that lie in slots of their own, and that share one.
const REGISTERS: [usize; 2] = [6, 3];
const COUNTERS: usize = 3;
const FIELDS: usize = 4;
/// Writes after which a log goes on under a new name: its content is read as a whole.
pub(crate) const LOG_LEN_MAX: usize = 48;

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A string, by APPEND.
    Text,
    /// A list, by RPUSH.
    Right,
    /// A list, by LPUSH.
    Left,
    /// A counter and two lists of one slot that are only ever written together.
    Group,
}

const LOGS: [Kind; 5] = [Kind::Text, Kind::Text, Kind::Right, Kind::Left, Kind::Group];

/// One of a client's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Register(usize),
    Counter(usize),
    Field(usize),
    Log(usize),
}

#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) registers: Vec<Register>,
    pub(crate) counters: Vec<Counter>,
    /// The hash's key.
    pub(crate) hash: String,
    /// Its fields; their names are the registers' names.
    pub(crate) fields: Vec<Register>,
    pub(crate) logs: Vec<(Kind, Log)>,
}

impl Keys {
    /// All of them; a hash tag in `prefix` keeps them in one slot. Without `groups` there are no keys
    /// that are only written together.
    pub(crate) fn new(prefix: &str, client: usize, groups: bool) -> Self {
        let base = format!("{prefix}:{client}");
        let [apart, together] = REGISTERS;
        let apart = (0..apart).map(|n| format!("{base}:r{n}"));
        let together = (0..together).map(|n| format!("{{{base}}}:t{n}"));
        let log = |(n, kind): (usize, &Kind)| {
            let name = match kind {
                Kind::Group => format!("{{{base}:g}}"),
                _ => format!("{base}:l{n}"),
            };
            (*kind, Log::new(name))
        };
        Self {
            registers: apart.chain(together).map(Register::new).collect(),
            counters: (0..COUNTERS)
                .map(|n| Counter::new(format!("{base}:n{n}")))
                .collect(),
            fields: (0..FIELDS)
                .map(|n| Register::new(format!("{base}:f{n}")))
                .collect(),
            hash: format!("{base}:h"),
            logs: LOGS
                .iter()
                .filter(|kind| groups || **kind != Kind::Group)
                .enumerate()
                .map(log)
                .collect(),
        }
    }

    /// The registers whose slots differ, or those that share one.
    pub(crate) fn registers_of(&self, one_slot: bool) -> std::ops::Range<usize> {
        if one_slot {
            REGISTERS[0]..self.registers.len()
        } else {
            0..REGISTERS[0]
        }
    }

    pub(crate) fn places(&self) -> Vec<Place> {
        let registers = (0..self.registers.len()).map(Place::Register);
        let counters = (0..self.counters.len()).map(Place::Counter);
        let fields = (0..self.fields.len()).map(Place::Field);
        let logs = (0..self.logs.len()).map(Place::Log);
        registers
            .chain(counters)
            .chain(fields)
            .chain(logs)
            .collect()
    }
}

/// The keys of a group: the counter and the two lists.
pub(crate) fn group(name: &str) -> [String; 3] {
    ["n", "a", "b"].map(|part| format!("{name}:{part}"))
}
