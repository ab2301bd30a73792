//! Finds our own address by a quorum of the nodes that report it (`ip` of BEP 42): one vote for
//! each prefix, and the latest counts.
//!
//! The vote is about the host; the port is the one that most of the votes have, because some NATs
//! map each conversation to its own port. The winner stays until two thirds of the latest votes are
//! for another address.

use std::net::{IpAddr, SocketAddr};

use super::defence::prefix::Prefix;
use crate::proto::compact;
use crate::proto::time::{Duration, Instant};

/// Most votes kept; the oldest is replaced. An attacker needs two thirds of the prefixes that were
/// queried last.
const VOTE_COUNT_MAX: usize = 24;
/// Fewest votes that decide: our id changes with the address, which costs places in other tables.
const QUORUM: usize = 5;
/// Lifetime of a vote, so that a change of address is known after an hour.
const VOTE_AGE_MAX: Duration = Duration::from_secs(3600);

/// The votes of one family.
#[derive(Debug, Default)]
pub struct Voter {
    /// Oldest first, one for each voter.
    votes: Vec<Vote>,
    winner: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    voter: Prefix,
    /// Whether the voter is local, and may see another address than public nodes do.
    is_local: bool,
    claimed: SocketAddr,
    at: Instant,
}

impl Voter {
    /// Counts a queried node's report of our address. Returns the new winner, if the vote changed
    /// it: this needs five voters, and two thirds of the latest. Votes of local nodes count while
    /// no other node votes.
    pub fn vote(&mut self, now: Instant, voter: IpAddr, claimed: SocketAddr) -> Option<SocketAddr> {
        let claimed = compact::canonical(claimed);
        let is_local = compact::is_local(voter);
        let is_absurd = !compact::is_dialable(claimed)
            || claimed.is_ipv4() != voter.to_canonical().is_ipv4()
            || (compact::is_local(claimed.ip()) && !is_local);
        if is_absurd {
            return None;
        }
        let voter = Prefix::of(SocketAddr::new(voter, 0));
        self.votes.retain(|vote| vote.voter != voter && now - vote.at < VOTE_AGE_MAX);
        if self.votes.len() >= VOTE_COUNT_MAX {
            self.votes.remove(0);
        }
        self.votes.push(Vote { voter, is_local, claimed, at: now });
        if self.winner == Some(claimed) {
            // The vote confirms the winner, as nearly all votes do.
            return None;
        }
        let elected = self.elected(claimed.ip())?;
        (self.winner != Some(elected)).then(|| *self.winner.insert(elected))
    }

    /// Returns the address, if enough votes agree.
    pub fn winner(&self) -> Option<SocketAddr> {
        self.winner
    }

    /// Returns the address with the most common port, if the vote is for this host.
    fn elected(&self, host: IpAddr) -> Option<SocketAddr> {
        let by_neighbours = self.votes.iter().all(|vote| vote.is_local);
        let counted: Vec<SocketAddr> = self
            .votes
            .iter()
            .filter(|vote| vote.is_local == by_neighbours)
            .map(|vote| vote.claimed)
            .collect();
        let agreeing: Vec<SocketAddr> = counted.iter().filter(|addr| addr.ip() == host).copied().collect();
        let is_elected = |for_it: usize, of: usize| for_it >= QUORUM && 3 * for_it >= 2 * of;
        if !is_elected(agreeing.len(), counted.len()) {
            return None;
        }
        let votes_for = |addr: SocketAddr| agreeing.iter().filter(|&&other| other == addr).count();
        let most = agreeing.iter().copied().max_by_key(|&addr| (votes_for(addr), addr))?;
        let stays = self.winner.filter(|winner| winner.ip() == host);
        Some(stays.filter(|_| !is_elected(votes_for(most), agreeing.len())).unwrap_or(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The voter at 8.8.`net`.1 votes.
    fn vote(voter: &mut Voter, seconds: u64, net: u8, claimed: &str) -> Option<SocketAddr> {
        let from = IpAddr::from([8, 8, net, 1]);
        voter.vote(Instant::from_micros(seconds * 1_000_000), from, addr(claimed))
    }

    #[test]
    fn five_prefixes_decide_and_each_has_one_vote() {
        let mut voter = Voter::default();
        for host in 0..100 {
            let from = IpAddr::from([9, 9, 9, host]);
            assert_eq!(voter.vote(Instant::ZERO, from, addr("6.6.6.6:6")), None, "one /24 is one voter");
        }
        for net in 0..4 {
            assert_eq!(vote(&mut voter, 0, net, "1.2.3.4:5"), None);
        }
        assert_eq!(vote(&mut voter, 0, 4, "1.2.3.4:5"), Some(addr("1.2.3.4:5")));
        assert_eq!(vote(&mut voter, 0, 5, "1.2.3.4:5"), None, "nothing new");
        assert_eq!(voter.winner(), Some(addr("1.2.3.4:5")));
    }

    #[test]
    fn a_minority_changes_nothing_and_a_new_address_wins_in_time() {
        let mut voter = Voter::default();
        for net in 0..20 {
            let _ = vote(&mut voter, 0, net, "1.2.3.4:5");
        }
        for net in 100..112 {
            assert_eq!(vote(&mut voter, 1, net, "6.6.6.6:6"), None, "{net} is half of the voters at most");
        }
        let changed = (112..124).find_map(|net| vote(&mut voter, 2, net, "6.6.6.6:6"));
        assert_eq!(changed, Some(addr("6.6.6.6:6")));
        for net in 0..4 {
            assert_eq!(vote(&mut voter, 4_000, net, "1.2.3.4:5"), None);
        }
        assert_eq!(voter.winner(), Some(addr("6.6.6.6:6")), "stays while nobody else has won");
        assert_eq!(vote(&mut voter, 4_000, 4, "1.2.3.4:5"), Some(addr("1.2.3.4:5")), "old votes are void");
    }

    #[test]
    fn ports_that_differ_by_conversation_do_not_flap() {
        let mut voter = Voter::default();
        let changes = (0..100).filter(|&net| {
            vote(&mut voter, 0, net, &format!("1.2.3.4:{}", 1_000 + u16::from(net))).is_some()
        });
        assert_eq!(changes.count(), 1);
        let moved = (100..130).filter_map(|net| vote(&mut voter, 0, net, "1.2.3.4:7")).collect::<Vec<_>>();
        assert_eq!(moved, [addr("1.2.3.4:7")]);
    }

    #[test]
    fn local_nodes_vote_only_among_themselves_and_invalid_addresses_never_count() {
        let mut voter = Voter::default();
        let mut local =
            |host: u8| voter.vote(Instant::ZERO, IpAddr::from([10, 0, 0, host]), addr("10.0.0.99:5"));
        assert_eq!((0..5).filter_map(&mut local).collect::<Vec<_>>(), [addr("10.0.0.99:5")], "a laboratory");
        for net in 0..20 {
            for nonsense in ["10.0.0.1:5", "1.2.3.4:0", "[2001:db8::1]:5", "224.0.0.1:5"] {
                assert_eq!(vote(&mut voter, 0, net, nonsense), None);
            }
        }
        let changed = (0..5).filter_map(|net| vote(&mut voter, 0, net, "1.2.3.4:5")).collect::<Vec<_>>();
        assert_eq!(changed, [addr("1.2.3.4:5")], "five of the world count more than five neighbours");
    }
}
