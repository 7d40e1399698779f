//! What a client connection has said of itself.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use command::CommandId;
use resp::Protocol;

use crate::{order::Order, output::Output, transaction::Transaction};

/// Who a session's commands run as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// Nobody has said: Valkey's `default` user, without a password.
    Default,
    /// The user that the proxy itself uses, lent by configuration.
    Service,
    /// A user that Valkey has accepted.
    Named(Arc<[u8]>),
}

/// Which replies a client wants (`CLIENT REPLY`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// All of them.
    #[default]
    On,
    /// None, errors neither.
    Off,
    /// All but that to the next command.
    SkipNext,
}

/// One client connection's state, apart from what is in flight.
#[derive(Debug)]
pub struct Session {
    /// `CLIENT ID`: unique in this process, never reused, grows with time.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address that the client dialled.
    pub local: SocketAddr,
    /// When it connected.
    pub connected_at: Instant,
    /// When it last sent a command.
    pub last_command_at: Instant,
    /// The last of them, if the table knows it.
    pub last_command: Option<CommandId>,
    /// Commands taken so far.
    pub commands: u64,
    /// Bytes read from it, after decryption.
    pub bytes_in: u64,
    /// Bytes written to it, before encryption.
    pub bytes_out: u64,
    /// The protocol of the replies.
    pub protocol: Protocol,
    /// Who the commands run as.
    pub user: User,
    /// What [`Session::user`] is at first and after `RESET`.
    pub initial_user: User,
    /// `CLIENT SETNAME`; empty when none.
    pub name: Vec<u8>,
    /// `CLIENT SETINFO LIB-NAME`; empty when none.
    pub lib_name: Vec<u8>,
    /// `CLIENT SETINFO LIB-VER`; empty when none.
    pub lib_ver: Vec<u8>,
    /// `SELECT`.
    pub database: u32,
    /// It must authenticate, whatever the cluster lets those do who do not.
    pub stranger: bool,
    /// It has come to the read port.
    pub read_port: bool,
    /// `READONLY` until `READWRITE`; from the start on the read port.
    pub readonly: bool,
    /// `CLIENT NO-EVICT`.
    pub no_evict: bool,
    /// `CLIENT NO-TOUCH`.
    pub no_touch: bool,
    /// `CLIENT REPLY`.
    pub reply_mode: ReplyMode,
    /// Nothing more is read; the connection closes when what is owed has been written.
    pub closing: bool,
    /// Behind `MULTI`: what is to run with `EXEC`.
    pub transaction: Option<Box<Transaction>>,
    /// The replies owed.
    pub order: Order,
    /// Bytes to write.
    pub output: Output,
    /// Messages that came while a reply was half written; they go behind it.
    pub deferred: Vec<u8>,
}

impl Session {
    /// A session as it is when a client has connected.
    #[must_use]
    pub fn new(id: u64, peer: SocketAddr, local: SocketAddr, user: User, now: Instant) -> Self {
        Self {
            id,
            peer,
            local,
            connected_at: now,
            last_command_at: now,
            last_command: None,
            commands: 0,
            bytes_in: 0,
            bytes_out: 0,
            protocol: Protocol::Resp2,
            user: user.clone(),
            initial_user: user,
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            database: 0,
            stranger: false,
            read_port: false,
            readonly: false,
            no_evict: false,
            no_touch: false,
            reply_mode: ReplyMode::On,
            closing: false,
            transaction: None,
            order: Order::default(),
            output: Output::default(),
            deferred: Vec::new(),
        }
    }

    /// `RESET`: everything that a client can set is as it was when it connected. The id stays,
    /// and so do the library's name and version, as on the server.
    pub fn reset(&mut self) {
        self.protocol = Protocol::Resp2;
        self.user = self.initial_user.clone();
        self.name.clear();
        self.database = 0;
        self.readonly = self.read_port;
        self.no_evict = false;
        self.no_touch = false;
        self.reply_mode = ReplyMode::On;
        self.transaction = None;
    }
}
