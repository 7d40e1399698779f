//! The ACL categories, without the `@`.

mod set {
    use crate::flags::flag_set;

    flag_set! {
        /// The ACL categories of a command.
        Categories: u32 {
            /// `@keyspace`
            KEYSPACE = "keyspace",
            /// `@read`
            READ = "read",
            /// `@write`
            WRITE = "write",
            /// `@set`
            SET = "set",
            /// `@sortedset`
            SORTEDSET = "sortedset",
            /// `@list`
            LIST = "list",
            /// `@hash`
            HASH = "hash",
            /// `@string`
            STRING = "string",
            /// `@bitmap`
            BITMAP = "bitmap",
            /// `@hyperloglog`
            HYPERLOGLOG = "hyperloglog",
            /// `@geo`
            GEO = "geo",
            /// `@stream`
            STREAM = "stream",
            /// `@pubsub`
            PUBSUB = "pubsub",
            /// `@admin`
            ADMIN = "admin",
            /// `@fast`
            FAST = "fast",
            /// `@slow`
            SLOW = "slow",
            /// `@blocking`
            BLOCKING = "blocking",
            /// `@dangerous`
            DANGEROUS = "dangerous",
            /// `@connection`
            CONNECTION = "connection",
            /// `@transaction`
            TRANSACTION = "transaction",
            /// `@scripting`
            SCRIPTING = "scripting",
        }
    }
}

pub use set::Categories;
