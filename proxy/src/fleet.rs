//! Every node of a cluster at once, for the tools that change it: who is there and owns what
//! ([`View`]), how busy they are ([`Reading`], [`Load`]), what to move ([`Agenda`]), moving it
//! ([`Mover`]), mending what an earlier run left half done ([`heal`]), nodes that come and go ([`pool`]), and who may do it now ([`claim`]).
//!
//! Connections are those of discovery. What is known here is asked anew every time; nothing is kept
//! that the cluster does not know. Never here: anything that a serving Keyway needs.

use std::{collections::BTreeMap, time::Duration};

use resp::Value;
use tokio::{task::JoinSet, time::timeout};
use topology::NodeAddr;

use crate::{
    config::Config,
    contract::DiscoveryContext,
    discovery::{LookError, Node, look_at},
    tools::source,
};

mod agenda;
mod atomic;
mod board;
pub(crate) mod claim;
pub(crate) mod heal;
mod legacy;
mod load;
mod members;
mod mover;
pub(crate) mod pool;
mod view;

pub(crate) use agenda::{Agenda, Share, slots_as_ranges};
pub(crate) use board::Board;
pub(crate) use load::{Load, NodeRate, Reading, Source};
pub(crate) use mover::{Event, Job, Mover, Stop, What};
pub(crate) use view::{Peer, View};

/// One node's time to answer what it is asked at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request: a command's words.
type Words = Vec<Vec<u8>>;

/// Why something was not done, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The connection broke, or could not be made: the node may be gone.
    #[error("{addr}: {text}")]
    Gone { addr: NodeAddr, text: String },
    /// The node refuses.
    #[error("{addr} refuses {command}: {text}")]
    Refused {
        addr: NodeAddr,
        command: String,
        text: String,
    },
    /// The cluster is not as it must be.
    #[error("{0}")]
    State(String),
}

impl Trouble {
    fn gone(addr: &NodeAddr, error: &LookError) -> Self {
        Self::Gone {
            addr: addr.clone(),
            text: error.to_string(),
        }
    }

    fn silent(addr: &NodeAddr, patience: Duration) -> Self {
        Self::Gone {
            addr: addr.clone(),
            text: format!("no answer within {} s", patience.as_secs()),
        }
    }
}

/// The way to all nodes.
#[derive(Clone)]
pub(crate) struct Fleet {
    context: DiscoveryContext,
    seeds: Vec<NodeAddr>,
}

impl Fleet {
    /// Reaches the cluster that a configuration names.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let seeds = config.cluster.seeds.iter();
        let seeds = seeds.filter_map(|seed| NodeAddr::new(&seed.host, seed.port));
        Ok(Self {
            context: source::context(config)?,
            seeds: seeds.collect(),
        })
    }

    /// A connection of its own.
    async fn link(&self, addr: &NodeAddr) -> Result<Link, Trouble> {
        Link::open(&self.context, addr).await
    }

    /// Asks nodes the same, all at once.
    async fn ask_all(
        &self,
        nodes: impl IntoIterator<Item = NodeAddr>,
        requests: &[Words],
    ) -> BTreeMap<NodeAddr, Result<Vec<Value>, Trouble>> {
        let mut tasks = JoinSet::new();
        for addr in nodes {
            let (context, requests) = (self.context.clone(), requests.to_vec());
            tasks.spawn(async move {
                let asked = async {
                    let mut link = Link::open(&context, &addr).await?;
                    link.ask(&requests).await
                };
                let asked = timeout(PATIENCE, asked).await;
                let asked = asked.unwrap_or_else(|_| Err(Trouble::silent(&addr, PATIENCE)));
                (addr, asked)
            });
        }
        tasks.join_all().await.into_iter().collect()
    }

    /// What one node answers to one request.
    async fn ask(&self, addr: &NodeAddr, request: &[&str]) -> Result<Value, Trouble> {
        let mut answers = self.ask_all([addr.clone()], &[words(request)]).await;
        let answer = answers.remove(addr).and_then(Result::transpose_first);
        answer.unwrap_or_else(|| Err(Trouble::silent(addr, PATIENCE)))
    }

    /// Where the first seed that answers says that the nodes are.
    async fn seed(&self) -> Result<(NodeAddr, topology::Candidate), Trouble> {
        let (mut troubles, mut poor) = (Vec::new(), None);
        for seed in &self.seeds {
            match timeout(PATIENCE, look_at(&self.context, seed, false)).await {
                Ok(Ok(look)) if look.candidate.holes() == 0 => {
                    return Ok((seed.clone(), look.candidate));
                }
                // A node that was let go knows itself alone; better ask another.
                Ok(Ok(look)) => drop(poor.get_or_insert((seed.clone(), look.candidate))),
                Ok(Err(error)) => troubles.push(Trouble::gone(seed, &error).to_string()),
                Err(_) => troubles.push(Trouble::silent(seed, PATIENCE).to_string()),
            }
        }
        poor.ok_or_else(|| {
            Trouble::State(format!(
                "no node of [cluster] seeds answers: {}",
                troubles.join("; ")
            ))
        })
    }
}

/// The first answer of several.
trait TransposeFirst {
    fn transpose_first(self) -> Option<Result<Value, Trouble>>;
}

impl TransposeFirst for Result<Vec<Value>, Trouble> {
    fn transpose_first(self) -> Option<Result<Value, Trouble>> {
        match self {
            Ok(answers) => answers.into_iter().next().map(Ok),
            Err(trouble) => Some(Err(trouble)),
        }
    }
}

/// A connection to a node that something is done with.
struct Link {
    addr: NodeAddr,
    node: Node,
}

impl Link {
    async fn open(context: &DiscoveryContext, addr: &NodeAddr) -> Result<Self, Trouble> {
        match timeout(PATIENCE, Node::connect(context, addr)).await {
            Ok(Ok(node)) => Ok(Self {
                addr: addr.clone(),
                node,
            }),
            Ok(Err(error)) => Err(Trouble::gone(addr, &error)),
            Err(_) => Err(Trouble::silent(addr, PATIENCE)),
        }
    }

    /// Answers in order; refusals are among them.
    async fn ask(&mut self, requests: &[Words]) -> Result<Vec<Value>, Trouble> {
        self.ask_within(requests, PATIENCE).await
    }

    async fn ask_within(
        &mut self,
        requests: &[Words],
        patience: Duration,
    ) -> Result<Vec<Value>, Trouble> {
        match timeout(patience, self.node.call_all(requests)).await {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(error)) => Err(Trouble::gone(&self.addr, &error)),
            Err(_) => Err(Trouble::silent(&self.addr, patience)),
        }
    }

    /// One request, which must not be refused.
    async fn call(&mut self, request: &[&str]) -> Result<Value, Trouble> {
        let answers = self.ask(&[words(request)]).await?;
        let answer = answers.into_iter().next().unwrap_or(Value::Null);
        self.granted(&answer, &request.join(" "))?;
        Ok(answer)
    }

    /// An answer that must not be a refusal.
    fn granted(&self, answer: &Value, command: &str) -> Result<(), Trouble> {
        match answer.as_error() {
            None => Ok(()),
            Some(text) => Err(Trouble::Refused {
                addr: self.addr.clone(),
                command: command.chars().take(COMMAND_CHARS_SHOWN).collect(),
                text: String::from_utf8_lossy(text).into_owned(),
            }),
        }
    }
}

/// So much of a refused command is shown.
const COMMAND_CHARS_SHOWN: usize = 80;

fn words(request: &[&str]) -> Words {
    request
        .iter()
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// A field of `INFO` or `CLUSTER INFO`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

fn text_of(value: &Value) -> String {
    String::from_utf8_lossy(value.as_bytes().unwrap_or_default()).into_owned()
}
