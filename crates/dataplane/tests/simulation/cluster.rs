//! A cluster just clever enough to redirect: strings, `MOVED`, `ASK`, `TRYAGAIN`, `ASKING`.

use std::collections::{BTreeMap, HashMap};

use resp::{OwnedRequest, Protocol, Request, RequestDecoder, RequestLimits, write};
use topology::{Candidate, Health, Node, NodeAddr, NodeId, Role, Shard, Slot, SlotRange};

use crate::rng::Rng;

pub const NODES: usize = 4;

#[derive(Default)]
pub struct Data(BTreeMap<Vec<u8>, Vec<u8>>);

pub struct Cluster {
    owners: Vec<usize>,
    /// Slot, from, to.
    pub moving: Vec<(u16, usize, usize)>,
    moves: HashMap<u16, usize>,
    data: Vec<Data>,
    pub slots_in_use: Vec<u16>,
    /// Grows whenever a slot has another owner.
    pub changes: u64,
}

/// One connection as the node sees it.
pub struct Link {
    pub node: usize,
    decoder: RequestDecoder,
    input: Vec<u8>,
    pub output: Vec<u8>,
    asking: bool,
    multi: Option<Vec<OwnedRequest>>,
    failed: bool,
}

impl Link {
    pub fn new(node: usize) -> Self {
        let decoder = RequestDecoder::new(RequestLimits::AUTHENTICATED);
        Self {
            node,
            decoder,
            input: Vec::new(),
            output: Vec::new(),
            asking: false,
            multi: None,
            failed: false,
        }
    }
}

pub fn addr(node: usize) -> NodeAddr {
    NodeAddr::new(&format!("node-{node}"), 1000).unwrap()
}

fn id(node: usize) -> NodeId {
    NodeId::parse(format!("{node:040x}").as_bytes()).unwrap()
}

impl Cluster {
    pub fn new(slots_in_use: Vec<u16>) -> Self {
        let owners = (0..usize::from(Slot::COUNT))
            .map(|slot| slot * NODES / 16384)
            .collect();
        let data = (0..NODES).map(|_| Data::default()).collect();
        Self {
            owners,
            moving: Vec::new(),
            moves: HashMap::new(),
            data,
            slots_in_use,
            changes: 1,
        }
    }

    pub fn candidate(&self) -> Candidate {
        let mut ranges: HashMap<usize, Vec<SlotRange>> = HashMap::new();
        let mut first = 0;
        for slot in 1..=self.owners.len() {
            if slot == self.owners.len() || self.owners[slot] != self.owners[first] {
                let bound = |slot: usize| Slot::new(slot as u16).unwrap();
                let range = SlotRange::new(bound(first), bound(slot - 1)).unwrap();
                ranges.entry(self.owners[first]).or_default().push(range);
                first = slot;
            }
        }
        let rows = (0..NODES).map(|node| {
            let primary = Node {
                id: id(node),
                addr: addr(node),
                role: Role::Primary,
                health: Health::Online,
                zone: None,
                replication_offset: None,
            };
            (
                Shard {
                    primary,
                    replicas: Vec::new(),
                },
                ranges.remove(&node).unwrap_or_default(),
            )
        });
        Candidate::from_shards(rows).unwrap()
    }

    /// Begins, goes on with, or ends the move of a slot.
    pub fn churn(&mut self, rng: &mut Rng) {
        if self.moving.is_empty() || rng.chance(20) {
            let slot = self.slots_in_use[rng.below(self.slots_in_use.len())];
            // A slot never comes back within a run: that takes real clusters longer than a
            // command is in flight.
            let from = self.owners[usize::from(slot)];
            let moves = self.moves.entry(slot).or_default();
            if *moves + 1 < NODES && !self.moving.iter().any(|(known, ..)| *known == slot) {
                *moves += 1;
                self.moving.push((slot, from, (from + 1) % NODES));
            }
            return;
        }
        let at = rng.below(self.moving.len());
        let (slot, from, to) = self.moving[at];
        let keys = self.data[from]
            .0
            .keys()
            .find(|key| Slot::of_key(key).get() == slot)
            .cloned();
        match keys {
            Some(key) => {
                let value = self.data[from].0.remove(&key).unwrap();
                self.data[to].0.insert(key, value);
            }
            None => {
                self.owners[usize::from(slot)] = to;
                self.changes += 1;
                self.moving.remove(at);
            }
        }
    }

    /// What the node has at the end.
    pub fn value(&self, key: &[u8]) -> Option<&Vec<u8>> {
        self.data.iter().find_map(|data| data.0.get(key))
    }

    /// Takes bytes on a connection and answers.
    pub fn receive(&mut self, link: &mut Link, bytes: &[u8]) {
        link.input.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(len) = link.decoder.decode(&link.input[used..]).unwrap() {
            let frame = &link.input[used..used + len];
            let request = OwnedRequest::parse(frame.to_vec()).unwrap();
            link.decoder.next();
            used += len;
            self.execute(link, request.as_request());
        }
        link.input.drain(..used);
    }

    fn execute(&mut self, link: &mut Link, request: Request<'_>) {
        let name = request.name().to_ascii_uppercase();
        let arg = |index: usize| request.arg(index).unwrap_or_default();
        let (node, asked) = (link.node, link.asking);
        let out = &mut link.output;
        if link.multi.is_none() && name != b"MULTI" {
            link.asking = false; // it holds for one command, or one transaction
        }
        match name.as_slice() {
            b"MULTI" => {
                link.multi = Some(Vec::new());
                link.failed = false;
                write::simple(out, "OK");
            }
            b"EXEC" => self.exec(link, asked),
            b"UNWATCH" => write::simple(out, "OK"),
            b"HELLO" => {
                write::map(out, Protocol::Resp2, 2);
                write::bulk(out, "version");
                write::bulk(out, "9.1.2");
                write::bulk(out, "proto");
                write::integer(out, 2);
            }
            b"CLIENT" => write::simple(out, "OK"),
            b"CLUSTER" => write::bulk(out, id(node).as_str()),
            b"ECHO" => write::bulk(out, arg(1)),
            b"ASKING" => {
                link.asking = true;
                write::simple(out, "OK");
            }
            _ => {
                let keys: Vec<&[u8]> = match name.as_slice() {
                    b"MGET" | b"WATCH" => request.args().skip(1).collect(),
                    _ => vec![arg(1)],
                };
                let queues = link.multi.is_some();
                if let Some(text) = self.redirect(node, asked, &keys, queues) {
                    link.failed = true;
                    write::error(out, text);
                } else if let Some(queue) = &mut link.multi {
                    queue.push(OwnedRequest::parse(request.bytes().to_vec()).unwrap());
                    write::simple(out, "QUEUED");
                } else if name == b"WATCH" {
                    write::simple(out, "OK");
                } else {
                    self.data[node].run(&name, &keys, arg(2), out);
                }
            }
        }
    }

    fn exec(&mut self, link: &mut Link, asked: bool) {
        link.asking = false;
        let queue = link.multi.take().expect("EXEC behind MULTI");
        let out = &mut link.output;
        if link.failed {
            write::error(
                out,
                "EXECABORT Transaction discarded because of previous errors.",
            );
            return;
        }
        let keys: Vec<&[u8]> = queue
            .iter()
            .map(|request| request.as_request().arg(1).unwrap())
            .collect();
        if let Some(text) = self.redirect(link.node, asked, &keys, false) {
            write::error(out, text);
            return;
        }
        write::array(out, queue.len());
        for request in &queue {
            let request = request.as_request();
            let (name, value) = (request.name(), request.arg(2).unwrap());
            self.data[link.node].run(name, &[request.arg(1).unwrap()], value, out);
        }
    }

    /// Where the keys are, if not here. What has moved is not looked for while a transaction is queued.
    fn redirect(&self, node: usize, asked: bool, keys: &[&[u8]], queues: bool) -> Option<String> {
        let slot = Slot::of_key(keys[0]).get();
        assert!(
            keys.iter().all(|key| Slot::of_key(key).get() == slot),
            "keys of two slots in one"
        );
        let owner = self.owners[usize::from(slot)];
        let missing = keys
            .iter()
            .filter(|key| !queues && !self.data[node].0.contains_key(**key))
            .count();
        let moving = self.moving.iter().find(|(known, ..)| *known == slot);
        match moving {
            Some((_, from, to)) if *from == node => match missing {
                0 => None,
                _ if missing == keys.len() || keys.len() == 1 => {
                    Some(format!("ASK {slot} {}", addr(*to)))
                }
                _ => Some("TRYAGAIN Multiple keys request during rehashing of slot".to_owned()),
            },
            Some((_, _, to)) if *to == node && asked => {
                let split = keys.len() > 1 && missing > 0;
                split.then(|| "TRYAGAIN Multiple keys request during rehashing of slot".to_owned())
            }
            _ if owner == node => None,
            _ => Some(format!("MOVED {slot} {}", addr(owner))),
        }
    }
}

impl Data {
    fn run(&mut self, name: &[u8], keys: &[&[u8]], value: &[u8], out: &mut Vec<u8>) {
        match name {
            b"APPEND" => {
                let entry = self.0.entry(keys[0].to_vec()).or_default();
                entry.extend_from_slice(value);
                write::integer(out, entry.len() as i64);
            }
            b"GET" => self.get(keys[0], out),
            b"MGET" => {
                write::array(out, keys.len());
                keys.iter().for_each(|key| self.get(key, out));
            }
            other => panic!("unexpected {}", String::from_utf8_lossy(other)),
        }
    }

    fn get(&self, key: &[u8], out: &mut Vec<u8>) {
        match self.0.get(key) {
            Some(value) => write::bulk(out, value),
            None => write::null(out, Protocol::Resp2),
        }
    }
}
