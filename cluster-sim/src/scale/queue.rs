//! How long requests take: queues in closed form.
//!
//! A node is a queue with as many servers as CPUs it can have at the moment (a fraction of one counts):
//! M/G/c by Sakasegawa's approximation, whose waiting time is exponential for those who wait. What a
//! node could not serve at all waits before everything else, as a backlog with a length in time.

/// One part of a tenant's requests: those of one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Part {
    /// Its share of all; the shares need not add up to 1.
    pub(super) share: f64,
    /// What every request of it takes at least.
    pub(super) fixed_s: f64,
    /// On average and exponentially, beside that.
    pub(super) service_s: f64,
    /// How many have to wait..
    pub(super) waiting: f64,
    /// ..for how long on average and exponentially.
    pub(super) wait_s: f64,
}

/// What waits at a queue: the share that does, and how long on average.
///
/// `cpus` serve `use_share` of what they could; each takes `service_s` for a request.
pub(super) fn waiting(cpus: f64, use_share: f64, service_s: f64, cv2: f64) -> (f64, f64) {
    // A queue at its limit has no mean; the backlog counts what is above it.
    let busy = use_share.clamp(0.0, 0.995);
    let cpus = cpus.max(1e-3);
    let share = busy.powf((2.0 * (cpus + 1.0)).sqrt() - 1.0);
    let wait = service_s / (cpus * (1.0 - busy)) * f64::midpoint(1.0, cv2);
    (share.clamp(0.0, 1.0), wait)
}

impl Part {
    /// The share of its requests that takes longer than this.
    fn longer_than(&self, seconds: f64) -> f64 {
        let left = seconds - self.fixed_s;
        if left <= 0.0 {
            return 1.0;
        }
        let serve = 1.0 / self.service_s.max(1e-9);
        let mut wait = 1.0 / self.wait_s.max(1e-9);
        if (wait / serve - 1.0).abs() < 1e-6 {
            wait *= 1.0 + 1e-5;
        }
        let served = (-serve * left).exp();
        let both = (wait * served - serve * (-wait * left).exp()) / (wait - serve);
        ((1.0 - self.waiting) * served + self.waiting * both).clamp(0.0, 1.0)
    }
}

/// The latency that this share of all requests keeps, in seconds.
pub(super) fn quantile(parts: &[Part], share: f64) -> f64 {
    let all: f64 = parts.iter().map(|part| part.share).sum();
    if all <= 0.0 {
        return 0.0;
    }
    let (mut low, mut high) = (1e-6_f64, 600.0_f64);
    for _ in 0..48 {
        let middle = (low * high).sqrt();
        let over: f64 = parts
            .iter()
            .map(|part| part.share * part.longer_than(middle))
            .sum();
        if over / all > 1.0 - share {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[cfg(test)]
mod tests {
    use heat::Rng;

    use super::*;

    fn part(cpus: f64, busy: f64, service_s: f64) -> Part {
        let (waiting, wait_s) = waiting(cpus, busy, service_s, 1.0);
        Part {
            share: 1.0,
            fixed_s: 0.0,
            service_s,
            waiting,
            wait_s,
        }
    }

    /// The times in an M/M/c queue, one request after the other.
    fn simulated(cpus: usize, busy: f64, service_s: f64) -> Vec<f64> {
        let mut rng = Rng::new(1);
        let mut free_at = vec![0.0_f64; cpus];
        let mut now = 0.0;
        let mut times: Vec<f64> = (0..400_000)
            .map(|_| {
                now += rng.exponential() * service_s / (busy * cpus as f64);
                let first = (0..cpus)
                    .min_by(|a, b| free_at[*a].total_cmp(&free_at[*b]))
                    .unwrap();
                free_at[first] = free_at[first].max(now) + rng.exponential() * service_s;
                free_at[first] - now
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times
    }

    #[test]
    fn one_server_is_the_queue_of_the_books() {
        // M/M/1: the time in it is exponential with mean s / (1 - busy).
        for busy in [0.1, 0.5, 0.9] {
            let mean = 1e-3 / (1.0 - busy);
            let p99 = quantile(&[part(1.0, busy, 1e-3)], 0.99);
            assert!(
                (p99 / (mean * 100_f64.ln()) - 1.0).abs() < 0.01,
                "{busy}: {p99}"
            );
        }
    }

    #[test]
    fn several_servers_are_near_a_queue_that_is_played() {
        let places = [(0.5, 200_000), (0.99, 396_000)];
        for (cpus, busy) in [(2, 0.7), (4, 0.5), (8, 0.8), (8, 0.95)] {
            let times = simulated(cpus, busy, 1e-3);
            for (share, place) in places {
                let played = times[place];
                let ratio = quantile(&[part(cpus as f64, busy, 1e-3)], share) / played;
                assert!(
                    (0.85..1.2).contains(&ratio),
                    "{cpus} {busy} {share}: {ratio}"
                );
            }
        }
    }

    #[test]
    fn a_slow_node_shows_where_its_share_begins() {
        let slow = Part {
            share: 0.02,
            fixed_s: 1.0,
            ..part(1.0, 0.1, 1e-4)
        };
        let fast = Part {
            share: 0.98,
            ..part(1.0, 0.1, 1e-4)
        };
        assert!(quantile(&[slow, fast], 0.97) < 0.01);
        assert!(quantile(&[slow, fast], 0.99) > 1.0);
        assert!(quantile(&[], 0.5) == 0.0);
    }
}
