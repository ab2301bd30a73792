//! One iterative lookup: from the nodes that we know to those closest to a target, alpha queries at a time.
//!
//! Candidates are ordered by distance. It ends when the closest that it knows of, k of them, have answered. Against
//! those who crowd the target:
//! - Nodes whose id fits their address (BEP 42) and others are counted apart: the closest k of each have to answer,
//!   the others only where they are closer than those that fit. Ids at will hide nobody with a fitting one.
//! - Ids that fit can be had near the target too, eight for each address. Where twice as many nodes as chance allows
//!   (by the overlay's size) are within the distance that should hold k, all of them have to answer, up to 24, and
//!   are given as the closest: so the honest among them are too.
//! - One of a /24 or /64 is asked (local addresses are exempt), and each address once, under whatever ids it is named.
//! - An answer names at most 16; of the nodes that one neighbourhood alone names two are asked at once while there are
//!   others, and no more when three of them were dead and none alive.
//!
//! It sends nothing itself and knows no transactions and no time.

use std::net::SocketAddr;

use super::node_id::{Node, NodeId};
use super::routing::prefix::Prefix;
use super::routing::{K, share_of_space, size_by_density};
use crate::proto::compact;

/// Queries under way at once.
pub const ALPHA: usize = 4;
/// Nodes given as the closest, and so asked to store something, where many crowd the target.
pub const CLOSEST_COUNT_MAX: usize = 24;

/// Nodes of one answer that count: eight and some; the rest is ignored.
const NAMED_COUNT_MAX: usize = 16;
/// Candidates known; when more are named, the farthest that were not yet asked are forgotten, those first whose id
/// does not fit.
const CANDIDATE_COUNT_MAX: usize = 200;
/// Nodes asked; then the lookup ends with what it has. Without adversaries some 20 are.
const ASKED_COUNT_MAX: u32 = 160;
/// Of these, nodes whose id does not fit: they can be had as close to the target as anybody likes, one after another.
const ASKED_UNFIT_MAX: u32 = 64;
/// Queries under way to nodes that one neighbourhood alone named, while there are others to ask.
const ASKED_OF_NAMER_MAX: usize = ALPHA / 2;
/// So many dead nodes, and no living one, of those that one neighbourhood alone named, and its word is worth nothing.
const DEAD_OF_NAMER_MAX: usize = 3;
/// Longest token kept, bytes: longer ones are of nodes that want us to send much, and count as none.
const TOKEN_LEN_MAX: usize = 64;
/// So many times more nodes than chance allows around the target are a crowd. The estimates vary by a third.
const CROWD: usize = 2;

/// The lookup.
#[derive(Debug)]
pub struct Lookup {
    target: NodeId,
    /// Closest first, each node once.
    candidates: Vec<Candidate>,
    /// How many nodes should be within a share of the key space of 1; 0: not known.
    size_estimate: u64,
    /// Queries that hold a slot.
    under_way: usize,
    asked: u32,
    asked_unfit: u32,
    answered: u32,
}

/// A node that answered, and the token that it gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The node.
    pub node: Node,
    /// To store something there; empty: it gave none.
    pub token: Vec<u8>,
    /// Steps from our own table: 1 for a node of the table itself.
    pub hops: u32,
}

#[derive(Debug)]
struct Candidate {
    node: Node,
    prefix: Prefix,
    /// Its id fits its address (BEP 42).
    fits: bool,
    hops: u32,
    namer: Namer,
    state: State,
}

/// Who says that a candidate exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Namer {
    /// Our own table, or several who have nothing to do with each other.
    Trusted,
    /// One neighbourhood.
    Alone(Prefix),
}

#[derive(Debug)]
enum State {
    Fresh,
    Asked,
    /// Asked, and late: holds no slot.
    Slow,
    /// With its token.
    Answered(Box<[u8]>),
    Failed,
}

/// What is to be done, at one look.
struct Survey {
    /// Whom to ask next, as an index.
    next: Option<usize>,
    /// Whether one of those that have to answer was asked.
    is_waiting: bool,
}

impl Lookup {
    /// Begins at these nodes. `size_estimate` of the overlay tells how close the closest should be: those that
    /// are closer than chance allows are suspects, and more than k nodes are then looked for.
    pub fn new(target: NodeId, starts: &[Node], size_estimate: u64) -> Self {
        let mut lookup = Self {
            target,
            candidates: Vec::with_capacity(4 * K),
            size_estimate,
            under_way: 0,
            asked: 0,
            asked_unfit: 0,
            answered: 0,
        };
        for &node in starts {
            lookup.add(node, 1, Namer::Trusted);
        }
        lookup
    }

    /// The target.
    pub fn target(&self) -> NodeId {
        self.target
    }

    /// Whom to ask now; None: nobody before an answer or a failure.
    pub fn next_query(&mut self) -> Option<Node> {
        if self.under_way >= ALPHA {
            return None;
        }
        let next = self.survey().next?;
        let candidate = &mut self.candidates[next];
        candidate.state = State::Asked;
        self.under_way += 1;
        self.asked += 1;
        self.asked_unfit += u32::from(!candidate.fits);
        Some(candidate.node)
    }

    /// A node that was asked answered. Whoever answers under another id than it was asked by is known by that.
    ///
    /// Of the named nodes those of another family than `from` are left out, and local ones unless `from` is local:
    /// nobody else can mean them.
    pub fn answered(
        &mut self,
        from: SocketAddr,
        id: NodeId,
        nodes: impl Iterator<Item = Node>,
        token: Option<&[u8]>,
    ) {
        let Some(at) = self.outstanding(from) else { return };
        self.release(at);
        self.answered += 1;
        let token = token.filter(|token| token.len() <= TOKEN_LEN_MAX).unwrap_or_default();
        let hops = self.candidates[at].hops;
        self.candidates[at].state = State::Answered(token.into());
        if self.candidates[at].node.id != id {
            self.correct(at, id);
        }
        let (namer, from_local) = (Namer::Alone(Prefix::of(from)), compact::is_local(from.ip()));
        for node in nodes.take(NAMED_COUNT_MAX) {
            let is_ours = node.addr.is_ipv4() == from.is_ipv4();
            if is_ours && (from_local || !compact::is_local(node.addr.ip())) {
                self.add(node, hops + 1, namer);
            }
        }
    }

    /// A node that was asked is late: another one may be asked meanwhile; its answer still counts.
    pub fn slow(&mut self, from: SocketAddr) {
        if let Some(at) = self.outstanding(from) {
            self.release(at);
            self.candidates[at].state = State::Slow;
        }
    }

    /// A node that was asked did not answer.
    pub fn failed(&mut self, from: SocketAddr) {
        let Some(at) = self.outstanding(from) else { return };
        self.release(at);
        self.candidates[at].state = State::Failed;
        if let namer @ Namer::Alone(_) = self.candidates[at].namer {
            self.doubt(namer);
        }
    }

    /// Whether there is nothing left to ask or to wait for.
    pub fn is_done(&self) -> bool {
        let Survey { next, is_waiting } = self.survey();
        next.is_none() && !is_waiting
    }

    /// Where to store: the closest that answered, closest first. k of them whose id fits, more where a crowd is
    /// around the target, and up to k of others that are closer than these; at most [`CLOSEST_COUNT_MAX`].
    pub fn closest(&self) -> Vec<Found> {
        let mut found = Vec::with_capacity(2 * K);
        let wanted = self.wanted();
        let (mut fit, mut unfit) = (0, 0);
        for candidate in &self.candidates {
            let State::Answered(token) = &candidate.state else { continue };
            let (count, most) = if candidate.fits { (&mut fit, wanted) } else { (&mut unfit, K) };
            if *count < most {
                *count += 1;
                found.push((candidate, token));
            }
            if fit == wanted {
                break;
            }
        }
        let excess = found.len().saturating_sub(CLOSEST_COUNT_MAX);
        let mut leave = excess;
        // From the far end, those that do not fit.
        for at in (0..found.len()).rev() {
            if leave > 0 && !found[at].0.fits {
                found.remove(at);
                leave -= 1;
            }
        }
        let found = found.into_iter();
        found.map(|(of, token)| Found { node: of.node, token: token.to_vec(), hops: of.hops }).collect()
    }

    /// Steps from our own table to the node at this address: 1 for a node of the table itself; 0: not a candidate.
    pub fn hops(&self, from: SocketAddr) -> u32 {
        let asked = self.candidates.iter().filter(|candidate| !matches!(candidate.state, State::Fresh));
        asked
            .filter(|candidate| candidate.node.addr == from)
            .map(|candidate| candidate.hops)
            .min()
            .unwrap_or(0)
    }

    /// Nodes asked and nodes that answered.
    pub fn counts(&self) -> (u32, u32) {
        (self.asked, self.answered)
    }

    /// Nodes in the whole overlay, estimated from how densely those that answered lie around the target; None: too
    /// few did.
    pub fn size_estimate(&self) -> Option<u64> {
        let answered =
            self.candidates.iter().filter(|candidate| matches!(candidate.state, State::Answered(_)));
        (answered.clone().count() >= K).then(|| {
            size_by_density(answered.take(K).map(|candidate| candidate.node.id.distance(self.target)))
        })
    }

    /// Goes through those that have to answer, closest first.
    fn survey(&self) -> Survey {
        let wanted = self.wanted();
        let (mut fit, mut unfit) = (0, 0);
        let (mut next_fit, mut next_unfit) = (Choice::default(), Choice::default());
        let mut is_waiting = false;
        for (at, candidate) in self.candidates.iter().enumerate() {
            let (count, most) = if candidate.fits { (&mut fit, wanted) } else { (&mut unfit, K) };
            if *count >= most {
                continue;
            }
            match &candidate.state {
                State::Failed => continue,
                State::Fresh if !self.may_ask(candidate) => continue,
                State::Fresh => {
                    let choice = if candidate.fits { &mut next_fit } else { &mut next_unfit };
                    choice.offer(at, || self.is_patient_with(candidate.namer));
                }
                State::Asked | State::Slow => is_waiting = true,
                State::Answered(_) => {}
            }
            *count += 1;
            if fit >= wanted {
                break;
            }
        }
        Survey { next: next_fit.chosen().or(next_unfit.chosen()), is_waiting }
    }

    /// How many whose id fits have to answer: all within the distance that should hold k, if they are a crowd.
    fn wanted(&self) -> usize {
        if self.size_estimate < (CROWD * K) as u64 {
            return K;
        }
        let radius = K as f64 / self.size_estimate as f64;
        let within = self
            .candidates
            .iter()
            .take_while(|candidate| share_of_space(candidate.node.id.distance(self.target)) <= radius)
            .filter(|candidate| candidate.fits && !matches!(candidate.state, State::Failed))
            .take(CLOSEST_COUNT_MAX)
            .count();
        if within >= CROWD * K { within } else { K }
    }

    /// Whether a fresh candidate may be asked: nobody at its address or in its neighbourhood was.
    fn may_ask(&self, fresh: &Candidate) -> bool {
        let is_taken = |other: &Candidate| match other.state {
            State::Fresh => false,
            State::Failed => other.node.addr == fresh.node.addr,
            State::Asked | State::Slow | State::Answered(_) => other.prefix == fresh.prefix,
        };
        self.asked < ASKED_COUNT_MAX
            && (fresh.fits || self.asked_unfit < ASKED_UNFIT_MAX)
            && !self.candidates.iter().any(is_taken)
    }

    /// Whether another one that only this neighbourhood named may be asked beside others.
    fn is_patient_with(&self, namer: Namer) -> bool {
        let is_asked = |other: &&Candidate| matches!(other.state, State::Asked) && other.namer == namer;
        namer == Namer::Trusted || self.candidates.iter().filter(is_asked).count() < ASKED_OF_NAMER_MAX
    }

    /// The candidate at this address whose answer is awaited.
    fn outstanding(&self, from: SocketAddr) -> Option<usize> {
        self.candidates.iter().position(|candidate| {
            candidate.node.addr == from && matches!(candidate.state, State::Asked | State::Slow)
        })
    }

    /// The slot of a query that is over or late.
    fn release(&mut self, at: usize) {
        self.under_way -= usize::from(matches!(self.candidates[at].state, State::Asked));
    }

    /// Names a candidate.
    fn add(&mut self, node: Node, hops: u32, namer: Namer) {
        let at = match self.find(&node) {
            Ok(at) => {
                let known = &mut self.candidates[at];
                if known.namer != namer {
                    known.namer = Namer::Trusted;
                }
                if matches!(known.state, State::Fresh) {
                    known.hops = known.hops.min(hops);
                }
                return;
            }
            Err(at) => at,
        };
        let fits = node.id.fits(node.addr.ip());
        let prefix = Prefix::of(node.addr);
        self.candidates.insert(at, Candidate { node, prefix, fits, hops, namer, state: State::Fresh });
        if self.candidates.len() > CANDIDATE_COUNT_MAX {
            self.forget_one();
        }
    }

    /// Makes room: there are fewer that were asked than candidates.
    fn forget_one(&mut self) {
        let fresh = |of: &Candidate| matches!(of.state, State::Fresh);
        let farthest_unfit = self.candidates.iter().rposition(|of| fresh(of) && !of.fits);
        if let Some(at) = farthest_unfit.or_else(|| self.candidates.iter().rposition(fresh)) {
            self.candidates.remove(at);
        }
    }

    /// A candidate answered under another id than it was named by.
    fn correct(&mut self, at: usize, id: NodeId) {
        let mut candidate = self.candidates.remove(at);
        candidate.node.id = id;
        candidate.fits = id.fits(candidate.node.addr.ip());
        match self.find(&candidate.node) {
            Ok(at) => self.candidates[at] = candidate,
            Err(at) => self.candidates.insert(at, candidate),
        }
    }

    /// One of those that only this neighbourhood named is dead.
    fn doubt(&mut self, namer: Namer) {
        let (mut dead, mut alive) = (0, 0);
        for candidate in self.candidates.iter().filter(|candidate| candidate.namer == namer) {
            match candidate.state {
                State::Failed => dead += 1,
                State::Answered(_) => alive += 1,
                State::Fresh | State::Asked | State::Slow => {}
            }
        }
        if dead >= DEAD_OF_NAMER_MAX && alive == 0 {
            self.candidates.retain(|of| of.namer != namer || !matches!(of.state, State::Fresh));
        }
    }

    fn find(&self, node: &Node) -> Result<usize, usize> {
        let key = |node: &Node| (node.id.distance(self.target), node.addr);
        self.candidates.binary_search_by(|candidate| key(&candidate.node).cmp(&key(node)))
    }
}

/// The closest that may be asked, and the closest of those whose namers are not being tried already.
#[derive(Default)]
struct Choice {
    any: Option<usize>,
    preferred: Option<usize>,
}

impl Choice {
    fn offer(&mut self, at: usize, is_preferred: impl Fn() -> bool) {
        if self.preferred.is_none() && is_preferred() {
            self.preferred = Some(at);
        }
        self.any = self.any.or(Some(at));
    }

    fn chosen(&self) -> Option<usize> {
        self.preferred.or(self.any)
    }
}
