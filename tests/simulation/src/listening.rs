//! What is published, and what clients that listen hear of it.
//!
//! A message names its channel and its number. Nobody hears one twice, before the subscription is
//! confirmed or after its end; those of one client on a sharded channel come in the order in which
//! they were sent (others may come by two nodes when the slot moves). Messages get lost while a
//! node is, as on a server: what counts is that, once the faults are over, everybody who is
//! subscribed hears again.

use std::collections::{BTreeMap, BTreeSet};

use resp::Value;

use crate::{
    client::Client,
    history::{Fate, Violation},
    rng::Rng,
    speech::Sent,
};

/// Two for everybody, and two of a shard, in slots that move.
const CHANNELS: [&str; 4] = ["{a}:c", "{d}:c", "{a}:s", "{e}:s"];

/// Where a channel stands in [`CHANNELS`].
pub(crate) type Channel = usize;

fn is_sharded(channel: Channel) -> bool {
    channel >= 2
}

#[derive(Debug)]
struct Message {
    channel: Channel,
    client: usize,
    fate: Fate,
    heard: bool,
}

/// All messages of a run, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    all: Vec<Message>,
    /// Those from this one on were sent when the faults were over.
    last_words: Option<usize>,
}

impl Messages {
    fn begin(&mut self, channel: Channel, client: usize) -> usize {
        self.all.push(Message {
            channel,
            client,
            fate: Fate::Open,
            heard: false,
        });
        self.all.len() - 1
    }

    pub(crate) fn end(&mut self, number: usize, fate: Fate) {
        self.all[number].fate = fate;
    }

    /// The faults are over.
    pub(crate) fn calm_down(&mut self) {
        self.last_words = Some(self.all.len());
    }

    /// What was refused was heard by nobody.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        let mut all = self.all.iter().enumerate();
        match all.find(|(_, message)| message.fate == Fate::NotRun && message.heard) {
            Some((number, _)) => Err(format!(
                "told that it did not run, but it did: message {number}"
            )),
            None => Ok(()),
        }
    }
}

/// What a client that listens is subscribed to, and has heard.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    confirmed: BTreeSet<Channel>,
    heard: BTreeSet<usize>,
    /// By sharded channel and who speaks there.
    last: BTreeMap<(Channel, usize), usize>,
    /// Channels on which something was heard after the faults.
    well: BTreeSet<Channel>,
}

impl Listening {
    /// A channel on which nothing is heard any more.
    pub(crate) fn deaf_to(&self) -> Option<&'static str> {
        let mut channels = 0..CHANNELS.len();
        let channel = channels.find(|channel| !self.well.contains(channel))?;
        Some(CHANNELS[channel])
    }

    fn hear(
        &mut self,
        channel: Channel,
        text: &str,
        messages: &mut Messages,
    ) -> Result<(), Violation> {
        let known = text.rsplit_once('|').and_then(|(named, number)| {
            let number: usize = number.parse().ok()?;
            let message = messages.all.get(number)?;
            (named == CHANNELS[channel] && message.channel == channel).then_some(number)
        });
        let name = CHANNELS[channel];
        let number = known.ok_or_else(|| format!("identity: `{text}` is heard on {name}"))?;
        if !self.confirmed.contains(&channel) {
            return Err(format!("`{text}` is heard by who is not subscribed"));
        }
        if !self.heard.insert(number) {
            return Err(format!("at most once: `{text}` is heard twice"));
        }
        let message = &mut messages.all[number];
        message.heard = true;
        if is_sharded(channel) {
            let before = self.last.insert((channel, message.client), number);
            if before.is_some_and(|before| before > number) {
                return Err(format!("order: `{text}` is heard after a later message"));
            }
        }
        if messages.last_words.is_some_and(|first| number >= first) {
            self.well.insert(channel);
        }
        Ok(())
    }
}

impl Client {
    /// The client listens, and does nothing else.
    pub(crate) fn listen(&mut self) {
        self.listening = Some(Box::default());
        for channel in 0..CHANNELS.len() {
            self.subscribe(channel, true);
        }
    }

    fn subscribe(&mut self, channel: Channel, begin: bool) {
        let word = match (begin, is_sharded(channel)) {
            (true, false) => "SUBSCRIBE",
            (true, true) => "SSUBSCRIBE",
            (false, false) => "UNSUBSCRIBE",
            (false, true) => "SUNSUBSCRIBE",
        };
        let sent = Sent::Subscribe { channel, begin };
        self.say(&[word, CHANNELS[channel]], sent);
    }

    /// What a client that listens says.
    pub(crate) fn fidget(&mut self, rng: &mut Rng) {
        let channel = rng.below(CHANNELS.len());
        match rng.below(10) {
            0 => self.subscribe(channel, false),
            1..4 => self.subscribe(channel, true),
            _ => self.say(&["PING"], Sent::Ping),
        }
    }

    /// Asks again for what was refused or given up.
    pub(crate) fn subscribe_missing(&mut self) {
        let Some(listening) = self.listening.as_ref().filter(|_| self.sent.is_empty()) else {
            return;
        };
        let mut channels = 0..CHANNELS.len();
        let missing = channels.find(|channel| !listening.confirmed.contains(channel));
        if let Some(channel) = missing {
            self.subscribe(channel, true);
        }
    }

    pub(crate) fn publish(&mut self, rng: &mut Rng, messages: &mut Messages) {
        let channel = rng.below(CHANNELS.len());
        let number = messages.begin(channel, self.number);
        let word = if is_sharded(channel) {
            "SPUBLISH"
        } else {
            "PUBLISH"
        };
        let text = format!("{}|{number}", CHANNELS[channel]);
        self.say(&[word, CHANNELS[channel], &text], Sent::Publish(number));
    }

    /// Whether this is a message, and no reply.
    pub(crate) fn hears(
        &mut self,
        value: &Value,
        messages: &mut Messages,
    ) -> Result<bool, Violation> {
        let Some(listening) = &mut self.listening else {
            return Ok(false);
        };
        let Some([word, name, text]) = value.as_array() else {
            return Ok(false);
        };
        let sharded = match word.as_str() {
            Some("message") => false,
            Some("smessage") => true,
            _ => return Ok(false),
        };
        let (name, text) = (name.as_str(), text.as_str().unwrap_or_default());
        let channel = CHANNELS.iter().position(|known| Some(*known) == name);
        let channel = channel.filter(|channel| is_sharded(*channel) == sharded);
        let channel = channel.ok_or_else(|| format!("identity: a message on {name:?}"))?;
        let number = self.number;
        let heard = listening.hear(channel, text, messages);
        heard.map_err(|what| format!("{what}, by client {number}"))?;
        Ok(true)
    }

    /// Whether this confirms what was sent.
    pub(crate) fn confirms(&mut self, channel: Channel, begin: bool, reply: &Value) -> bool {
        let word = match (begin, is_sharded(channel)) {
            (true, false) => "subscribe",
            (true, true) => "ssubscribe",
            (false, false) => "unsubscribe",
            (false, true) => "sunsubscribe",
        };
        let (Some(listening), Some([said, name, count])) = (&mut self.listening, reply.as_array())
        else {
            return false;
        };
        if begin {
            listening.confirmed.insert(channel);
        } else {
            listening.confirmed.remove(&channel);
        }
        let same = |known: &&Channel| is_sharded(**known) == is_sharded(channel);
        let held = listening.confirmed.iter().filter(same).count();
        said.as_str() == Some(word)
            && name.as_str() == Some(CHANNELS[channel])
            && count.as_int() == Some(held as i64)
    }
}

/// A client that has subscriptions and speaks RESP2 is answered in another way.
pub(crate) fn is_pong(reply: &Value) -> bool {
    match reply.as_array() {
        Some([pong, nothing]) => pong.as_str() == Some("pong") && nothing.as_str() == Some(""),
        Some(_) => false,
        None => reply.as_bytes() == Some(b"PONG"),
    }
}
