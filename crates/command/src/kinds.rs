//! Which first bytes a command's reply may have: the cheapest check that a reply belongs to the
//! command at the head of a pipeline.
//!
//! A set that is too narrow cuts a healthy connection, one that is too wide misses a desync that
//! the other checks may still find. So a set holds whatever Valkey 8.0 to 9.1 was seen or could be
//! expected to answer, for hits, misses and every option, and what is not listed may be anything.

use std::fmt;

/// The type bytes of RESP2 and RESP3, in bit order.
const BYTES: &[u8; 15] = b"+-:$*_#,(!=%~>|";

/// A set of reply types.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KindSet(u16);

impl KindSet {
    /// Every type that begins a reply of RESP2 or RESP3; not the push `>`, which is none.
    pub const ANY: Self = Self::of(b"+-:$*_#,(!=%~|");

    /// These types, and errors, which every command may answer.
    pub(crate) const fn of(bytes: &[u8]) -> Self {
        let mut set = Self::bit(b'-');
        let mut rest = bytes;
        while let [byte, behind @ ..] = rest {
            set |= Self::bit(*byte);
            rest = behind;
        }
        Self(set)
    }

    /// Whether a reply may begin with this byte.
    #[inline]
    #[must_use]
    pub const fn contains(self, byte: u8) -> bool {
        self.0 & Self::bit(byte) != 0
    }

    /// The bytes, in no particular order.
    pub fn bytes(self) -> impl Iterator<Item = u8> {
        BYTES
            .iter()
            .copied()
            .filter(move |byte| self.contains(*byte))
    }

    /// 0 for a byte that begins no reply.
    const fn bit(byte: u8) -> u16 {
        match byte {
            b'+' => 1,
            b'-' => 1 << 1,
            b':' => 1 << 2,
            b'$' => 1 << 3,
            b'*' => 1 << 4,
            b'_' => 1 << 5,
            b'#' => 1 << 6,
            b',' => 1 << 7,
            b'(' => 1 << 8,
            b'!' => 1 << 9,
            b'=' => 1 << 10,
            b'%' => 1 << 11,
            b'~' => 1 << 12,
            b'>' => 1 << 13,
            b'|' => 1 << 14,
            _ => 0,
        }
    }
}

impl fmt::Debug for KindSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "KindSet({})",
            String::from_utf8_lossy(&self.bytes().collect::<Vec<_>>())
        )
    }
}

/// The sets of a built-in command, for RESP2 and RESP3.
pub(crate) fn of(name: &str) -> [KindSet; 2] {
    if name.ends_with("|help") {
        return [KindSet::of(b"*"); 2];
    }
    TABLE
        .iter()
        .find(|(_, _, names)| names.contains(&name))
        .map_or([KindSet::ANY; 2], |(resp2, resp3, _)| {
            [KindSet::of(resp2.as_bytes()), KindSet::of(resp3.as_bytes())]
        })
}

/// RESP2, RESP3, and the commands. RESP2's nulls are `$-1` and `*-1`.
const TABLE: &[(&str, &str, &[&str])] = &[
    (":", ":", INTEGERS),
    ("+", "+", STATUSES),
    ("$", "$_", STRINGS),
    ("*", "*_", ARRAYS),
    ("*", "*_~", &["sdiff", "sinter", "smembers", "sunion"]),
    (
        "*",
        "*_%",
        &["hgetall", "xinfo|stream", "xread", "xreadgroup"],
    ),
    ("+$", "+$_", &["set"]),
    (
        ":$",
        ":_",
        &[
            "memory|usage",
            "object|freq",
            "object|idletime",
            "object|refcount",
        ],
    ),
    (":$", ":$,_", &["zadd", "zincrby", "zscore", "geodist"]),
    (":$*", ":$*_", &["lpos", "zrank", "zrevrank"]),
    (
        "$*",
        "$*_",
        &["hrandfield", "lpop", "rpop", "srandmember", "zrandmember"],
    ),
    ("$*", "$*_~", &["spop"]),
    ("*:", "*:_", &["georadius", "georadiusbymember", "sort"]),
    ("$:*", "$:*_%", &["lcs"]),
    ("$", "$=", &["lolwut"]),
    (
        "*",
        "%",
        &[
            "function|stats",
            "config|get",
            "latency|histogram",
            "memory|stats",
        ],
    ),
    (
        "$",
        "$=",
        &["latency|doctor", "latency|graph", "memory|doctor"],
    ),
    ("$", "$", &["memory|malloc-stats"]),
    ("+$", "+$", &["acl|dryrun"]),
    ("$*", "$_", &["blmove", "brpoplpush"]),
    // It comes in a transaction's reply.
    (":*", ":*_", &["msetex"]),
];

const INTEGERS: &[&str] = &[
    "append",
    "bitcount",
    "bitop",
    "bitpos",
    "cluster|countkeysinslot",
    "commandlog|len",
    "copy",
    "dbsize",
    "decr",
    "decrby",
    "del",
    "delifeq",
    "exists",
    "expire",
    "expireat",
    "expiretime",
    "geoadd",
    "geosearchstore",
    "getbit",
    "hdel",
    "hexists",
    "hincrby",
    "hlen",
    "hset",
    "hsetex",
    "hsetnx",
    "hstrlen",
    "incr",
    "incrby",
    "lastsave",
    "latency|reset",
    "linsert",
    "llen",
    "lpush",
    "lpushx",
    "lrem",
    "move",
    "msetnx",
    "persist",
    "pexpire",
    "pexpireat",
    "pexpiretime",
    "pfadd",
    "pfcount",
    "pttl",
    "publish",
    "pubsub|numpat",
    "renamenx",
    "rpush",
    "rpushx",
    "sadd",
    "scard",
    "sdiffstore",
    "setbit",
    "setnx",
    "setrange",
    "sintercard",
    "sinterstore",
    "sismember",
    "slowlog|len",
    "smove",
    "spublish",
    "srem",
    "strlen",
    "sunionstore",
    "touch",
    "ttl",
    "unlink",
    "wait",
    "xack",
    "xdel",
    "xgroup|createconsumer",
    "xgroup|delconsumer",
    "xgroup|destroy",
    "xlen",
    "xtrim",
    "zcard",
    "zcount",
    "zdiffstore",
    "zintercard",
    "zinterstore",
    "zlexcount",
    "zrangestore",
    "zrem",
    "zremrangebylex",
    "zremrangebyrank",
    "zremrangebyscore",
    "zunionstore",
];

const STATUSES: &[&str] = &[
    "commandlog|reset",
    "flushall",
    "flushdb",
    "function|delete",
    "function|flush",
    "function|kill",
    "function|restore",
    "hmset",
    "lset",
    "ltrim",
    "memory|purge",
    "mset",
    "pfmerge",
    "psetex",
    "rename",
    "restore",
    "script|flush",
    "script|kill",
    "setex",
    "slowlog|reset",
    "type",
    "unwatch",
    "watch",
    "xgroup|create",
    "xgroup|setid",
    "xsetid",
];

const STRINGS: &[&str] = &[
    "acl|genpass",
    "acl|whoami",
    "dump",
    "function|dump",
    "function|load",
    "get",
    "getdel",
    "getex",
    "getrange",
    "getset",
    "hget",
    "hincrbyfloat",
    "incrbyfloat",
    "lindex",
    "lmove",
    "object|encoding",
    "randomkey",
    "rpoplpush",
    "script|load",
    "script|show",
    "substr",
    "xadd",
];

const ARRAYS: &[&str] = &[
    "acl|cat",
    "bitfield",
    "bitfield_ro",
    "blmpop",
    "blpop",
    "brpop",
    "bzmpop",
    "bzpopmax",
    "bzpopmin",
    "cluster|getkeysinslot",
    "cluster|slot-stats",
    "clusterscan",
    "commandlog|get",
    "exec",
    "function|list",
    "geohash",
    "geopos",
    "georadius_ro",
    "georadiusbymember_ro",
    "geosearch",
    "hexpire",
    "hexpireat",
    "hexpiretime",
    "hgetdel",
    "hgetex",
    "hkeys",
    "hmget",
    "hpersist",
    "hpexpire",
    "hpexpireat",
    "hpexpiretime",
    "hpttl",
    "hscan",
    "httl",
    "hvals",
    "keys",
    "latency|history",
    "latency|latest",
    "lmpop",
    "lrange",
    "mget",
    "module|list",
    "pubsub|channels",
    "pubsub|numsub",
    "pubsub|shardchannels",
    "pubsub|shardnumsub",
    "scan",
    "script|exists",
    "slowlog|get",
    "smismember",
    "sort_ro",
    "sscan",
    "time",
    "waitaof",
    "xautoclaim",
    "xclaim",
    "xinfo|consumers",
    "xinfo|groups",
    "xpending",
    "xrange",
    "xrevrange",
    "zdiff",
    "zinter",
    "zmpop",
    "zmscore",
    "zpopmax",
    "zpopmin",
    "zrange",
    "zrangebylex",
    "zrangebyscore",
    "zrevrange",
    "zrevrangebylex",
    "zrevrangebyscore",
    "zscan",
    "zunion",
];

#[cfg(test)]
mod tests;
