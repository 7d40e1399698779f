//! A client that remembers what it sent and knows which replies are possible.

use std::collections::{HashMap, HashSet, VecDeque};

use resp::Value;

use crate::rng::Rng;

/// What a command that was sent may be answered.
enum Sent {
    Append { key: Vec<u8>, token: Vec<u8> },
    Get { keys: Vec<Vec<u8>> },
    Echo(Vec<u8>),
}

pub struct Client {
    number: usize,
    keys: Vec<Vec<u8>>,
    sent: VecDeque<Sent>,
    /// Bytes not yet given to the proxy.
    pub outgoing: Vec<u8>,
    received: Vec<u8>,
    /// What each key may hold. More than one when an outcome is unknown.
    states: HashMap<Vec<u8>, HashSet<Vec<u8>>>,
    serial: usize,
    pub answered: usize,
    pub unknown: usize,
    pub errors: Vec<String>,
}

impl Client {
    pub fn new(number: usize, tags: &[&str]) -> Self {
        let keys: Vec<Vec<u8>> = tags
            .iter()
            .flat_map(|tag| [0, 1].map(|n| format!("{{{tag}}}:c{number}:{n}").into_bytes()))
            .collect();
        let empty = |key: &Vec<u8>| (key.clone(), HashSet::from([Vec::new()]));
        Self {
            number,
            states: keys.iter().map(empty).collect(),
            keys,
            sent: VecDeque::new(),
            outgoing: Vec::new(),
            received: Vec::new(),
            serial: 0,
            answered: 0,
            unknown: 0,
            errors: Vec::new(),
        }
    }

    pub fn awaits(&self) -> usize {
        self.sent.len()
    }

    /// Writes one more command.
    pub fn speak(&mut self, rng: &mut Rng) {
        self.serial += 1;
        let token = format!("<{}.{}>", self.number, self.serial).into_bytes();
        let key = self.keys[rng.below(self.keys.len())].clone();
        match rng.below(10) {
            0..5 => {
                resp::write::request(&mut self.outgoing, &[&b"APPEND"[..], &key, &token]);
                self.sent.push_back(Sent::Append { key, token });
            }
            5..7 => {
                resp::write::request(&mut self.outgoing, &[&b"GET"[..], &key]);
                self.sent.push_back(Sent::Get { keys: vec![key] });
            }
            7..9 => {
                let count = 1 + rng.below(4);
                let keys: Vec<Vec<u8>> = (0..count)
                    .map(|_| self.keys[rng.below(self.keys.len())].clone())
                    .collect();
                let mut args: Vec<&[u8]> = vec![b"MGET"];
                args.extend(keys.iter().map(Vec::as_slice));
                resp::write::request(&mut self.outgoing, &args);
                self.sent.push_back(Sent::Get { keys });
            }
            _ => {
                resp::write::request(&mut self.outgoing, &[&b"ECHO"[..], &token]);
                self.sent.push_back(Sent::Echo(token));
            }
        }
    }

    /// Takes bytes from the proxy and checks every whole reply.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        while let Some((value, len)) = self.next_reply() {
            self.received.drain(..len);
            let sent = self
                .sent
                .pop_front()
                .expect("a reply that nobody asked for");
            self.check(&sent, &value);
            self.answered += 1;
        }
    }

    fn next_reply(&self) -> Option<(Value, usize)> {
        let walk = resp::ReplyFramer::new().advance(&self.received).unwrap();
        walk.done
            .then(|| Value::parse(&self.received[..walk.consumed]).unwrap())
    }

    fn check(&mut self, sent: &Sent, reply: &Value) {
        if let Some(error) = reply.as_error() {
            let text = String::from_utf8_lossy(error).into_owned();
            assert!(
                !text.starts_with("MOVED") && !text.starts_with("ASK"),
                "{text}"
            );
            // While a slot moves, a server has no answer to several keys of it, and a later write
            // to one of them may have found its key: then nothing better can be told.
            let torn = matches!(sent, Sent::Get { keys } if keys.len() > 1);
            if !(torn && text.starts_with("TRYAGAIN")) {
                self.errors.push(text.clone());
            }
            if let Sent::Append { key, token } = sent
                && text.contains("UNKNOWN_OUTCOME")
            {
                self.unknown += 1;
                let states = self.states.get_mut(key).unwrap();
                let ran: Vec<Vec<u8>> = states
                    .iter()
                    .map(|state| [&state[..], token].concat())
                    .collect();
                states.extend(ran);
            }
            return;
        }
        match sent {
            Sent::Echo(token) => assert_eq!(reply.as_bytes(), Some(&token[..])),
            Sent::Append { key, token } => {
                let length = usize::try_from(reply.as_int().expect("a length")).unwrap();
                let states = self.states.get_mut(key).unwrap();
                let grown = states.iter().map(|state| [&state[..], token].concat());
                let possible: HashSet<_> = grown.filter(|state| state.len() == length).collect();
                assert!(
                    !possible.is_empty(),
                    "{}: {length} from {states:?}",
                    show(key)
                );
                *states = possible;
            }
            Sent::Get { keys } => {
                let single = std::slice::from_ref(reply);
                let values = reply.as_array().unwrap_or(single);
                assert_eq!(values.len(), keys.len());
                for (key, value) in keys.iter().zip(values) {
                    let value = value.as_bytes().unwrap_or_default().to_vec();
                    self.narrow(key, value);
                }
            }
        }
    }

    /// The key's value is known now.
    pub fn narrow(&mut self, key: &[u8], value: Vec<u8>) {
        let states = self.states.get_mut(key).unwrap();
        assert!(
            states.contains(&value),
            "{}: {} is none of {states:?}",
            show(key),
            show(&value)
        );
        *states = HashSet::from([value]);
    }

    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.keys.clone()
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
