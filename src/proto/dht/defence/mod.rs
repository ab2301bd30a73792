//! The defence of routing and lookups against Sybil and eclipse attacks.
//!
//! The attacker runs many nodes (Sybil), places them around a target and lets them name only each
//! other, so that lookups of the target end among them (eclipse). It can have any number of ids
//! that do not fit their address, and eight that do for each address it holds (BEP 42). It takes
//! announces without keeping them and knows every honest node.
//!
//! [`Defence`] has a switch for each rule; a program runs with all of them, and the simulator
//! measures what each is worth (`tests/sim/dht.rs`). The parts:
//! - [`prefix`]: what counts as one host or one network; [`quota`]: a network's share of a store,
//! - [`density`]: how many nodes there should be around a target, and so when they are a crowd,
//! - [`path`]: the disjoint paths of a lookup (compare S/Kademlia, section 4.4),
//! - [`source`]: what the word of one network is worth that names nodes.
//!
//! It sends nothing, and knows neither tables nor lookups: both ask it.
//!
//! What each rule buys: lookups of an attacked infohash that found its peers, in percent, and
//! queries of one lookup, where one rule is switched off in all honest nodes. 3,000 nodes, two
//! seeds, 800 lookups a figure, by `dht_defence_rule_by_rule` of `tests/sim/dht.rs`:
//!
//! | switched off | 10 % hostile, fitting ids | 30 % hostile, fitting ids | 30 % hostile, any ids |
//! |---|---|---|---|
//! | nothing | 100.0, 75 | 98.8, 95 | 100.0, 66 |
//! | all rules | 33.2, 12 | 8.8, 12 | 0.0, 17 |
//! | `id_binding` | 100.0, 61 | 96.1, 94 | 1.6, 55 |
//! | `disjoint_paths` | 91.6, 22 | 40.0, 21 | 100.0, 31 |
//! | `wide_closest` | 99.9, 47 | 59.9, 50 | 100.0, 57 |
//! | `own_id_paths` | 100.0, 72 | 93.2, 95 | 100.0, 69 |
//! | `sampled_size` | 100.0, 75 | 95.6, 98 | 100.0, 66 |
//! | `crowd_response` | 100.0, 55 | 95.6, 58 | 100.0, 67 |
//! | `source_limit` | 100.0, 70 | 95.6, 89 | 100.0, 68 |
//! | `neighbour_places` | 100.0, 67 | 98.0, 92 | 100.0, 74 |
//! | `prefix_quota` | 100.0, 69 | 99.8, 102 | 100.0, 68 |
//!
//! `id_binding`, `disjoint_paths` and `wide_closest` clearly pay. The other six are not decided:
//! all lookups of a seed are of one infohash, so two seeds are two samples, and a few percent say
//! nothing. For two of them the simulator lacks the attack: every hostile host answers, where
//! `source_limit` is against names of dead nodes, and hostile hosts share a /24 no more than
//! honest ones, where `prefix_quota` is against many nodes of one network.

pub(super) mod density;
pub(super) mod path;
pub(super) mod prefix;
pub(super) mod quota;
pub(super) mod source;

use std::net::SocketAddr;

use self::prefix::Prefix;
use super::node_id::Node;

/// The rules, each on or off. A program runs with all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defence {
    /// Nodes whose id fits their address (BEP 42) and others are counted apart: in a lookup the
    /// closest k of each have to answer, in a table a node that fits displaces one that does not,
    /// and of an answer those that do not are at most half. So ids chosen at will hide no node with
    /// a fitting one.
    pub id_binding: bool,
    /// One node of a /24 or /64 in a bucket and in a lookup.
    pub prefix_quota: bool,
    /// All nodes of our own table that a lookup begins at are asked, and by two hops some that are
    /// far from the target, where no node of the attacker wants to be: some 20 queries more, which
    /// reach the honest nodes around the target by paths that do not lead through the crowd.
    pub disjoint_paths: bool,
    /// All nodes within the distance that should hold k have to answer, up to 24, and 2k in any
    /// case, because k fitting ids may hide the honest ones behind them. They are given as the
    /// closest.
    pub wide_closest: bool,
    /// Where twice as many nodes as there should be are around the target, three times as many far
    /// ones are asked, and what is to be stored is stored at all that answered: two such lookups,
    /// of 100 queries each, share some of the 30 honest nodes that each reaches.
    pub crowd_response: bool,
    /// Of the nodes that one network alone names two are asked at once while there are others, none
    /// before others when one was dead and none alive, and no more at all when two were.
    pub source_limit: bool,
    /// The 32 nodes closest to us have a place in the table though their bucket is full: a crowd of
    /// four times as many nodes as live there otherwise fills the buckets of all its neighbours.
    pub neighbour_places: bool,
    /// The overlay's size is taken from lookups of far targets and not from the density around our
    /// own id, where a crowd may be.
    pub sampled_size: bool,
    /// Our own id is looked up by disjoint paths now and then, so that neighbours in a crowd find
    /// each other.
    pub own_id_paths: bool,
}

impl Defence {
    /// All rules.
    pub const ALL: Self = Self {
        id_binding: true,
        prefix_quota: true,
        disjoint_paths: true,
        wide_closest: true,
        crowd_response: true,
        source_limit: true,
        neighbour_places: true,
        sampled_size: true,
        own_id_paths: true,
    };

    /// Returns whether a node counts as one whose id fits its address.
    pub(super) fn fits(self, node: &Node) -> bool {
        !self.id_binding || node.id.fits(node.addr.ip())
    }

    /// Returns what a node shares with others of which one counts.
    pub(super) fn prefix(self, addr: SocketAddr) -> Prefix {
        if self.prefix_quota { Prefix::of(addr) } else { Prefix::of_address(addr) }
    }
}

impl Default for Defence {
    fn default() -> Self {
        Self::ALL
    }
}
