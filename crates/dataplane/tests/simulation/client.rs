//! A client that remembers what it sent and knows which replies are possible.

use std::collections::{HashMap, HashSet, VecDeque};

use resp::Value;

use crate::rng::Rng;

/// What a command that was sent may be answered.
enum Sent {
    Append {
        key: Vec<u8>,
        token: Vec<u8>,
    },
    Get {
        keys: Vec<Vec<u8>>,
    },
    Echo(Vec<u8>),
    /// A status line, whatever it is about.
    Status(&'static str),
    /// A transaction of these; with watched keys it may not have run.
    Exec {
        appends: Vec<(Vec<u8>, Vec<u8>)>,
        watched: bool,
    },
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
        match rng.below(40) {
            0 => self.transact(rng, true),
            1..=4 => self.transact(rng, false),
            5..=20 => {
                resp::write::request(&mut self.outgoing, &[&b"APPEND"[..], &key, &token]);
                self.sent.push_back(Sent::Append { key, token });
            }
            21..=28 => {
                resp::write::request(&mut self.outgoing, &[&b"GET"[..], &key]);
                self.sent.push_back(Sent::Get { keys: vec![key] });
            }
            29..=36 => {
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

    /// Writes a transaction on the keys of one tag.
    fn transact(&mut self, rng: &mut Rng, watched: bool) {
        let tag = rng.below(self.keys.len() / 2) * 2;
        let both = [self.keys[tag].clone(), self.keys[tag + 1].clone()];
        if watched {
            let key = &both[rng.below(2)];
            resp::write::request(&mut self.outgoing, &[&b"WATCH"[..], key]);
            self.sent.push_back(Sent::Status("OK"));
        }
        resp::write::request(&mut self.outgoing, &["MULTI"]);
        self.sent.push_back(Sent::Status("OK"));
        let mut appends = Vec::new();
        for number in 0..1 + rng.below(3) {
            let key = both[rng.below(2)].clone();
            let token = format!("<{}.{}t{number}>", self.number, self.serial).into_bytes();
            resp::write::request(&mut self.outgoing, &[&b"APPEND"[..], &key, &token]);
            self.sent.push_back(Sent::Status("QUEUED"));
            appends.push((key, token));
        }
        resp::write::request(&mut self.outgoing, &["EXEC"]);
        self.sent.push_back(Sent::Exec { appends, watched });
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
            let torn = match sent {
                Sent::Get { keys } => keys.len() > 1,
                Sent::Exec { appends, .. } => appends.len() > 1,
                _ => false,
            };
            if !(torn && text.starts_with("TRYAGAIN")) {
                self.errors.push(text.clone());
            }
            if text.contains("UNKNOWN_OUTCOME") {
                match sent {
                    Sent::Append { key, token } => {
                        self.unknown += 1;
                        self.may_have_run(&[(key.clone(), token.clone())]);
                    }
                    Sent::Exec { appends, .. } => {
                        self.unknown += 1;
                        self.may_have_run(appends);
                    }
                    _ => {}
                }
            }
            return;
        }
        match sent {
            Sent::Echo(token) => assert_eq!(reply.as_bytes(), Some(&token[..])),
            Sent::Status(status) => assert_eq!(reply.as_bytes(), Some(status.as_bytes())),
            Sent::Exec { appends, watched } => {
                let Some(lengths) = reply.as_array() else {
                    assert!(*watched, "a transaction that did not run: {reply:?}");
                    return;
                };
                assert_eq!(lengths.len(), appends.len());
                for ((key, token), length) in appends.iter().zip(lengths) {
                    self.appended(key, token, length);
                }
            }
            Sent::Append { key, token } => self.appended(key, token, reply),
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

    fn appended(&mut self, key: &[u8], token: &[u8], reply: &Value) {
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

    /// All of these have run, or none.
    fn may_have_run(&mut self, appends: &[(Vec<u8>, Vec<u8>)]) {
        let mut grown: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for (key, token) in appends {
            grown.entry(key.clone()).or_default().extend(token);
        }
        for (key, tokens) in grown {
            let states = self.states.get_mut(&key).unwrap();
            let ran: Vec<Vec<u8>> = states
                .iter()
                .map(|state| [&state[..], &tokens].concat())
                .collect();
            states.extend(ran);
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
