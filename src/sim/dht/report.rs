//! What came of a run.

use crate::proto::time::{Duration, Instant};

/// A run's figures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Trials.
    pub lookups: Lookups,
    /// Nobody asks for anything.
    pub rest: Rest,
    /// Routing tables at the end.
    pub tables: Tables,
    /// What the disaster did to the traffic.
    pub peak: Peak,
    /// Forged tokens and answers.
    pub forgeries: Forgeries,
    /// A digest of every event in its order: equal for equal runs.
    pub trace_digest: u64,
    /// Events handled.
    pub event_count: u64,
    /// Datagrams sent.
    pub datagram_count: u64,
    /// Virtual time of the end.
    pub ended_at: Instant,
}

/// How many tried, how many found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lookups that were begun and not abandoned by the death of who asked.
    pub done: usize,
    /// Of these, those that were told the address they were after.
    pub found: usize,
}

/// How the trials went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lookups {
    /// All lookups.
    pub all: Tally,
    /// By the minute of their beginning, from the beginning of the work on: lookups for what was
    /// announced in the same half of the network, and in the other one.
    pub minutes: Vec<[Tally; 2]>,
    /// From the asker's own table to the first node that had it, or to the closest one.
    pub hops: Spread,
    /// Seconds until the address was told.
    pub found_seconds: Spread,
    /// Seconds until the lookup was over.
    pub done_seconds: Spread,
    /// Queries of a lookup; as many answers but for those that are lost.
    pub queries: Spread,
    /// Queries of an announce, the storing ones among them.
    pub announce_queries: Spread,
    /// Nodes that took an announce.
    pub stored: Spread,
}

/// What taking part costs when nobody asks for anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rest {
    /// Bytes a second out of a host, headers included.
    pub sent: Spread,
    /// Bytes a second into a host, headers included.
    pub received: Spread,
    /// How unequal the load is on those that strangers reach: 0 all the same, 1 one bears all.
    pub gini: f64,
}

/// What nodes know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tables {
    /// Nodes in a table.
    pub nodes: Spread,
    /// Of these, good ones.
    pub good: Spread,
    /// How many nodes a node thinks that there are.
    pub size_estimate: Spread,
    /// Nodes that say of themselves that nobody should keep them, of all.
    pub read_only: f64,
    /// Of the nodes that are kept as good: gone, or another one by now.
    pub dead: f64,
    /// Behind a NAT that strangers do not pass.
    pub behind_nat: f64,
    /// Hostile.
    pub hostile: f64,
}

/// A host's worst minute after the disaster, hosts with a lookup of their own in that minute left
/// out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Peak {
    /// Bytes a second, both ways.
    pub rate: Spread,
    /// As a multiple of the same host's traffic at rest.
    pub ratio: Spread,
    /// As a multiple of the mean host's traffic at rest.
    pub ratio_to_mean: Spread,
}

/// Forged datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgeries {
    /// Announces with a token of the sender's own making.
    pub tokens_sent: u64,
    /// Of these, accepted.
    pub tokens_accepted: u64,
    /// Answers to queries of the victim, with the address of who might have been asked.
    pub replies_sent: u64,
    /// Signs that one of them was believed.
    pub replies_accepted: u64,
}

/// A quantity over many of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// How many.
    pub count: usize,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub median: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The most.
    pub max: f64,
}

impl Spread {
    /// Of these values; all zero if there are none.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let (Some(&max), count) = (values.last(), values.len()) else { return Self::default() };
        let mean = values.iter().sum::<f64>() / count as f64;
        // The smallest value that at least so many of a hundred do not exceed.
        let at = |percent: usize| values[(count * percent).div_ceil(100).max(1) - 1];
        Self { count, mean, median: at(50), p99: at(99), max }
    }
}

/// The Gini coefficient: half the mean difference of two, by the mean.
pub(super) fn gini(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (count, total) = (values.len() as f64, values.iter().sum::<f64>());
    if total == 0.0 {
        return 0.0;
    }
    let ranked: f64 = values.iter().enumerate().map(|(rank, value)| (rank + 1) as f64 * value).sum();
    (2.0 * ranked / (count * total) - (count + 1.0) / count).max(0.0)
}

impl Tally {
    /// The found of the done; 1.0 if nothing was done.
    pub fn share(&self) -> f64 {
        if self.done == 0 { 1.0 } else { self.found as f64 / self.done as f64 }
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| Self {
            done: sum.done + tally.done,
            found: sum.found + tally.found,
        })
    }
}

impl Lookups {
    /// Lookups that were begun from this time after the beginning of the work on, both kinds.
    pub fn since(&self, after: Duration) -> Tally {
        let from = after.as_secs().div_ceil(60) as usize;
        self.minutes.iter().skip(from).flatten().copied().sum()
    }

    /// Lookups that were begun in this span after the beginning of the work, for what was announced
    /// in the same half of the network.
    pub fn within(&self, from: Duration, to: Duration) -> Tally {
        let (from, to) = (from.as_secs().div_ceil(60) as usize, to.as_secs() as usize / 60);
        self.minutes.iter().take(to).skip(from).map(|minute| minute[0]).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_of_the_values_given() {
        let spread = Spread::of((1..=200).map(f64::from).collect());
        assert_eq!((spread.count, spread.median, spread.p99, spread.max), (200, 100.0, 198.0, 200.0));
        assert!((spread.mean - 100.5).abs() < 1e-9);
        assert_eq!(Spread::of(Vec::new()), Spread::default());
        assert_eq!(Spread::of(vec![3.0]).p99, 3.0);
    }

    #[test]
    fn equal_loads_have_no_gini_and_a_single_bearer_nearly_one() {
        assert!(gini(vec![5.0; 100]) < 1e-9);
        let mut one = vec![0.0; 100];
        one[7] = 1.0;
        assert!(gini(one) > 0.98);
    }
}
