//! One of several clusters: its name, and how clients choose it.

/// One of the clusters behind this Keyway. No two that there have ever been have the same: who holds
/// that of a cluster that is gone never means another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(usize);

impl ClusterId {
    /// The first, and the only one with `[cluster]`.
    pub const FIRST: Self = Self(0);

    /// The one that comes so many after the first.
    #[must_use]
    pub const fn nth(place: usize) -> Self {
        Self(place)
    }

    /// How many came before it.
    #[must_use]
    pub const fn place(self) -> usize {
        self.0
    }
}

/// `[[cluster]]`: what a cluster that is not the only one has beside `[cluster]`'s keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Which it is.
    pub id: ClusterId,
    /// What metrics, pages and lines in the log call it.
    pub name: Box<str>,
    /// It is chosen by clients that ask for one of these names (SNI), in small letters; `*.` stands for one
    /// more label.
    pub server_names: Vec<Box<str>>,
    /// It is chosen by clients that authenticate as one of these.
    pub user_names: Vec<Box<str>>,
    /// It is for clients that choose none.
    pub default: bool,
    /// It has a `listen.address` of its own.
    pub own_port: bool,
    /// It has a `reads.address` of its own.
    pub own_read_port: bool,
    /// What may wait for its clients is its share of what may wait for all.
    pub shares_memory: bool,
}
