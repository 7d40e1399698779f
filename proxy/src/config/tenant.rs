//! One of several clusters: its name, and how clients choose it.

/// `[[cluster]]`: what a cluster that is not the only one has beside `[cluster]`'s keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
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
    /// How many clusters there are.
    pub of: usize,
}
