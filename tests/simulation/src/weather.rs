//! What one seed brings: the shape of the cluster, who its clients are, and which faults happen.

use std::time::Duration;

use crate::rng::Rng;

/// Drawn once per seed.
#[derive(Clone, Debug)]
pub(crate) struct Weather {
    pub(crate) shards: usize,
    pub(crate) replicas: usize,
    /// How far replicas are behind: what they lack is lost when their primary dies.
    pub(crate) lag: Duration,
    pub(crate) clients: usize,
    pub(crate) in_flight_max: usize,
    /// Commands that a client writes in one go, at most.
    pub(crate) burst: usize,
    /// Between two of a client's bursts, at most.
    pub(crate) pause: Duration,
    /// For how long clients speak and faults happen.
    pub(crate) lasts: Duration,
    /// From the proxy to a node or back, at most.
    pub(crate) delay: Duration,
    /// A connection carries so many bytes that nobody has taken.
    pub(crate) window: usize,
    /// Between two faults, at most.
    pub(crate) calm: Duration,

    pub(crate) legacy_moves: bool,
    pub(crate) atomic_moves: bool,
    pub(crate) planned_failovers: bool,
    pub(crate) misdirections: bool,
    pub(crate) old_views: bool,
    pub(crate) spikes: bool,
    pub(crate) slow_readers: bool,
    pub(crate) leavers: bool,
    pub(crate) loading: bool,

    pub(crate) cuts: bool,
    pub(crate) silence: bool,
    pub(crate) stops: bool,
    pub(crate) kills: bool,
    /// Nodes are cut off from each other, and not from the proxy.
    pub(crate) isolation: bool,

    pub(crate) transactions: bool,
    /// Some of them are over several slots, and cut.
    pub(crate) split: bool,
    pub(crate) scripts: bool,
    pub(crate) forging_scripts: bool,
    pub(crate) queues: bool,
    /// Some values are so big that replies with them are passed on in pieces.
    pub(crate) big_values: bool,
    pub(crate) resp3: bool,
    /// Some clients read from replicas.
    pub(crate) readers: bool,
    /// Clients beside the others that listen to what those publish.
    pub(crate) listeners: usize,
    /// Reads that ask the same are asked once, and many ask for one list.
    pub(crate) coalesce: bool,
    /// Clients are several users, in several databases.
    pub(crate) users: bool,
    /// Some commands are about all keys, or about several.
    pub(crate) fan_outs: bool,
    /// Of the proxy, where its drivers run.
    pub(crate) workers: usize,
    /// What clients read is kept near.
    pub(crate) near: bool,
    /// What many of them read is.
    pub(crate) hot: bool,
}

impl Weather {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let rough = rng.chance(60);
        let mut some = |percent| rng.chance(percent);
        let scripts = some(40);
        let mut weather = Self {
            legacy_moves: some(45),
            atomic_moves: some(35),
            planned_failovers: some(35),
            misdirections: some(25),
            old_views: some(30),
            spikes: some(30),
            slow_readers: some(25),
            leavers: some(35),
            loading: some(50),
            cuts: rough && some(50),
            silence: rough && some(35),
            stops: rough && some(30),
            kills: rough && some(40),
            isolation: false,
            transactions: some(60),
            split: false,
            scripts,
            forging_scripts: scripts && some(25),
            queues: some(40),
            big_values: some(20),
            resp3: some(40),
            readers: some(35),
            listeners: 0,
            coalesce: false,
            users: false,
            fan_outs: false,
            workers: 1,
            near: false,
            hot: false,
            shards: 2,
            replicas: 0,
            lag: Duration::ZERO,
            clients: 1,
            in_flight_max: 1,
            burst: 1,
            pause: Duration::ZERO,
            lasts: Duration::ZERO,
            delay: Duration::ZERO,
            window: 1,
            calm: Duration::ZERO,
        };
        weather.shards = 2 + rng.below(3);
        let needs_replicas = weather.planned_failovers || weather.kills;
        weather.replicas = usize::from(needs_replicas || rng.chance(30));
        if rng.chance(50) {
            weather.lag = rng.ms(1, 60);
        }
        weather.clients = 1 + rng.below(5);
        weather.in_flight_max = *rng.pick(&[1, 2, 5, 16, 64, 64]).unwrap_or(&64);
        weather.burst = 1 + rng.below(8);
        weather.pause = rng.ms(2, 80);
        weather.lasts = rng.ms(300, 1800);
        weather.delay = *rng
            .pick(&[100, 1_000, 5_000, 20_000].map(Duration::from_micros))
            .unwrap_or(&Duration::ZERO);
        weather.window = *rng.pick(&[40, 300, 4096, 1 << 20]).unwrap_or(&4096);
        if weather.window < 4096 {
            // Or commands are under way for so long that a shard fails over twice meanwhile.
            weather.delay = weather.delay.min(Duration::from_millis(1));
        }
        weather.big_values &= weather.window >= 4096;
        weather.calm = rng.ms(10, 150);
        weather.draw_more(&mut Rng::new(!rng.clone().next()));
        weather
    }

    /// By chance of its own: a run without any of this is what it was before there was any.
    fn draw_more(&mut self, apart: &mut Rng) {
        self.listeners = *apart.pick(&[0, 0, 1, 2]).unwrap_or(&0);
        self.coalesce = apart.chance(50);
        self.users = apart.chance(25);
        self.fan_outs = apart.chance(30);
        self.workers = *apart.pick(&[1, 1, 2, 3]).unwrap_or(&1);
        self.near = apart.chance(40);
        self.hot = !self.near && apart.chance(30);
        if self.hot {
            // Until it is known what is hot a second passes.
            self.lasts += apart.ms(1500, 3000);
        }
        self.isolation = self.kills && apart.chance(50);
        if self.kills && apart.chance(50) {
            // What a primary has not sent to its replica is lost with it.
            self.lag += apart.ms(0, 300);
        }
        self.split = self.transactions && apart.chance(50);
    }

    /// So long the proxy waits for a node's reply. Where hot keys are kept, long enough that it is not
    /// this that ends what a silent node's connection is believed.
    pub(crate) fn reply_max(&self) -> Duration {
        Duration::from_secs(if self.hot { 3 } else { 1 })
    }

    /// Commands may be lost: errors that say so are no fault of the proxy.
    pub(crate) fn is_rough(&self) -> bool {
        self.cuts || self.silence || self.stops || self.kills
    }
}
