//! One iterative lookup: from the nodes that we know to those closest to a target, alpha queries at a time.
//!
//! Candidates are ordered by distance. It ends when the closest that it knows of, k of them, have answered. Who is late
//! takes nobody's place and is waited for only if fewer than k others answered: among the dead, or behind translators, a
//! lookup would otherwise wait for one failure after the other. Against those who crowd the target:
//! - Nodes whose id fits their address (BEP 42) and others are counted apart: the closest k of each have to answer,
//!   the others only where they are closer than those that fit. Ids at will hide nobody with a fitting one.
//! - Ids that fit can be had near the target too, eight for each address. All nodes have to answer, up to 24, that
//!   are within the distance that should hold k by the overlay's size, and they are given as the closest: so the
//!   honest among them are too. And 2k have to answer in any case, k of which may be those who hide the others.
//! - Where something is to be stored, who answers without a token does not count: hostile or full, nothing is kept there.
//! - Those of our own table that it begins at are all asked; so are some that are so far from the target that nobody
//!   who crowds it is there, and whom these name: some 20 queries more, that reach the honest ones around the target
//!   by ways which do not lead through the crowd. No crowd has to be seen for that: whom one in ten nodes hide, with
//!   ids that fit, sees as many around the target as chance allows, and all of them hostile.
//! - Where a crowd is seen, twice as many as there should be, three in ten of all nodes may be hostile, and four of five
//!   around the target: some honest ones there are known to nobody. What is to be stored is stored at all who answered,
//!   and three times as many of the far ones are asked: two such lookups, of 100 queries each, share some of the 30
//!   honest nodes that each comes by.
//! - One of a /24 or /64 is asked (local addresses are exempt), and each address once, under whatever ids it is named.
//! - An answer names at most 16; of the nodes that one neighbourhood alone names two are asked at once while there are
//!   others, none before others when one was dead and none alive, and no more at all when two were.
//!
//! It sends nothing itself and knows no transactions and no time.

mod candidate;
mod choice;

use std::net::SocketAddr;

use self::candidate::{Candidate, Duty, Namer, State};
use self::choice::Choice;
use super::defence::prefix::{Prefix, may_name};
use super::node_id::{Node, NodeId};
use super::routing::{K, share_of_space, size_by_density};

/// Queries under way at once.
pub const ALPHA: usize = 4;
/// Nodes around the target that have to answer where many crowd it.
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
const DEAD_OF_NAMER_MAX: usize = 2;
/// Longest token kept, bytes: longer ones are of nodes that want us to send much, and count as none.
const TOKEN_LEN_MAX: usize = 64;
/// Of those whose id fits, so many of the closest have to answer where others may hide them: one in ten of all nodes
/// can be the closest k to a target with ids that fit, and whom they hide is right behind them.
const ANSWERED_COUNT: usize = 2 * K;
/// More than these, within the distance that should hold k, are a crowd: by chance alone there is one around a target of
/// 250, and around one of ten for whoever takes the overlay for two thirds of what it is.
const CROWD_COUNT: usize = 2 * K;
/// Of the starts of a wary lookup beyond the first k, so many are asked whether a crowd is seen or not.
const CHIEF_COUNT: usize = K / 2;

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

/// Of those that one neighbourhood alone named.
#[derive(Default)]
struct Tally {
    asked: usize,
    dead: usize,
    alive: usize,
}

/// What is to be done, at one look.
struct Survey {
    /// Whom to ask next, as an index.
    next: Option<usize>,
    /// Whether one of those that have to answer was asked.
    is_waiting: bool,
}

impl Lookup {
    /// Begins at these nodes. `size_estimate` of the overlay tells how close the closest should be: if more are, all of
    /// them are looked for, and the lookup is wary, which costs 30 queries more; 0: it is not, for nobody gathers at its
    /// target. Of the starts ([`Table::starts`](super::routing::Table::starts)) the first k are asked in any case, the
    /// next four by a wary lookup, and the rest by one that sees a crowd.
    pub fn new(target: NodeId, starts: &[Node], size_estimate: u64) -> Self {
        let mut lookup = Self {
            target,
            candidates: Vec::with_capacity(4 * K),
            taken: Vec::with_capacity(2 * K),
            dead: Vec::new(),
            size_estimate,
            needs_tokens: false,
            under_way: 0,
            asked: 0,
            asked_unfit: 0,
            answered: 0,
        };
        for (at, &node) in starts.iter().enumerate() {
            let duty = match at {
                _ if at < K => Duty::Start,
                _ if at < K + CHIEF_COUNT => Duty::Chief,
                _ => Duty::Reserve,
            };
            lookup.add(node, 1, Namer::Trusted, duty);
        }
        lookup
    }

    /// The same for whoever wants to store something: only who gives a token counts among the closest.
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
        let duty = self.candidates[at].duty.of_named();
        if self.candidates[at].node.id != id {
            self.correct(at, id);
        }
        let namer = Namer::Alone(Prefix::of(from));
        for node in nodes.take(NAMED_COUNT_MAX) {
            if node.addr.is_ipv4() == from.is_ipv4() && may_name(from, node.addr) {
                self.add(node, hops + 1, namer, duty);
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
        if let namer @ Namer::Alone(_) = self.candidates[at].namer {
            self.doubt(namer);
        }
    }

    /// Whether there is nothing left to ask or to wait for.
    pub fn is_done(&self) -> bool {
        let Survey { next, is_waiting } = self.survey();
        next.is_none() && !is_waiting
    }

    /// Where to store: the closest that answered, closest first. k of them whose id fits, all where a crowd is
    /// around the target, and up to k of others that are closer than these. Where tokens are needed, of those that
    /// gave one.
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
        let wanted = if self.is_wary() { self.wanted().max(ANSWERED_COUNT) } else { K };
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
                    choice.offer(at, || self.prefers(candidate.namer));
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
        let preferred = next_fit.preferred.or(next_unfit.preferred).or_else(|| self.next_on_duty());
        // Late ones are not worth the wait where others do.
        is_waiting |= is_late && answered < K;
        let is_crowded = self.is_crowded();
        let is_awaited = |of: &Candidate| self.is_on_duty(of, is_crowded) && matches!(of.state, State::Asked);
        Survey {
            next: preferred.or(next_fit.any).or(next_unfit.any),
            is_waiting: is_waiting || (self.under_way > 0 && self.candidates.iter().any(is_awaited)),
        }
    }

    /// The closest node that is asked in any case.
    fn next_on_duty(&self) -> Option<usize> {
        let is_crowded = self.is_crowded();
        let is_fresh = |of: &Candidate| matches!(of.state, State::Fresh);
        self.candidates
            .iter()
            .position(|of| is_fresh(of) && self.is_on_duty(of, is_crowded) && self.may_ask(of))
    }

    fn is_on_duty(&self, candidate: &Candidate, is_crowded: bool) -> bool {
        match candidate.duty {
            Duty::None => false,
            Duty::Start => true,
            Duty::Scout | Duty::Chief => self.is_wary(),
            Duty::Reserve => is_crowded,
        }
    }

    /// Whether others may want to hide the closest nodes: the overlay is large enough to have some that are far.
    fn is_wary(&self) -> bool {
        self.size_estimate >= CLOSEST_COUNT_MAX as u64
    }

    /// Whether more are around the target than chance allows, with ids that fit. Who was named and is dead is no crowd.
    fn is_crowded(&self) -> bool {
        let answered = self.around().filter(|candidate| matches!(candidate.state, State::Answered(_)));
        answered.take(CROWD_COUNT + 1).count() > CROWD_COUNT
    }

    /// How many whose id fits are the closest: all within the distance that should hold k, if they are more.
    fn wanted(&self) -> usize {
        self.around().take(CLOSEST_COUNT_MAX).count().max(K)
    }

    /// Those whose id fits within the distance that should hold k; nobody if that is not known.
    fn around(&self) -> impl Iterator<Item = &Candidate> {
        let radius = if self.is_wary() { K as f64 / self.size_estimate as f64 } else { 0.0 };
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

    /// Whether another one that only this neighbourhood named is asked before others: not many at once, and none while
    /// it named the dead alone.
    fn prefers(&self, namer: Namer) -> bool {
        let Tally { asked, dead, alive } = self.tally(namer);
        namer == Namer::Trusted || (asked < ASKED_OF_NAMER_MAX && (dead == 0 || alive > 0))
    }

    /// What became of those that this one named.
    fn tally(&self, namer: Namer) -> Tally {
        let mut tally = Tally::default();
        for candidate in self.candidates.iter().filter(|candidate| candidate.namer == namer) {
            match candidate.state {
                State::Asked => tally.asked += 1,
                State::Failed => tally.dead += 1,
                State::Answered(_) => tally.alive += 1,
                State::Fresh | State::Slow => {}
            }
        }
        tally
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
    fn add(&mut self, node: Node, hops: u32, namer: Namer, duty: Duty) {
        let at = match self.find(&node) {
            Ok(at) => {
                let known = &mut self.candidates[at];
                if known.namer != namer {
                    known.namer = Namer::Trusted;
                }
                if matches!(known.state, State::Fresh) {
                    known.hops = known.hops.min(hops);
                    if known.duty == Duty::None {
                        known.duty = duty;
                    }
                }
                return;
            }
            Err(at) => at,
        };
        let fits = node.id.fits(node.addr.ip());
        let prefix = Prefix::of(node.addr);
        self.candidates.insert(at, Candidate { node, prefix, fits, hops, duty, namer, state: State::Fresh });
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
        let Tally { dead, alive, .. } = self.tally(namer);
        if dead >= DEAD_OF_NAMER_MAX && alive == 0 {
            self.candidates.retain(|of| of.namer != namer || !matches!(of.state, State::Fresh));
        }
    }

    fn find(&self, node: &Node) -> Result<usize, usize> {
        let key = |node: &Node| (node.id.distance(self.target), node.addr);
        self.candidates.binary_search_by(|candidate| key(&candidate.node).cmp(&key(node)))
    }
}

#[cfg(test)]
mod tests;
