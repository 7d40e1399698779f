//! Finding the cluster's topology and following it. Never on the way of a command.
//!
//! A look asks one node at a time, a random known one first, then the seeds: `CLUSTER SHARDS`
//! (`SLOTS` where that is unknown) and the epoch. What it says is believed or not by
//! [`topology::accept`]; slots that lost their owner are only believed when a second node agrees.
//! Looks come when a worker asks for one (a redirect to an unknown node, a lost connection), at
//! most ten in a second, and otherwise every ten seconds.

use std::{
    collections::HashMap,
    io,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use command::{CommandTable, NotAllowed};
use dataplane::View;
use session::local::{Facts, Sums};
use tokio::time::{Instant, sleep_until, timeout};
use topology::{Candidate, NodeAddr, Refusal, Slot, Topology};
use tracing::Instrument as _;

use crate::{
    contract::DiscoveryContext,
    worker::{Shared, mix},
};

mod node;
mod readers;
mod ready;
mod seeds;
mod slot_stats;

use node::counts_of;
pub(crate) use node::{Look, LookError, Node, look_at};

/// Between two looks that nobody asked for.
const REGULAR: Duration = Duration::from_secs(10);
/// What the nodes count is added up this often at most, and only while clients ask for it.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// One primary's time to answer.
const COUNT_TIMEOUT: Duration = Duration::from_millis(1500);
/// Primaries that are asked; those of a larger cluster would take longer than the interval.
const COUNTED_MAX: usize = 200;
/// The cluster is asked this often which commands it knows.
const COMMANDS_EVERY: Duration = Duration::from_secs(60);
/// How long after a node has said that a slot moved to a node that is known. That is believed at
/// once, and a look finds what else has changed; when it finds nothing, the next such look waits
/// twice as long, up to the longer one: slots that move one by one need none.
const AFTER_MOVES: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];
/// Between two looks, however many are asked for.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// One node's time to answer everything, and when no node has within the shorter one.
const NODE_TIMEOUTS: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1500)];
/// A node that did not answer is asked last for so long.
const SILENT_FOR: Duration = Duration::from_secs(30);
/// Nodes that one look asks at most.
const NODES_MAX: usize = 16;

/// Starts the thread that follows the topology.
pub(crate) fn spawn(context: DiscoveryContext, shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("discovery".to_owned())
        .spawn(move || {
            let span = match &shared.name {
                Some(name) => tracing::error_span!("discovery", cluster = %name), // at every level
                None => tracing::Span::none(),
            };
            runtime.block_on(run(context, shared).instrument(span));
        })
}

/// Follows the topology until the end.
pub(crate) async fn run(context: DiscoveryContext, shared: Arc<Shared>) {
    let shutdown = context.shutdown.clone();
    let readers = readers::watch(context.clone(), Arc::clone(&shared));
    let slot_stats = slot_stats::watch(context.clone(), Arc::clone(&shared));
    let seeds = seeds::watch(context.clone(), Arc::clone(&shared));
    let discovery = Discovery {
        known: Arc::new(CommandTable::builtin().clone()),
        allowed: context.config.get().admin_commands.clone(),
        context,
        shared,
        topology: None,
        looks: 0,
        found_at: None,
        failures: 0,
        turn: 0,
        table: None,
        commands_at: None,
        counted_at: Instant::now(),
        silent: HashMap::new(),
        after_moves: AFTER_MOVES[0],
        looks_for_moves: false,
        jitters: 0,
    };
    tokio::select! {
        biased;
        () = shutdown.requested() => {}
        () = discovery.follow() => {}
        () = readers => {}
        () = slot_stats => {}
        () = seeds => {}
    }
}

struct Discovery {
    context: DiscoveryContext,
    shared: Arc<Shared>,
    topology: Option<Arc<Topology>>,
    looks: u64,
    /// When the first topology was believed.
    found_at: Option<Instant>,
    /// Looks in a row that found nothing.
    failures: u32,
    /// Makes every look begin with another node.
    turn: usize,
    /// The commands with what the configuration allows of them, if that differs from what workers began with.
    table: Option<Arc<CommandTable>>,
    /// The same before it allows anything, with what the cluster knows beyond the built-in ones.
    known: Arc<CommandTable>,
    allowed: Vec<Box<str>>,
    /// When the cluster was asked which it knows.
    commands_at: Option<Instant>,
    counted_at: Instant,
    /// Nodes that did not answer, and when.
    silent: HashMap<NodeAddr, Instant>,
    /// How long after a move is told the next look is.
    after_moves: Duration,
    /// That is why the next look is made.
    looks_for_moves: bool,
    /// How often chance was asked for.
    jitters: u64,
}

impl Discovery {
    async fn follow(mut self) {
        loop {
            let began = Instant::now();
            self.look().await;
            if self.looks == 1 {
                self.count().await;
            }
            self.wait(began).await;
            self.apply_moved();
            self.apply_allowed();
        }
    }

    /// Waits until it is time for another look; does in the meantime what else is asked for.
    async fn wait(&mut self, began: Instant) {
        let mut soon = if self.failures > 0 {
            began + Duration::from_secs(1)
        } else {
            began + REGULAR
        };
        let (shared, at) = (
            Arc::clone(&self.shared),
            began + INTERVAL_MIN + self.jitter(),
        );
        // One question for all of the wait: what was asked for is not forgotten meanwhile.
        let asked = async {
            shared.look_asked_for().await;
            sleep_until(at).await;
        };
        tokio::pin!(asked);
        loop {
            let regular = soon + self.jitter();
            let count = async {
                self.shared.count_asked_for().await;
                sleep_until(self.counted_at + COUNT_EVERY).await;
            };
            tokio::select! {
                biased;
                () = &mut asked => return,
                () = sleep_until(regular) => return,
                () = count => self.count().await,
                () = self.shared.moves_told() => {
                    self.apply_moved();
                    soon = soon.min(Instant::now() + self.after_moves);
                    self.looks_for_moves = true;
                }
            }
        }
    }

    /// Up to 50 ms, so that many proxies do not ask at the same moment.
    fn jitter(&mut self) -> Duration {
        self.jitters = self.jitters.wrapping_add(1);
        Duration::from_millis(mix(self.shared.seed ^ self.jitters) % 50)
    }

    /// What nodes told the workers holds at once; the look that follows finds the rest.
    fn apply_moved(&mut self) {
        let Some(before) = self.topology.clone() else {
            return;
        };
        let mut topology = (*before).clone();
        for (slot, to) in self.shared.take_moved() {
            if let Some(next) = topology.with_slot_moved(slot, &to) {
                note_moved(&self.shared, &topology, &next, slot, &to);
                topology = next;
            }
        }
        if topology.revision() != before.revision() {
            let facts = Arc::clone(&self.shared.view().facts);
            self.publish(Some(Arc::new(topology)), facts);
        }
    }

    /// Asks nodes until one gives a view that is believed.
    async fn look(&mut self) {
        let mut troubles: Vec<String> = Vec::new();
        for patience in NODE_TIMEOUTS {
            troubles.clear();
            if self.look_with(patience, &mut troubles).await {
                return;
            }
        }
        self.found_nothing(&troubles);
    }

    /// The same with so much time for each. Returns whether a view was believed.
    async fn look_with(&mut self, patience: Duration, troubles: &mut Vec<String>) -> bool {
        let mut unconfirmed: Option<Candidate> = None;
        for addr in self.nodes_to_ask() {
            let due = self
                .commands_at
                .is_none_or(|at| at.elapsed() >= COMMANDS_EVERY);
            let looked = timeout(patience, look_at(&self.context, &addr, due)).await;
            let look = match looked.unwrap_or(Err(LookError::Silent(patience))) {
                Ok(look) => look,
                Err(error) => {
                    troubles.push(format!("{addr}: {error}"));
                    self.silent.insert(addr, Instant::now());
                    continue;
                }
            };
            self.silent.remove(&addr);
            let candidate = match &unconfirmed {
                Some(other) if other.agrees_with(&look.candidate) => {
                    look.candidate.clone().confirmed()
                }
                _ => look.candidate.clone(),
            };
            match topology::accept(self.topology.as_deref(), candidate.clone()) {
                Ok(next) => {
                    self.believe(next, look, &addr);
                    return true;
                }
                Err(refusal) => {
                    if matches!(refusal, Refusal::LosesSlots(..)) {
                        unconfirmed = Some(candidate);
                    }
                    troubles.push(format!("{addr}: {refusal}"));
                }
            }
        }
        false
    }

    /// Adds up what the primaries count. Who does not answer is left out.
    async fn count(&mut self) {
        self.counted_at = Instant::now();
        let Some(topology) = self.topology.clone() else {
            return;
        };
        let mut sums = Sums::default();
        for primary in topology.primaries().take(COUNTED_MAX) {
            let counted = timeout(COUNT_TIMEOUT, counts_of(&self.context, &primary.addr)).await;
            if let Ok(Ok(info)) = counted {
                sums.add(&info);
            }
        }
        let facts = Facts {
            sums,
            ..(*self.shared.view().facts).clone()
        };
        self.publish(Some(topology), Arc::new(facts));
    }

    fn nodes_to_ask(&mut self) -> Vec<NodeAddr> {
        self.turn = self.turn.wrapping_add(1);
        let mut nodes: Vec<NodeAddr> = Vec::new();
        if let Some(topology) = &self.topology {
            let well = topology
                .nodes()
                .filter(|node| node.health == topology::Health::Online);
            nodes.extend(well.map(|node| node.addr.clone()));
        }
        let turn = self.turn.checked_rem(nodes.len()).unwrap_or(0);
        nodes.rotate_left(turn);
        nodes.sort_by_key(|addr| self.silent.contains_key(addr));
        nodes.truncate(NODES_MAX / 2);
        let config = self.context.config.get();
        let known: Vec<NodeAddr> = config
            .cluster
            .seeds
            .iter()
            .filter_map(|seed| NodeAddr::new(&seed.host, seed.port))
            .collect();
        let count = known.len().max(1);
        let seeds = known
            .into_iter()
            .cycle()
            .skip(self.turn % count)
            .take(count);
        for seed in seeds {
            if !nodes.contains(&seed) {
                nodes.push(seed);
            }
        }
        nodes.truncate(NODES_MAX);
        self.silent.retain(|_, at| at.elapsed() < SILENT_FOR);
        nodes.sort_by_key(|addr| self.silent.contains_key(addr));
        nodes
    }

    fn believe(&mut self, next: Option<Topology>, look: Look, addr: &NodeAddr) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "the cluster answers again");
        }
        self.failures = 0;
        self.looks += 1;
        self.context.metrics.looked(true);
        let news = next
            .as_ref()
            .is_some_and(|next| self.note_changes(next, addr));
        if news {
            self.after_moves = AFTER_MOVES[0];
        } else if std::mem::take(&mut self.looks_for_moves) {
            self.after_moves = (self.after_moves * 2).min(AFTER_MOVES[1]);
        }
        if let Some(next) = &next {
            report(self.topology.as_deref(), next);
        }
        let topology = next.map(Arc::new).or_else(|| self.topology.clone());
        let Some(current) = &topology else { return };
        if let Some(commands) = &look.commands {
            self.learn(commands);
        }
        let facts = Facts {
            version: look.version,
            default_user_open: look.default_user_open && !self.default_user_mapped(),
            slots_covered: Slot::COUNT - u16::try_from(current.holes()).unwrap_or(Slot::COUNT),
            shards: u16::try_from(current.shards().len()).unwrap_or(u16::MAX),
            nodes: u16::try_from(current.nodes().count()).unwrap_or(u16::MAX),
            epoch: current.epoch().unwrap_or_default(),
            databases: look.databases,
            sums: self.shared.view().facts.sums.clone(),
        };
        let known_for = self.found_at.get_or_insert_with(Instant::now).elapsed();
        let is_ready = self.context.readiness.reason().is_none();
        let why_not = ready::why_not(current.holes(), is_ready, known_for);
        self.publish(topology, Arc::new(facts));
        // Who hears of it looks at once, and must find what it is about.
        match why_not {
            None => self.context.readiness.ready(),
            Some(reason) => self.context.readiness.not_ready(&reason),
        }
    }

    /// Keeps what differs from before. Returns whether anything does.
    fn note_changes(&self, next: &Topology, told_by: &NodeAddr) -> bool {
        let (events, revision) = (&self.shared.events, next.revision().get());
        let why = format!("{told_by} said so when asked");
        let Some(before) = self.topology.as_deref() else {
            let (shards, nodes) = (next.shards().len(), next.nodes().count());
            events.found(revision, shards, nodes, &why);
            return true;
        };
        let changes = topology::diff(before, next);
        events.changed(revision, &changes, &why);
        !changes.is_empty()
    }

    /// Clients must say a password that Keyway itself wants.
    fn default_user_mapped(&self) -> bool {
        let config = self.context.config.get();
        config.users.iter().any(|user| &*user.name == "default")
    }

    fn publish(&mut self, topology: Option<Arc<Topology>>, facts: Arc<Facts>) {
        if let Some(topology) = &topology {
            self.context
                .metrics
                .topology_revision(topology.revision().get());
            let covered = usize::from(Slot::COUNT) - topology.holes();
            self.context
                .metrics
                .slots_covered(u16::try_from(covered).unwrap_or(Slot::COUNT));
        }
        self.topology.clone_from(&topology);
        self.shared.publish(View {
            readers: Arc::clone(&self.shared.view().readers),
            topology,
            facts,
            looks: self.looks,
            table: self.table.clone(),
        });
    }

    /// Completes the table of commands: with modules', or a newer server's.
    fn learn(&mut self, commands: &resp::Value) {
        self.commands_at = Some(Instant::now());
        match CommandTable::builtin().extended(commands) {
            Ok(table) if table.len() == self.known.len() => {}
            Ok(table) => {
                tracing::info!(
                    commands = table.len(),
                    beyond_the_built_in = table.len() - CommandTable::builtin().len(),
                    "the cluster knows other commands"
                );
                self.known = Arc::new(table);
                self.allow();
            }
            Err(error) => tracing::warn!(
                %error,
                "the cluster's commands cannot be read; only the built-in ones are served"
            ),
        }
    }

    /// Another configuration may allow others.
    fn apply_allowed(&mut self) {
        if self.context.config.get().admin_commands != self.allowed {
            self.allow();
            let facts = Arc::clone(&self.shared.view().facts);
            self.publish(self.topology.clone(), facts);
        }
    }

    /// What the configuration allows of all commands that are known.
    fn allow(&mut self) {
        let mut table = (*self.known).clone();
        self.allowed
            .clone_from(&self.context.config.get().admin_commands);
        for name in &self.allowed {
            match table.allow(name) {
                Ok(()) | Err(NotAllowed::NotRefused) => {}
                Err(why) => tracing::warn!(
                    command = %name, %why, "[admin_commands] allow names what cannot be allowed"
                ),
            }
        }
        self.table = Some(Arc::new(table));
    }

    fn found_nothing(&mut self, troubles: &[String]) {
        self.failures = self.failures.saturating_add(1);
        self.context.metrics.looked(false);
        if self.topology.is_none() {
            self.context
                .readiness
                .not_ready("no node of the cluster has answered yet");
        }
        // One line for the first failure, the second, the fourth.
        if self.failures.is_power_of_two() {
            tracing::warn!(
                failures = self.failures, tried = %troubles.join("; "),
                "no node gave a usable topology; trying again every second. Check [cluster] \
                 seeds, credentials and TLS"
            );
        }
    }
}

/// Keeps what a node told of a slot, if it is news.
fn note_moved(
    shared: &Shared,
    before: &Topology,
    after: &Topology,
    slot: topology::Slot,
    to: &NodeAddr,
) {
    if before.revision() == after.revision() {
        return;
    }
    let revision = after.revision().get();
    let was = before.node_by_addr(to).map(|node| node.role);
    if was == Some(topology::Role::Replica) {
        shared.events.told_promoted(revision, to);
    }
    let owner = |topology: &Topology| topology.owner_index(slot);
    if owner(before) != owner(after) {
        shared.events.told_moved(revision, 1, to);
    }
}

/// One line for a new topology.
fn report(before: Option<&Topology>, after: &Topology) {
    let changes = before.map_or_else(
        || {
            format!(
                "{} shards, {} nodes",
                after.shards().len(),
                after.nodes().count()
            )
        },
        |before| {
            let changes = topology::diff(before, after);
            let shown: Vec<String> = changes.iter().take(8).map(ToString::to_string).collect();
            let more = changes.len().saturating_sub(shown.len());
            let tail = if more > 0 {
                format!("; and {more} more")
            } else {
                String::new()
            };
            shown.join("; ") + &tail
        },
    );
    tracing::info!(revision = after.revision().get(), %changes, "the cluster's topology");
}
