//! What a simulated DHT is made of, and what happens to it when.
//!
//! A run has four parts, one after the other: hosts arrive, the overlay settles, it rests while the
//! traffic of maintenance is measured, and then it works: announces and lookups from elsewhere, and
//! the disaster if there is one.

use crate::proto::dht::defence::Defence;
use crate::proto::time::{Duration, Instant};

/// A DHT to be.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Everything follows from it.
    pub seed: u64,
    /// Hosts, hostile ones among them.
    pub nodes: usize,
    /// How the network treats datagrams.
    pub weather: Weather,
    /// Median of a host's session; who leaves is replaced at once. None: everybody stays.
    ///
    /// Sessions are exponential, which is the hard case: real ones have heavier tails, so that who
    /// has been there for long may be relied upon.
    pub churn: Option<Duration>,
    /// When what happens.
    pub plan: Plan,
    /// How many announces, each looked up from elsewhere; as many lookups.
    pub trials: usize,
    /// Who means harm.
    pub enemies: Enemies,
    /// The rules of the defence that honest nodes follow.
    pub defence: Defence,
    /// What befalls the overlay.
    pub disaster: Option<Disaster>,
}

/// How the network treats datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// Mean one-way latency; that of a pair follows from where the two are, between a quarter and
    /// twice it.
    pub latency: Duration,
    /// Datagrams that get lost, 0.0 to 1.0.
    pub loss: f64,
    /// Hosts behind a NAT, 0.0 to 1.0; of these seven in ten keep one port for all destinations and
    /// let in only who was written to, the others are more open or more closed.
    pub nat: f64,
}

/// The lengths of a run's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Hosts arrive, evenly.
    pub arrivals: Duration,
    /// Everybody is there and finds its place.
    pub settling: Duration,
    /// Nobody asks for anything: traffic is measured.
    pub rest: Duration,
    /// Announces and lookups, evenly.
    pub work: Duration,
    /// From an announce to its lookup.
    pub gap: Duration,
}

/// Hosts that mean harm, and what outsiders try.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Enemies {
    /// Hostile hosts, 0.0 to 1.0 of all.
    pub share: f64,
    /// What they are up to.
    pub attack: Attack,
    /// Announces with forged tokens, and as many forged answers to queries under way, against one
    /// node.
    pub forgeries: u64,
}

/// What hostile hosts are up to. All of them answer every query with other hostile ones that are
/// close to what was asked for, know no peers, and take announces without keeping them; and all of
/// them keep asking honest nodes, so as to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attack {
    /// They gather at the infohash that all trials are about, with ids as close to it as they like.
    #[default]
    Gather,
    /// They gather there with ids that fit their addresses (BEP 42): each takes the best that its
    /// own allows.
    GatherFitting,
    /// All of them claim one id.
    OneId,
}

/// What befalls the overlay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Disaster {
    /// A part of all nodes restarts, with the nodes they had saved.
    Restart {
        /// From the beginning of the work.
        after: Duration,
        /// Who restarts, 0.0 to 1.0 of all.
        share: f64,
        /// All of them within this span.
        within: Duration,
    },
    /// The network falls into two halves.
    Partition {
        /// From the beginning of the work.
        after: Duration,
        /// For so long.
        span: Duration,
    },
}

impl Default for Scenario {
    /// A thousand nodes that stay, 40 ms apart, without loss, NATs or enemies.
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 1_000,
            weather: Weather { latency: Duration::from_millis(40), loss: 0.0, nat: 0.0 },
            churn: None,
            plan: Plan {
                arrivals: Duration::from_secs(600),
                settling: Duration::from_secs(900),
                rest: Duration::from_secs(1_500),
                work: Duration::from_secs(600),
                gap: Duration::from_secs(120),
            },
            trials: 1_000,
            enemies: Enemies::default(),
            defence: Defence::ALL,
            disaster: None,
        }
    }
}

impl Scenario {
    /// How many of the hosts are hostile.
    pub fn hostile_count(&self) -> usize {
        (self.nodes as f64 * self.enemies.share).round() as usize
    }

    /// Whether all trials are about one infohash.
    pub fn one_target(&self) -> bool {
        let gather = match self.enemies.attack {
            Attack::Gather | Attack::GatherFitting => true,
            Attack::OneId => false,
        };
        gather && self.hostile_count() > 0
    }

    /// When the last part begins.
    pub fn work_at(&self) -> Instant {
        self.rest_at() + self.plan.rest
    }

    /// When the third part begins.
    pub fn rest_at(&self) -> Instant {
        Instant::ZERO + self.plan.arrivals + self.plan.settling
    }

    /// When the run ends: after the work, with time for the last lookup.
    pub fn end_at(&self) -> Instant {
        self.work_at() + self.plan.work + Duration::from_secs(60)
    }

    /// Hops that theory gives: each step brings a lookup closer by some bits. `log2(nodes) / 3` is
    /// the bar.
    pub fn hops_bound(&self) -> f64 {
        (self.nodes.max(1) as f64).log2() / 3.0
    }
}
