//! The flags of commands and of keys, with the names that the server gives them.

/// A set of flags in one word, in the order in which the server prints them.
macro_rules! flag_set {
    (
        $(#[$doc:meta])*
        $name:ident: $repr:ty { $($(#[$flag_doc:meta])* $flag:ident = $text:literal,)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name($repr);

        #[allow(non_upper_case_globals, reason = "the enum below counts bits, not style")]
        impl $name {
            $($(#[$flag_doc])* pub const $flag: Self = Self(1 << (Bit::$flag as $repr));)*

            /// Every flag with its name, in the order in which the server prints them.
            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$flag, $text)),*];

            /// No flag.
            pub const NONE: Self = Self(0);

            /// Whether every flag of `other` is set.
            #[inline]
            #[must_use]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any flag of `other` is set.
            #[inline]
            #[must_use]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// The flags of both.
            #[inline]
            #[must_use]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The flags of `self` that are not in `other`.
            #[inline]
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// Whether no flag is set.
            #[inline]
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The flag that the server calls by this name, if it is known here.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::NAMES.iter().find(|(_, known)| *known == name).map(|(flag, _)| *flag)
            }

            /// The names of the flags that are set, in the server's order.
            pub fn names(self) -> impl Iterator<Item = &'static str> + Clone + use<> {
                Self::NAMES
                    .iter()
                    .filter(move |(flag, _)| self.contains(*flag))
                    .map(|(_, name)| *name)
            }
        }

        const _: () = {
            assert!($name::NAMES.len() <= <$repr>::BITS as usize, "more flags than bits");
        };

        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "named like the flags")]
        #[repr(u8)]
        enum Bit { $($flag,)* }
    };
}

pub(crate) use flag_set;

mod command_flags {
    flag_set! {
        /// What the server says of a command.
        Flags: u32 {
            /// It may change data.
            WRITE = "write",
            /// It changes no data.
            READONLY = "readonly",
            /// It is refused when the memory is full.
            DENYOOM = "denyoom",
            /// It comes from a module.
            MODULE = "module",
            /// It administers the server.
            ADMIN = "admin",
            /// It has to do with publish and subscribe.
            PUBSUB = "pubsub",
            /// Scripts may not call it.
            NOSCRIPT = "noscript",
            /// It may block its client.
            BLOCKING = "blocking",
            /// It works while the data set is being loaded.
            LOADING = "loading",
            /// It works on a replica without its primary.
            STALE = "stale",
            /// `MONITOR` does not show it.
            SKIP_MONITOR = "skip_monitor",
            /// The slow log does not show it.
            SKIP_COMMANDLOG = "skip_commandlog",
            /// It implies `ASKING`.
            ASKING = "asking",
            /// It takes constant or logarithmic time.
            FAST = "fast",
            /// It works before authentication.
            NO_AUTH = "no_auth",
            /// Its keys are optional.
            NO_MANDATORY_KEYS = "no_mandatory_keys",
            /// It is refused while the data set is being loaded in the background.
            NO_ASYNC_LOADING = "no_async_loading",
            /// It is refused inside a transaction.
            NO_MULTI = "no_multi",
            /// Its keys are not at fixed places.
            MOVABLE_KEYS = "movablekeys",
            /// It works while a script runs.
            ALLOW_BUSY = "allow_busy",
        }
    }
}

mod key_flags {
    flag_set! {
        /// What a command does to one of its keys.
        KeyFlags: u16 {
            /// It reads the key's value and never changes it.
            RO = "RO",
            /// It reads and changes the value.
            RW = "RW",
            /// It writes the value without looking at the old one.
            OW = "OW",
            /// It deletes the key.
            RM = "RM",
            /// It returns, copies or uses the user's data of the value.
            ACCESS = "access",
            /// It changes the user's data of the value, or its metadata.
            UPDATE = "update",
            /// It adds data to the value and changes none that is there.
            INSERT = "insert",
            /// It deletes some of the value.
            DELETE = "delete",
            /// The argument is no key but is routed like one: a sharded channel, a cursor.
            NOT_KEY = "not_key",
            /// The spec finds some of the keys only.
            INCOMPLETE = "incomplete",
            /// Which flags hold depends on the other arguments.
            VARIABLE_FLAGS = "variable_flags",
        }
    }
}

pub use command_flags::Flags;
pub use key_flags::KeyFlags;
