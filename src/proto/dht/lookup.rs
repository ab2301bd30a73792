//! One iterative lookup: from the nodes that we know to those closest to a target, alpha queries at
//! a time.
//!
//! Candidates are ordered by distance. The lookup ends when the closest that it knows of, k of
//! them, have answered. A late one holds no slot and is waited for only if fewer than k others
//! answered: among dead nodes, or behind NATs, a lookup would otherwise wait for one failure after
//! the other. Each address is asked once, under whatever ids it is named. Where something is to be
//! stored, a node that gives no token does not count: hostile or full, it keeps nothing.
//!
//! A lookup of an overlay whose size is known and not tiny is guarded: the rules of
//! [`defence`](super::defence) apply to it, at the cost of 30 queries.
//!
//! It sends nothing itself and knows no transactions and no time.

mod candidate;
mod choice;

use std::net::SocketAddr;

use self::candidate::{Candidate, State};
use self::choice::Choice;
use super::defence::Defence;
use super::defence::density::{
    ANSWERED_COUNT, CLOSEST_COUNT_MAX, CROWD_COUNT, share_of_space, size_by_density,
};
use super::defence::path::Path;
use super::defence::prefix::{Prefix, may_name};
use super::defence::source::{Record, Source};
use super::node_id::{Node, NodeId};
use super::routing::K;

/// Queries under way at once.
pub const ALPHA: usize = 4;

/// Nodes of one answer that count: eight and some; the rest is ignored.
const NAMED_COUNT_MAX: usize = 16;
/// Candidates known; when more are named, the farthest that were not yet asked are forgotten, those
/// first whose id does not fit.
const CANDIDATE_COUNT_MAX: usize = 200;
/// Nodes asked; then the lookup ends with what it has. Without adversaries some 20 are.
const ASKED_COUNT_MAX: u32 = 160;
/// Of these, nodes whose id does not fit: they can be had as close to the target as anybody likes,
/// one after another.
const ASKED_UNFIT_MAX: u32 = 64;
/// Longest token kept, bytes: longer ones are of nodes that want us to send much, and count as
/// none.
const TOKEN_LEN_MAX: usize = 64;
/// The lookup.
#[derive(Debug)]
pub struct Lookup {
    target: NodeId,
    /// Closest first, each node once.
    candidates: Vec<Candidate>,
    /// Neighbourhoods of those that were asked and did not fail.
    taken: Vec<Prefix>,
    /// Addresses of those that failed.
    dead: Vec<SocketAddr>,
    /// How many nodes should be within a share of the key space of 1; 0: not known.
    size_estimate: u64,
    /// Something is to be stored: who gives no token is passed over.
    needs_tokens: bool,
    defence: Defence,
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

/// What is to be done, at one look.
struct Survey {
    /// Whom to ask next, as an index.
    next: Option<usize>,
    /// Whether one of those that have to answer was asked.
    is_waiting: bool,
}

impl Lookup {
    /// Begins at these nodes ([`Table::starts`](super::routing::Table::starts)).
    ///
    /// `size_estimate` of the overlay tells how close the closest should be; 0: not known, and the
    /// lookup is not guarded, because no attacker can be at a target that it cannot know.
    pub fn new(target: NodeId, starts: &[Node], size_estimate: u64, defence: Defence) -> Self {
        let mut lookup = Self {
            target,
            candidates: Vec::with_capacity(4 * K),
            taken: Vec::with_capacity(2 * K),
            dead: Vec::new(),
            size_estimate,
            needs_tokens: false,
            defence,
            under_way: 0,
            asked: 0,
            asked_unfit: 0,
            answered: 0,
        };
        for (at, &node) in starts.iter().enumerate() {
            lookup.add(node, 1, Source::Trusted, Path::of_start(at));
        }
        lookup
    }

    /// The same for whoever wants to store something: only who gives a token counts among the
    /// closest.
    pub fn with_tokens(mut self) -> Self {
        self.needs_tokens = true;
        self
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
        self.taken.push(candidate.prefix);
        self.under_way += 1;
        self.asked += 1;
        self.asked_unfit += u32::from(!candidate.fits);
        Some(candidate.node)
    }

    /// A node that was asked answered. Whoever answers under another id than it was asked by is
    /// known by that.
    ///
    /// Of the named nodes those of another family than `from` are left out, and local ones unless
    /// `from` is local: nobody else can mean them.
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
        let path = self.candidates[at].path.of_named();
        if self.candidates[at].node.id != id {
            self.correct(at, id);
        }
        let source = Source::Only(Prefix::of(from));
        for node in nodes.take(NAMED_COUNT_MAX) {
            if node.addr.is_ipv4() == from.is_ipv4() && may_name(from, node.addr) {
                self.add(node, hops + 1, source, path);
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
        let prefix = self.candidates[at].prefix;
        self.taken.retain(|&taken| taken != prefix);
        self.dead.push(from);
        self.doubt(self.candidates[at].source);
    }

    /// Whether there is nothing left to ask or to wait for.
    pub fn is_done(&self) -> bool {
        let Survey { next, is_waiting } = self.survey();
        next.is_none() && !is_waiting
    }

    /// Where to store: the closest that answered, closest first. k of them whose id fits, all where
    /// a crowd is around the target, and up to k of others that are closer than these. Where tokens
    /// are needed, of those that gave one.
    pub fn closest(&self) -> Vec<Found> {
        let mut found = Vec::with_capacity(2 * K);
        let is_crowded = self.is_crowded();
        let wanted = if is_crowded { self.candidates.len() } else { self.wanted() };
        let (mut fit, mut unfit) = (0, 0);
        for candidate in self.candidates.iter().filter(|candidate| !self.is_out(candidate)) {
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
        // Too many: the farthest of those that do not fit are left out, for they are cheap to have.
        while !is_crowded
            && found.len() > CLOSEST_COUNT_MAX
            && let Some(at) = found.iter().rposition(|(candidate, _)| !candidate.fits)
        {
            found.remove(at);
        }
        let found = found.into_iter();
        found.map(|(of, token)| Found { node: of.node, token: token.to_vec(), hops: of.hops }).collect()
    }

    /// Steps from our own table to the node at this address: 1 for a node of the table itself; 0:
    /// not a candidate.
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

    /// Nodes in the whole overlay, estimated from how densely those that answered lie around the
    /// target; None: too few did.
    pub fn size_estimate(&self) -> Option<u64> {
        let answered =
            self.candidates.iter().filter(|candidate| matches!(candidate.state, State::Answered(_)));
        (answered.clone().count() >= K).then(|| {
            size_by_density(answered.take(K).map(|candidate| candidate.node.id.distance(self.target)))
        })
    }

    /// Goes through those that have to answer, closest first.
    fn survey(&self) -> Survey {
        let wanted = if self.is_guarded() { self.wanted().max(self.answered_count()) } else { K };
        let (mut fit, mut unfit) = (0, 0);
        let (mut next_fit, mut next_unfit) = (Choice::default(), Choice::default());
        let (mut is_waiting, mut is_late, mut answered) = (false, false, 0);
        for (at, candidate) in self.candidates.iter().enumerate() {
            let (count, most) = if candidate.fits { (&mut fit, wanted) } else { (&mut unfit, K) };
            if *count >= most || self.is_out(candidate) {
                continue;
            }
            match &candidate.state {
                State::Fresh if !self.may_ask(candidate) => continue,
                State::Fresh => {
                    let choice = if candidate.fits { &mut next_fit } else { &mut next_unfit };
                    choice.offer(at, || self.prefers(candidate.source));
                }
                State::Asked => is_waiting = true,
                State::Slow => {
                    is_late = true;
                    continue;
                }
                State::Answered(_) => answered += 1,
                State::Failed => {}
            }
            *count += 1;
            if fit >= wanted {
                break;
            }
        }
        let preferred = next_fit.preferred.or(next_unfit.preferred).or_else(|| self.next_required());
        // Late ones are not worth the wait where others do.
        is_waiting |= is_late && answered < K;
        let is_crowded = self.is_crowded();
        let is_awaited =
            |of: &Candidate| self.is_required(of, is_crowded) && matches!(of.state, State::Asked);
        Survey {
            next: preferred.or(next_fit.any).or(next_unfit.any),
            is_waiting: is_waiting || (self.under_way > 0 && self.candidates.iter().any(is_awaited)),
        }
    }

    /// The closest node that is asked in any case.
    fn next_required(&self) -> Option<usize> {
        let is_crowded = self.is_crowded();
        let is_fresh = |of: &Candidate| matches!(of.state, State::Fresh);
        self.candidates
            .iter()
            .position(|of| is_fresh(of) && self.is_required(of, is_crowded) && self.may_ask(of))
    }

    fn is_required(&self, candidate: &Candidate, is_crowded: bool) -> bool {
        self.defence.disjoint_paths && candidate.path.is_required(self.is_guarded(), is_crowded)
    }

    /// Whether an attacker may want to hide the closest nodes: the overlay is large enough to have
    /// far ones.
    fn is_guarded(&self) -> bool {
        self.size_estimate >= CLOSEST_COUNT_MAX as u64
    }

    /// Whether more are around the target than chance allows, with ids that fit. Those that are
    /// named and dead are no crowd.
    fn is_crowded(&self) -> bool {
        let answered = self.around().filter(|candidate| matches!(candidate.state, State::Answered(_)));
        self.defence.crowd_response && answered.take(CROWD_COUNT + 1).count() > CROWD_COUNT
    }

    /// How many whose id fits have to answer where others may hide them.
    fn answered_count(&self) -> usize {
        if self.defence.wide_closest { ANSWERED_COUNT } else { K }
    }

    /// How many whose id fits are the closest: all within the distance that should hold k, if they
    /// are more.
    fn wanted(&self) -> usize {
        let most = if self.defence.wide_closest { CLOSEST_COUNT_MAX } else { K };
        self.around().take(most).count().max(K)
    }

    /// Those whose id fits within the distance that should hold k; none if that is not known.
    fn around(&self) -> impl Iterator<Item = &Candidate> {
        let radius = if self.is_guarded() { K as f64 / self.size_estimate as f64 } else { 0.0 };
        self.candidates
            .iter()
            .take_while(move |candidate| share_of_space(candidate.node.id.distance(self.target)) <= radius)
            .filter(|candidate| candidate.fits && !self.is_out(candidate))
    }

    /// Whether a candidate is of no use any more.
    fn is_out(&self, candidate: &Candidate) -> bool {
        match &candidate.state {
            State::Failed => true,
            State::Answered(token) => self.needs_tokens && token.is_empty(),
            State::Fresh | State::Asked | State::Slow => false,
        }
    }

    /// Whether a fresh candidate may be asked: nobody at its address or in its neighbourhood was.
    fn may_ask(&self, fresh: &Candidate) -> bool {
        self.asked < ASKED_COUNT_MAX
            && (fresh.fits || self.asked_unfit < ASKED_UNFIT_MAX)
            && !self.taken.contains(&fresh.prefix)
            && !self.dead.contains(&fresh.node.addr)
    }

    /// Whether another candidate of this source is asked before others.
    fn prefers(&self, source: Source) -> bool {
        source == Source::Trusted || !self.defence.source_limit || self.record(source).may_precede()
    }

    /// What became of the candidates of one source.
    fn record(&self, source: Source) -> Record {
        let mut record = Record::default();
        for candidate in self.candidates.iter().filter(|candidate| candidate.source == source) {
            match candidate.state {
                State::Asked => record.asked += 1,
                State::Failed => record.dead += 1,
                State::Answered(_) => record.alive += 1,
                State::Fresh | State::Slow => {}
            }
        }
        record
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

    /// Adds a candidate.
    fn add(&mut self, node: Node, hops: u32, source: Source, path: Path) {
        let at = match self.find(&node) {
            Ok(at) => {
                let known = &mut self.candidates[at];
                if known.source != source {
                    known.source = Source::Trusted;
                }
                if matches!(known.state, State::Fresh) {
                    known.hops = known.hops.min(hops);
                    if known.path == Path::Greedy {
                        known.path = path;
                    }
                }
                return;
            }
            Err(at) => at,
        };
        let (fits, prefix) = (self.defence.fits(&node), self.defence.prefix(node.addr));
        self.candidates.insert(at, Candidate { node, prefix, fits, hops, path, source, state: State::Fresh });
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
        candidate.fits = self.defence.fits(&candidate.node);
        match self.find(&candidate.node) {
            Ok(at) => self.candidates[at] = candidate,
            Err(at) => self.candidates.insert(at, candidate),
        }
    }

    /// Forgets the candidates of a source that is discredited.
    fn doubt(&mut self, source: Source) {
        let is_limited = self.defence.source_limit && source != Source::Trusted;
        if is_limited && self.record(source).is_discredited() {
            self.candidates.retain(|of| of.source != source || !matches!(of.state, State::Fresh));
        }
    }

    fn find(&self, node: &Node) -> Result<usize, usize> {
        let key = |node: &Node| (node.id.distance(self.target), node.addr);
        self.candidates.binary_search_by(|candidate| key(&candidate.node).cmp(&key(node)))
    }
}

#[cfg(test)]
mod tests;
