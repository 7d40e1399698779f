//! Label values: closed sets.

/// An enum whose variants are label values, in this order.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $variant:ident => $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$what])* $variant,)+
        }

        impl $name {
            /// The values' texts, in order.
            pub const LABELS: &'static [&'static str] = &[$($text),+];
            /// The values, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            pub(super) const COUNT: usize = Self::LABELS.len();
        }
    };
}

labels! {
    /// How a TLS handshake with a client ended.
    HandshakeResult {
        /// Well.
        Ok => "ok",
        /// Not in time.
        Timeout => "timeout",
        /// The client did not speak TLS.
        Plaintext => "plaintext",
        /// TLS failed.
        Tls => "tls",
        /// Its place was needed.
        Evicted => "evicted",
        /// It named no cluster of several, and none is for those who name none.
        NoCluster => "no_cluster",
        /// There was no place for one more client.
        NoPlace => "no_place",
        /// Its address had as many as one may have.
        Address => "address_full",
        /// The connection broke.
        Io => "io",
    }
}

labels! {
    /// Files that TLS needs.
    TlsFile {
        /// Certificates shown to clients, and their keys.
        Server => "server",
        /// Who vouches for clients.
        ClientCa => "client_ca",
        /// What those have revoked.
        ClientCrl => "client_crl",
        /// Who vouches for nodes.
        UpstreamCa => "upstream_ca",
        /// What nodes are shown, and its key.
        UpstreamClient => "upstream_client",
    }
}

labels! {
    /// How reading files again ended.
    ReloadResult {
        /// Something has changed, and is in force.
        Ok => "ok",
        /// It cannot be used; what was in force is.
        Failed => "failed",
    }
}

labels! {
    /// From clients, or to them.
    Direction {
        /// From clients.
        In => "in",
        /// To clients.
        Out => "out",
    }
}

labels! {
    /// Where a node is.
    Zone {
        /// In the proxy's own zone.
        Own => "own",
        /// In another.
        Other => "other",
        /// One of the two is not known.
        Unknown => "unknown",
    }
}

labels! {
    /// Who answered a read of a key that may be kept near.
    NearEnd {
        /// What is kept near.
        Hit => "hit",
        /// A node.
        Miss => "miss",
    }
}

labels! {
    /// Why a value that was kept near is not any more.
    NearDrop {
        /// A node told of a change.
        Invalidated => "invalidated",
        /// A connection was lost, or a slot has moved: nobody could tell.
        Lost => "lost",
    }
}

labels! {
    /// Where a node connection stands.
    UpstreamState {
        /// Being made, or waiting for another attempt.
        Connecting => "connecting",
        /// Carrying commands.
        Ready => "ready",
    }
}

labels! {
    /// How an attempt to connect to a node ended.
    ConnectResult {
        /// Well.
        Ok => "ok",
        /// Nobody listens there.
        Refused => "refused",
        /// No answer.
        Timeout => "timeout",
        /// TLS failed.
        Tls => "tls",
        /// The credentials were refused.
        Auth => "auth",
        /// The name has no address.
        Dns => "dns",
        /// What answered is not the node that was meant.
        Protocol => "protocol",
        /// The system's words are in the log.
        Io => "io",
    }
}

labels! {
    /// What sent a command elsewhere.
    RedirectKind {
        /// `MOVED`
        Moved => "moved",
        /// `ASK`
        Ask => "ask",
        /// `TRYAGAIN`
        TryAgain => "tryagain",
        /// `CLUSTERDOWN`
        ClusterDown => "clusterdown",
        /// `LOADING`
        Loading => "loading",
        /// `MASTERDOWN`
        MasterDown => "masterdown",
        /// `READONLY`
        ReadOnly => "readonly",
    }
}

labels! {
    /// Errors that the proxy made.
    ErrorKind {
        /// The client broke the protocol.
        Protocol => "protocol",
        /// The command is unknown, malformed or refused.
        Refused => "refused",
        /// Authentication is missing or was refused.
        Auth => "auth",
        /// A write may or may not have run.
        UnknownOutcome => "unknown_outcome",
        /// No node could take the command in time.
        Unavailable => "unavailable",
        /// A redirected command was overtaken by a later one on its key.
        Overtaken => "overtaken",
    }
}

labels! {
    /// Why a node connection's replies could not be trusted.
    PoisonReason {
        /// A reply came that nobody waited for.
        Unexpected => "unexpected",
        /// A reply of a kind that its command never has.
        Shape => "shape",
        /// A sentinel came back altered.
        Sentinel => "sentinel",
        /// The bytes were no reply.
        Protocol => "protocol",
    }
}

labels! {
    /// A part of a command's time.
    Phase {
        /// TLS and reading, from the client's socket and back to it.
        ClientTls => "client_tls",
        /// Until its bytes were written to its node.
        Queue => "queue",
        /// Until the node's answer was read.
        Node => "node",
    }
}

labels! {
    /// What became of a command's trace.
    TraceEnd {
        /// The collector has it.
        Exported => "exported",
        /// There was no room for it.
        Dropped => "dropped",
        /// The collector did not take it.
        Failed => "failed",
    }
}
