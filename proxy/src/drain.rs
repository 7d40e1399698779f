//! How the process ends without anybody losing a command, or serves a cluster no more: when it stops accepting, when it asks
//! clients to leave, and when it is over. What a client is owed is the dataplane's business.
//!
//! `serving -> shut -> leaving -> last chance -> over`, each at its time, or as soon as the last client is
//! gone.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep,
};

use crate::{
    config::{Drain, DrainMode, Live},
    contract::Stage,
    server::Running,
    systemd,
};

/// So much of the grace period is kept for the end itself: a tenth, at most this.
const RESERVE_MAX: Duration = Duration::from_secs(2);
/// A sidecar ends when nobody has been connected for so long: an application may reconnect.
const ALONE: Duration = Duration::from_secs(1);
/// More than enough for ports to be closed.
const SHUT: Duration = Duration::from_millis(20);
/// Between two looks whether anyone is left.
const LOOK: Duration = Duration::from_millis(20);

/// How long each stage lasts, from the signal on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Times {
    leaving: Duration,
    last_chance: Duration,
    over: Duration,
}

impl Times {
    fn of(drain: &Drain, asked: Asked) -> Self {
        let over = drain
            .grace
            .saturating_sub(RESERVE_MAX.min(drain.grace / 10));
        let leaving = match (asked, drain.mode) {
            // Nobody at a terminal has a load balancer that must learn of it.
            (Asked::Interrupt, _) => Duration::ZERO,
            (Asked::Terminate, DrainMode::Deployment) => drain.lame_duck.min(over),
            (Asked::Terminate, DrainMode::Sidecar) => over.saturating_sub(over / 5),
        };
        let rest = over.saturating_sub(leaving);
        Self {
            leaving,
            last_chance: over.saturating_sub(rest / 4),
            over,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Terminate,
    Interrupt,
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on.
    ///
    /// # Errors
    /// The system does not let us.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Terminate,
            _ = self.interrupt.recv() => Asked::Interrupt,
        }
    }
}

/// Serves until a signal, then lets clients go, then ends. A second signal means now.
pub async fn serve(running: Running, config: &Live, mut signals: Signals) {
    let asked = signals.next().await;
    let began = Instant::now();
    let drain = config.get().drain.clone();
    let times = Times::of(&drain, asked);
    running.readiness.drain();
    systemd::tell_stopping();
    tracing::info!(
        signal = ?asked, mode = ?drain.mode, clients = running.clients(),
        leaving_ms = times.leaving.as_millis(), over_ms = times.over.as_millis(),
        "ending; not ready any more"
    );
    let how = tokio::select! {
        () = go(&running, &drain, times, asked) => "in time",
        _ = signals.next() => "at once, by a second signal",
    };
    let left = running.clients();
    let after_ms = began.elapsed().as_millis();
    if left > 0 {
        tracing::warn!(left, after_ms, how, "ended with clients connected");
    } else {
        tracing::info!(after_ms, how, "ended");
    }
    running.stop().await;
}

async fn go(running: &Running, drain: &Drain, times: Times, asked: Asked) {
    let began = Instant::now();
    let sidecar = asked == Asked::Terminate && drain.mode == DrainMode::Sidecar;
    let clients = || running.clients();
    tokio::select! {
        () = sleep(times.leaving) => {}
        () = alone(&clients, ALONE), if sidecar => return,
    }
    let_go(began, times, &|stage| running.enter(stage), &clients).await;
}

/// Lets the clients of a part of the process go, as at the end of the process, but without delay: nobody
/// has to learn of it first.
pub(crate) async fn dismiss(
    drain: &Drain,
    enter: &(impl Fn(Stage) + Sync),
    clients: &(impl Fn() -> usize + Sync),
) {
    let times = Times::of(drain, Asked::Interrupt);
    let_go(Instant::now(), times, enter, clients).await;
}

async fn let_go(
    began: Instant,
    times: Times,
    enter: &(impl Fn(Stage) + Sync),
    clients: &(impl Fn() -> usize + Sync),
) {
    let until = |time: Duration| time.saturating_sub(began.elapsed());
    // Whoever leaves and comes back at once is to find another.
    enter(Stage::Shut);
    sleep(SHUT).await;
    enter(Stage::Leaving {
        within: times.last_chance.saturating_sub(times.leaving) / 2,
    });
    tokio::select! {
        () = sleep(until(times.last_chance)) => {}
        () = alone(clients, Duration::ZERO) => return,
    }
    enter(Stage::LastChance);
    tokio::select! {
        () = sleep(until(times.over)) => {}
        () = alone(clients, Duration::ZERO) => {}
    }
}

/// Waits until nobody is connected, for so long.
async fn alone(clients: &(impl Fn() -> usize + Sync), time: Duration) {
    let mut since: Option<Instant> = None;
    loop {
        sleep(LOOK).await;
        if clients() > 0 {
            since = None;
        } else if since.get_or_insert_with(Instant::now).elapsed() >= time {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn stages_follow_each_other_within_the_grace_period() {
        for mode in [DrainMode::Deployment, DrainMode::Sidecar] {
            for (grace, lame_duck) in [(25, 5), (1, 5), (100, 0), (3600, 3600)] {
                for asked in [Asked::Terminate, Asked::Interrupt] {
                    let drain = Drain {
                        mode,
                        grace: seconds(grace),
                        lame_duck: seconds(lame_duck),
                    };
                    let times = Times::of(&drain, asked);
                    let order = [times.leaving, times.last_chance, times.over];
                    assert!(order.is_sorted(), "{drain:?} {times:?}");
                    assert!(times.over < drain.grace, "{drain:?} {times:?}");
                }
            }
        }
    }

    #[test]
    fn a_sidecar_serves_longer_than_a_deployment() {
        let of = |mode, asked| {
            let usual = Drain {
                mode,
                ..Drain::default()
            };
            Times::of(&usual, asked).leaving
        };
        assert_eq!(of(DrainMode::Deployment, Asked::Terminate), seconds(5));
        assert!(of(DrainMode::Sidecar, Asked::Terminate) > seconds(15));
        assert_eq!(of(DrainMode::Sidecar, Asked::Interrupt), Duration::ZERO);
    }
}
