//! One client: its connection as the proxy's driver sees it, and what it still waits for.

use std::collections::VecDeque;

use resp::{ReplyFramer, Value};

use crate::{
    history::{History, Violation},
    listening::Listening,
    registers::Registers,
    speech::Sent,
    weather::Weather,
};

#[derive(Debug)]
pub(crate) struct Client {
    /// Never that of another client.
    pub(crate) number: usize,
    pub(crate) sent: VecDeque<Sent>,
    /// Written by the client, not yet at the proxy.
    pub(crate) outgoing: Vec<u8>,
    /// At the proxy, not yet read by it.
    pub(crate) inbox: Vec<u8>,
    /// Written by the proxy, not yet read by the client.
    pub(crate) outbox: Vec<u8>,
    received: Vec<u8>,
    framer: ReplyFramer,
    framed: usize,
    pub(crate) registers: Registers,
    pub(crate) serial: u64,
    pub(crate) answered: usize,
    pub(crate) errors: usize,
    pub(crate) has_shown_script: bool,
    /// Only for those who listen.
    pub(crate) listening: Option<Box<Listening>>,
    /// Of the proxy, who serves it.
    pub(crate) worker: usize,
    /// It has said `READONLY`: what it reads may be old.
    pub(crate) readonly: bool,
    /// Its way through all keys: which, and the cursor.
    pub(crate) walk: Option<(usize, String)>,
    /// Another client, by its id and its number.
    pub(crate) other: Option<(String, usize)>,
    /// How often it has said its name or had it forgotten.
    pub(crate) names: usize,
    /// It speaks RESP3.
    pub(crate) resp3: bool,
    /// It reads seldom.
    pub(crate) slow: bool,
    /// The driver waits for bytes to read.
    pub(crate) reading: bool,
    /// The driver waits for room to write.
    pub(crate) writing: bool,
    /// The client has closed its side.
    pub(crate) eof: bool,
    /// The driver has been told so.
    pub(crate) eof_seen: bool,
    /// What is on the agenda already.
    pub(crate) turn_due: bool,
    pub(crate) arrival_due: bool,
    pub(crate) reading_due: bool,
}

impl Client {
    pub(crate) fn new(number: usize, slow: bool) -> Self {
        Self {
            number,
            sent: VecDeque::new(),
            outgoing: Vec::new(),
            inbox: Vec::new(),
            outbox: Vec::new(),
            received: Vec::new(),
            framer: ReplyFramer::new(),
            framed: 0,
            registers: Registers::default(),
            serial: 0,
            answered: 0,
            errors: 0,
            has_shown_script: false,
            listening: None,
            worker: 0,
            readonly: false,
            walk: None,
            other: None,
            names: 0,
            resp3: false,
            slow,
            reading: true,
            writing: false,
            eof: false,
            eof_seen: false,
            turn_due: false,
            arrival_due: false,
            reading_due: false,
        }
    }

    /// A number that this client has not used, above 0.
    pub(crate) fn fresh(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Takes bytes that the proxy wrote, and checks every whole reply.
    pub(crate) fn receive(
        &mut self,
        count: usize,
        history: &mut History,
        weather: &Weather,
    ) -> Result<(), Violation> {
        self.received.extend(self.outbox.drain(..count));
        loop {
            let walk = self.framer.advance(&self.received[self.framed..]);
            let walk = walk.map_err(|error| format!("no reply: {error}"))?;
            self.framed += walk.consumed;
            if !walk.done {
                return Ok(());
            }
            let frame: Vec<u8> = self.received.drain(..self.framed).collect();
            self.framed = 0;
            let (value, _) = Value::parse(&frame).map_err(|error| format!("no reply: {error}"))?;
            if self.hears(&value, &mut history.messages)? {
                continue;
            }
            let number = self.number;
            let sent = self.sent.pop_front();
            let sent = sent.ok_or_else(|| format!("client {number} never asked for {value:?}"))?;
            self.check(&sent, &value, history, weather)?;
            self.answered += 1;
        }
    }
}
