//! All torrents of one process: shares connections, unchoke slots and rates among them.
//!
//! Torrents report what they could use; the session leases shares and adjusts them each
//! [`LEASE_INTERVAL`]. Shares are max-min fair: a torrent that wants little gets it, and the others
//! get equal parts of the rest. Unwanted capacity is spread evenly, so that a torrent that becomes
//! active need not wait for the next interval.
//!
//! An adjustment is work for every torrent, so not every added one adjusts all shares: torrents
//! that are added together begin with a share that is always safe ([`GROWTH_PART`]).
//!
//! Invariant: the leases of one budget never add up to more than the budget.

use std::collections::{BTreeMap, VecDeque};

use super::infohash::InfoHash;
use super::time::{Duration, Instant};

/// Interval at which shares are adjusted to demand.
pub const LEASE_INTERVAL: Duration = Duration::from_secs(1);

/// Budgets of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all torrents.
    pub connection_max: usize,
    /// Connections of one torrent.
    pub torrent_connection_max: usize,
    /// Bytes per second of content sent; `None` for no limit.
    pub upload_rate_max: Option<u64>,
    /// Bytes per second of content received; `None` for no limit.
    pub download_rate_max: Option<u64>,
    /// Peers unchoked at once over all torrents; `None` to follow the upload capacity.
    pub unchoke_max: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connection_max: 500,
            torrent_connection_max: 100,
            upload_rate_max: None,
            download_rate_max: None,
            unchoke_max: None,
        }
    }
}

/// What one torrent could use, reported at each interval and on large changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Connections open or being opened.
    pub connections: usize,
    /// Candidates waiting for a connection.
    pub candidates: usize,
    /// Interested peers.
    pub interested: usize,
    /// Bytes per second sent recently.
    pub upload_rate: u64,
    /// Bytes per second received recently.
    pub download_rate: u64,
    /// Whether its upload lease limits it.
    pub upload_starved: bool,
    /// Whether its download lease limits it.
    pub download_starved: bool,
}

/// The share of one torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Connections it may have.
    pub connection_max: usize,
    /// Peers it may unchoke; `None` for as many as its upload capacity feeds.
    pub unchoke_max: Option<usize>,
    /// Bytes per second of content it may send; `None` for no limit.
    pub upload_rate: Option<u64>,
    /// Bytes per second of content it may request; `None` for no limit.
    pub download_rate: Option<u64>,
}

impl Lease {
    /// Returns this lease with the values of `old` that are between half of the new value and the
    /// new value (hysteresis). An idle torrent has a part of the unwanted capacity; without this,
    /// the changes of one busy torrent would wake thousands each second.
    fn or_much_as(self, old: Self) -> Self {
        let much = |new: u64, old: u64| if (new.div_ceil(2)..=new).contains(&old) { old } else { new };
        let rate = |new: Option<u64>, old: Option<u64>| new.map(|new| old.map_or(new, |old| much(new, old)));
        let count = |new: usize, old: usize| much(new as u64, old as u64) as usize;
        Self {
            connection_max: count(self.connection_max, old.connection_max),
            unchoke_max: self.unchoke_max.map(|new| old.unchoke_max.map_or(new, |old| count(new, old))),
            upload_rate: rate(self.upload_rate, old.upload_rate),
            download_rate: rate(self.download_rate, old.download_rate),
        }
    }
}

/// An output of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// A torrent's new share, if it changed.
    Lease(InfoHash, Lease),
}

/// Connections that a torrent gets even without candidates: room for incoming ones.
const CONNECTIONS_FLOOR: u64 = 4;
/// Connections beyond its present ones that a torrent may open while the process has room, whatever
/// its share: with more torrents than connections most shares are 0, and a seeded torrent must stay
/// reachable. The budget may so be exceeded by one for each torrent until the next adjustment.
const CONNECTIONS_SPARE: u64 = 1;
/// Unchoke slots that a torrent gets even without interested peers.
const SLOTS_FLOOR: u64 = 1;
/// Bytes per second that a torrent gets even when idle: one block a second.
const RATE_FLOOR: u64 = 16 * 1024;

/// Shares are adjusted at once for a new torrent only if the number of torrents has grown by one in
/// this many since the last adjustment; otherwise it begins with a spare connection and waits for
/// the next interval. So adding many torrents is work in proportion to their number, and the first
/// few need not wait.
const GROWTH_PART: usize = 8;

/// Demand and lease of one torrent.
#[derive(Debug, Default)]
struct Share {
    demand: Demand,
    lease: Option<Lease>,
}

/// The budgets of all torrents.
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    torrents: BTreeMap<InfoHash, Share>,
    /// When shares are adjusted again; `None` if nothing changed since the last time.
    due_at: Option<Instant>,
    fitted_at: Option<Instant>,
    /// Number of torrents at the last adjustment.
    fitted_count: usize,
    outputs: VecDeque<Output>,
}

impl Session {
    /// Creates a session without torrents.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            torrents: BTreeMap::new(),
            due_at: None,
            fitted_at: None,
            fitted_count: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Adds a torrent; its first lease follows.
    pub fn handle_added(&mut self, now: Instant, torrent: InfoHash) {
        self.torrents.entry(torrent).or_default();
        if self.torrents.len() > self.fitted_count + self.fitted_count / GROWTH_PART {
            return self.fit(now);
        }
        let first = self.first_lease();
        if let Some(share @ Share { lease: None, .. }) = self.torrents.get_mut(&torrent) {
            share.lease = Some(first);
            self.outputs.push_back(Output::Lease(torrent, first));
            self.fit_later(now);
        }
    }

    /// Returns what a torrent may take while everything is leased to others.
    fn first_lease(&self) -> Lease {
        Lease {
            connection_max: CONNECTIONS_SPARE as usize,
            unchoke_max: self.limits.unchoke_max.map(|_| 0),
            upload_rate: self.limits.upload_rate_max.map(|_| 0),
            download_rate: self.limits.download_rate_max.map(|_| 0),
        }
    }

    /// Removes a torrent.
    pub fn handle_removed(&mut self, now: Instant, torrent: InfoHash) {
        self.torrents.remove(&torrent);
        self.outputs.retain(|Output::Lease(infohash, _)| *infohash != torrent);
        self.fit_later(now);
    }

    /// Sets the demand of a torrent.
    pub fn handle_demand(&mut self, now: Instant, torrent: InfoHash, demand: Demand) {
        if let Some(share) = self.torrents.get_mut(&torrent)
            && share.demand != demand
        {
            share.demand = demand;
            self.fit_later(now);
        }
    }

    /// Applies the passage of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.due_at.is_some_and(|due_at| due_at <= now) {
            self.fit(now);
        }
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when to call [`Session::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due_at
    }

    fn fit_later(&mut self, now: Instant) {
        let earliest = self.fitted_at.map_or(now, |fitted_at| now.max(fitted_at + LEASE_INTERVAL));
        self.due_at.get_or_insert(earliest);
    }

    fn fit(&mut self, now: Instant) {
        (self.due_at, self.fitted_at) = (None, Some(now));
        self.fitted_count = self.torrents.len();
        let leases = self.leases();
        for ((&infohash, share), mut lease) in self.torrents.iter_mut().zip(leases) {
            if let Some(old) = share.lease.filter(|_| share.demand == Demand::default()) {
                lease = lease.or_much_as(old);
            }
            if share.lease != Some(lease) {
                share.lease = Some(lease);
                // A lease that was not polled yet precedes it.
                self.outputs.push_back(Output::Lease(infohash, lease));
            }
        }
    }

    /// Returns each torrent's share, in the order of the torrents.
    fn leases(&self) -> Vec<Lease> {
        let wants = |want: fn(&Demand) -> u64| -> Vec<u64> {
            self.torrents.values().map(|share| want(&share.demand)).collect()
        };
        let connections = wants(|demand| (demand.connections + demand.candidates) as u64);
        let slots = wants(|demand| demand.interested as u64);
        let uploads = wants(|demand| wanted_rate(demand.upload_rate, demand.upload_starved));
        let downloads = wants(|demand| wanted_rate(demand.download_rate, demand.download_starved));
        let connections =
            self.or_spare(fill(self.limits.connection_max as u64, &connections, CONNECTIONS_FLOOR));
        let slots = self.limits.unchoke_max.map(|max| fill(max as u64, &slots, SLOTS_FLOOR));
        let uploads = self.limits.upload_rate_max.map(|max| fill(max, &uploads, RATE_FLOOR));
        let downloads = self.limits.download_rate_max.map(|max| fill(max, &downloads, RATE_FLOOR));
        let lease = |(at, connection_max): (usize, u64)| Lease {
            connection_max: (connection_max as usize).min(self.limits.torrent_connection_max),
            unchoke_max: slots.as_ref().map(|shares| shares[at] as usize),
            upload_rate: uploads.as_ref().map(|shares| shares[at]),
            download_rate: downloads.as_ref().map(|shares| shares[at]),
        };
        connections.into_iter().enumerate().map(lease).collect()
    }

    /// Returns each share of connections, or the torrent's connections and spare ones if that is
    /// more.
    fn or_spare(&self, shares: Vec<u64>) -> Vec<u64> {
        let open = |share: &Share| share.demand.connections as u64;
        let open_count: u64 = self.torrents.values().map(open).sum();
        let room = (self.limits.connection_max as u64).saturating_sub(open_count);
        if room == 0 {
            return shares;
        }
        let least = self.torrents.values().map(|share| open(share) + CONNECTIONS_SPARE);
        shares.into_iter().zip(least).map(|(share, least)| share.max(least)).collect()
    }
}

/// Returns the wanted rate: everything for a limited torrent, a little more than the use for
/// others.
fn wanted_rate(rate: u64, starved: bool) -> u64 {
    if starved { u64::MAX } else { rate.saturating_add(rate / 4) }
}

/// Divides `total`: first each want, or `floor` if that is more, small ones in full and large ones
/// equally; then the rest in equal parts.
fn fill(total: u64, wants: &[u64], floor: u64) -> Vec<u64> {
    let mut order: Vec<usize> = (0..wants.len()).collect();
    order.sort_by_key(|&at| wants[at]);
    let mut shares = vec![0; wants.len()];
    let mut left = total;
    for (done, &at) in order.iter().enumerate() {
        let rest = (wants.len() - done) as u64;
        shares[at] = wants[at].max(floor).min(left.div_ceil(rest));
        left -= shares[at];
    }
    for (done, &at) in order.iter().enumerate() {
        let extra = left / (wants.len() - done) as u64;
        shares[at] += extra;
        left -= extra;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rng::Rng;

    fn infohash(number: u8) -> InfoHash {
        InfoHash([number; 20])
    }

    fn drain(session: &mut Session) -> BTreeMap<InfoHash, Lease> {
        std::iter::from_fn(|| session.poll_output())
            .map(|Output::Lease(infohash, lease)| (infohash, lease))
            .collect()
    }

    #[test]
    fn shares_follow_demand_and_never_exceed_the_budget() {
        assert_eq!(fill(100, &[10, 1_000, 1_000], 0), [10, 45, 45]);
        assert_eq!(fill(100, &[u64::MAX, 0], 20), [80, 20]);
        assert_eq!(fill(100, &[0, 0, 0, 0], 0), [25; 4]);
        assert!(fill(7, &[], 1).is_empty());
        let mut rng = Rng::from_number(8);
        for _ in 0..1_000 {
            let wants: Vec<u64> = (0..=rng.below(9)).map(|_| rng.bits() >> rng.below(64)).collect();
            let total = rng.bits() >> rng.below(64);
            let shares = fill(total, &wants, 5);
            assert_eq!(shares.iter().map(|&share| u128::from(share)).sum::<u128>(), u128::from(total));
        }
    }

    #[test]
    fn more_torrents_than_connections_are_all_reachable_until_all_connections_are_used() {
        let mut session = Session::new(Limits { connection_max: 30, ..Limits::default() });
        let mut now = Instant::ZERO;
        (0..100).for_each(|number| session.handle_added(now, infohash(number)));
        assert!(drain(&mut session).values().all(|lease| lease.connection_max >= 1));
        for number in 0..30 {
            session.handle_demand(now, infohash(number), Demand { connections: 1, ..Demand::default() });
        }
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
        assert!(drain(&mut session).len() >= 70, "most shares are nothing now");
        assert_eq!(session.leases().iter().map(|lease| lease.connection_max).sum::<usize>(), 30);
    }

    #[test]
    fn many_new_torrents_are_leased_within_the_budget_at_linear_cost() {
        let limits = Limits { upload_rate_max: Some(1 << 30), ..Limits::default() };
        let mut session = Session::new(limits);
        let (mut leases, mut told_count) = (BTreeMap::new(), 0);
        for number in 0..10_000_u32 {
            let mut infohash = InfoHash([0; 20]);
            infohash.0[..4].copy_from_slice(&number.to_be_bytes());
            session.handle_added(Instant::ZERO, infohash);
            let told = drain(&mut session);
            assert!(told.contains_key(&infohash), "each has a lease from the start");
            told_count += told.len();
            leases.extend(told);
            let sum: u64 = leases.values().filter_map(|lease| lease.upload_rate).sum();
            assert!(number % 97 > 0 || sum <= 1 << 30);
        }
        assert!(told_count < 10_000 * 2 * (GROWTH_PART + 1), "{told_count}");
        assert!(leases.values().all(|lease| lease.connection_max >= 1));
        session.handle_timeout(session.poll_timeout().unwrap());
        leases.extend(drain(&mut session));
        assert!(
            leases.values().all(|lease| lease.upload_rate > Some(0)),
            "an interval later all have a share"
        );
    }

    #[test]
    fn a_busy_torrent_does_not_wake_idle_ones() {
        let limits = Limits { upload_rate_max: Some(10_000_000), ..Limits::default() };
        let mut session = Session::new(limits);
        (0..100).for_each(|number| session.handle_added(Instant::ZERO, infohash(number)));
        session.handle_timeout(Instant::ZERO + LEASE_INTERVAL);
        let mut leases = drain(&mut session);
        let (mut now, mut told_count, mut rng) = (Instant::ZERO, 0, Rng::from_number(1));
        for _ in 0..600 {
            let upload_rate = 2_000_000 + rng.below(1_000_000) as u64;
            session.handle_demand(now, infohash(0), Demand { upload_rate, ..Demand::default() });
            now = session.poll_timeout().unwrap();
            session.handle_timeout(now);
            let told = drain(&mut session);
            told_count += told.len();
            leases.extend(told);
            let sum: u64 = leases.values().filter_map(|lease| lease.upload_rate).sum();
            assert!(sum <= 10_000_000 && leases[&infohash(0)].upload_rate >= Some(upload_rate), "{sum}");
        }
        // The busy one's leases, and a few for others; all of them would be 60,000.
        assert!(told_count < 600 + 99 * 30, "{told_count} leases in ten minutes");
    }

    #[test]
    fn leases_are_told_when_they_change_and_only_then() {
        let limits = Limits { connection_max: 30, upload_rate_max: Some(1_000_000), ..Limits::default() };
        let mut session = Session::new(limits);
        let mut now = Instant::ZERO;
        session.handle_added(now, infohash(1));
        assert_eq!(drain(&mut session)[&infohash(1)].upload_rate, Some(1_000_000));
        session.handle_added(now, infohash(2));
        assert_eq!(drain(&mut session).len(), 2);
        let busy = Demand { connections: 5, candidates: 100, upload_starved: true, ..Demand::default() };
        session.handle_demand(now, infohash(2), busy);
        assert!(session.poll_output().is_none(), "not more than once an interval");
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
        let leases = drain(&mut session);
        assert_eq!((leases[&infohash(1)].connection_max, leases[&infohash(2)].connection_max), (4, 26));
        assert_eq!(leases[&infohash(2)].upload_rate, Some(1_000_000 - RATE_FLOOR));
        assert_eq!((leases[&infohash(2)].unchoke_max, leases[&infohash(2)].download_rate), (None, None));
        session.handle_demand(now, infohash(2), busy);
        assert_eq!(session.poll_timeout(), None);
        session.handle_removed(now, infohash(2));
        session.handle_timeout(now + LEASE_INTERVAL);
        assert_eq!(drain(&mut session)[&infohash(1)].connection_max, 30);
    }
}
