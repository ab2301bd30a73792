//! One iterative lookup: from the nodes that we know to those closest to a target, alpha queries at
//! a time.
//!
//! Candidates are ordered by distance. The lookup ends when the k closest known candidates have
//! answered. A late candidate holds no slot, and the lookup waits for it only if fewer than k
//! others answered: among dead nodes it would otherwise wait for one timeout after the other. Each
//! address is queried once, under whatever ids it is named. If the result is to be stored, a node
//! that gives no token does not count: it is hostile or full and stores nothing.
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

/// Most pending queries that hold a slot.
pub const ALPHA: usize = 4;

/// Most nodes taken from one answer, which names eight by BEP 5; the rest is ignored.
const NAMED_COUNT_MAX: usize = 16;
/// Most candidates; beyond it the farthest one not yet queried is dropped, those whose id does not
/// fit first.
const CANDIDATE_COUNT_MAX: usize = 200;
/// Most nodes queried; then the lookup ends with what it has. Without an attack it queries some 20.
const ASKED_COUNT_MAX: u32 = 160;
/// Most queried nodes whose id does not fit: an attacker can place any number of them ever closer
/// to the target.
const ASKED_UNFIT_MAX: u32 = 64;
/// Longest token, bytes; a longer one counts as none, because it would only make us send more.
const TOKEN_LEN_MAX: usize = 64;
/// A lookup.
#[derive(Debug)]
pub struct Lookup {
    target: NodeId,
    /// Closest first, each node once.
    candidates: Vec<Candidate>,
    /// Prefixes of the candidates that were queried and did not fail.
    taken: Vec<Prefix>,
    /// Addresses of the candidates that failed.
    dead: Vec<SocketAddr>,
    /// Estimated number of nodes in the overlay; 0 if unknown.
    size_estimate: u64,
    /// Whether the result is to be stored: nodes without a token are passed over.
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
    /// The write token; empty if it gave none.
    pub token: Vec<u8>,
    /// Steps from our own table: 1 for a node of the table itself.
    pub hops: u32,
}

/// What a pass over the candidates found.
struct Survey {
    /// Index of the candidate to query next.
    next: Option<usize>,
    /// Whether a required candidate has a pending query.
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

    /// Makes only nodes that give a token count among the closest, for a lookup whose result is to
    /// be stored.
    pub fn with_tokens(mut self) -> Self {
        self.needs_tokens = true;
        self
    }

    /// Returns the target.
    pub fn target(&self) -> NodeId {
        self.target
    }

    /// Returns the node to query now; None until the next answer or failure.
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

    /// Handles an answer. A node that answers under another id than expected is known by the new
    /// one.
    ///
    /// Named nodes of another family than `from` are ignored, and local ones unless `from` is
    /// local: only a local node can reach them.
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

    /// Handles a late answer: it frees its slot and still counts when it arrives.
    pub fn slow(&mut self, from: SocketAddr) {
        if let Some(at) = self.outstanding(from) {
            self.release(at);
            self.candidates[at].state = State::Slow;
        }
    }

    /// Handles a query that timed out.
    pub fn failed(&mut self, from: SocketAddr) {
        let Some(at) = self.outstanding(from) else { return };
        self.release(at);
        self.candidates[at].state = State::Failed;
        let prefix = self.candidates[at].prefix;
        self.taken.retain(|&taken| taken != prefix);
        self.dead.push(from);
        self.doubt(self.candidates[at].source);
    }

    /// Returns whether the lookup has nothing left to query or to wait for.
    pub fn is_done(&self) -> bool {
        let Survey { next, is_waiting } = self.survey();
        next.is_none() && !is_waiting
    }

    /// Returns the closest nodes that answered, closest first: k whose id fits, or all of them if a
    /// crowd is around the target, and up to k others that are closer than these. If tokens are
    /// needed, only nodes that gave one.
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
        // Ids that do not fit are cheap to obtain, so the farthest of them are left out first.
        while !is_crowded
            && found.len() > CLOSEST_COUNT_MAX
            && let Some(at) = found.iter().rposition(|(candidate, _)| !candidate.fits)
        {
            found.remove(at);
        }
        let found = found.into_iter();
        found.map(|(of, token)| Found { node: of.node, token: token.to_vec(), hops: of.hops }).collect()
    }

    /// Returns the number of steps from our table to the node at this address: 1 for a node of the
    /// table, 0 if it is not a candidate.
    pub fn hops(&self, from: SocketAddr) -> u32 {
        let asked = self.candidates.iter().filter(|candidate| !matches!(candidate.state, State::Fresh));
        asked
            .filter(|candidate| candidate.node.addr == from)
            .map(|candidate| candidate.hops)
            .min()
            .unwrap_or(0)
    }

    /// Returns the numbers of nodes queried and of nodes that answered.
    pub fn counts(&self) -> (u32, u32) {
        (self.asked, self.answered)
    }

    /// Returns the size of the overlay, estimated from the density of the nodes that answered
    /// around the target; None if too few answered.
    pub fn size_estimate(&self) -> Option<u64> {
        let answered =
            self.candidates.iter().filter(|candidate| matches!(candidate.state, State::Answered(_)));
        (answered.clone().count() >= K).then(|| {
            size_by_density(answered.take(K).map(|candidate| candidate.node.id.distance(self.target)))
        })
    }

    /// Examines the candidates that have to answer, closest first.
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
        // Late answers are awaited only if fewer than k others arrived.
        is_waiting |= is_late && answered < K;
        let is_crowded = self.is_crowded();
        let is_awaited =
            |of: &Candidate| self.is_required(of, is_crowded) && matches!(of.state, State::Asked);
        Survey {
            next: preferred.or(next_fit.any).or(next_unfit.any),
            is_waiting: is_waiting || (self.under_way > 0 && self.candidates.iter().any(is_awaited)),
        }
    }

    /// Returns the closest candidate that is required by its path and not yet queried.
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

    /// Returns whether the lookup guards against an eclipse: the overlay is large enough to have
    /// nodes far from the target.
    fn is_guarded(&self) -> bool {
        self.size_estimate >= CLOSEST_COUNT_MAX as u64
    }

    /// Returns whether more nodes with fitting ids answered around the target than chance allows.
    fn is_crowded(&self) -> bool {
        let answered = self.around().filter(|candidate| matches!(candidate.state, State::Answered(_)));
        self.defence.crowd_response && answered.take(CROWD_COUNT + 1).count() > CROWD_COUNT
    }

    /// Returns how many nodes whose id fits have to answer a guarded lookup.
    fn answered_count(&self) -> usize {
        if self.defence.wide_closest { ANSWERED_COUNT } else { K }
    }

    /// Returns how many nodes whose id fits count as the closest: k, or all within the distance
    /// that should hold k.
    fn wanted(&self) -> usize {
        let most = if self.defence.wide_closest { CLOSEST_COUNT_MAX } else { K };
        self.around().take(most).count().max(K)
    }

    /// Returns the nodes whose id fits within the distance that should hold k; none if that is
    /// unknown.
    fn around(&self) -> impl Iterator<Item = &Candidate> {
        let radius = if self.is_guarded() { K as f64 / self.size_estimate as f64 } else { 0.0 };
        self.candidates
            .iter()
            .take_while(move |candidate| share_of_space(candidate.node.id.distance(self.target)) <= radius)
            .filter(|candidate| candidate.fits && !self.is_out(candidate))
    }

    /// Returns whether a candidate failed or gave no token though one is needed.
    fn is_out(&self, candidate: &Candidate) -> bool {
        match &candidate.state {
            State::Failed => true,
            State::Answered(token) => self.needs_tokens && token.is_empty(),
            State::Fresh | State::Asked | State::Slow => false,
        }
    }

    /// Returns whether a candidate may be queried: no node of its address or prefix was.
    fn may_ask(&self, fresh: &Candidate) -> bool {
        self.asked < ASKED_COUNT_MAX
            && (fresh.fits || self.asked_unfit < ASKED_UNFIT_MAX)
            && !self.taken.contains(&fresh.prefix)
            && !self.dead.contains(&fresh.node.addr)
    }

    /// Returns whether another candidate of this source precedes those of other sources.
    fn prefers(&self, source: Source) -> bool {
        source == Source::Trusted || !self.defence.source_limit || self.record(source).may_precede()
    }

    /// Counts the outcomes of the candidates of one source.
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

    /// Returns the candidate at this address with a pending query.
    fn outstanding(&self, from: SocketAddr) -> Option<usize> {
        self.candidates.iter().position(|candidate| {
            candidate.node.addr == from && matches!(candidate.state, State::Asked | State::Slow)
        })
    }

    /// Frees the slot of a query that ended or is late.
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

    /// Drops one candidate that was not queried; there is one, as fewer are queried than kept.
    fn forget_one(&mut self) {
        let fresh = |of: &Candidate| matches!(of.state, State::Fresh);
        let farthest_unfit = self.candidates.iter().rposition(|of| fresh(of) && !of.fits);
        if let Some(at) = farthest_unfit.or_else(|| self.candidates.iter().rposition(fresh)) {
            self.candidates.remove(at);
        }
    }

    /// Moves a candidate that answered under another id than the one it was named by.
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
