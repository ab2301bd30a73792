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
use super::node_id::{Node, NodeId};
use super::routing::prefix::{Prefix, may_name};
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
mod tests {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};
    use std::net::Ipv4Addr;

    use super::*;
    use crate::proto::dht::routing::Table;
    use crate::proto::rng::Rng;
    use crate::proto::scope::Scope;
    use crate::proto::time::{Duration, Instant};

    const RTT: Duration = Duration::from_millis(50);

    /// What hostile nodes do.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Plot {
        /// Ids as close to the target as they like, and they name each other.
        CrowdUnfit,
        /// The closest of the eight ids that fit their address, and they name each other.
        CrowdFit,
        /// The same, and they name nodes that do not exist, as close as can be, with ids that fit.
        NameDead,
    }

    /// Thousands of nodes whose tables are full, each made when it is first asked.
    struct Overlay {
        rng: Rng,
        /// By id.
        nodes: Vec<Node>,
        hostile: BTreeSet<SocketAddr>,
        tables: BTreeMap<SocketAddr, Table>,
        target: NodeId,
        plot: Plot,
    }

    fn public(rng: &mut Rng) -> SocketAddr {
        loop {
            let ip = Ipv4Addr::from_bits(rng.bits() as u32);
            let addr = SocketAddr::new(ip.into(), 1 + rng.below(65_535) as u16);
            if Scope::of(addr.ip()) == Some(Scope::Public) && addr.port() != 0 {
                return addr;
            }
        }
    }

    fn closest_id(target: NodeId, addr: SocketAddr, plot: Plot, rng: &mut Rng) -> NodeId {
        if plot == Plot::CrowdUnfit {
            let bits = 16 + rng.below(20) as u32;
            return target.random_at(bits, rng);
        }
        let ids = (0..64).map(|_| NodeId::for_ip(addr.ip(), rng));
        ids.min_by_key(|id| id.distance(target)).unwrap()
    }

    impl Overlay {
        fn new(seed: u64, count: usize, hostile_percent: usize, plot: Plot) -> Self {
            let mut rng = Rng::from_number(seed);
            let target = NodeId::random(&mut rng);
            let mut hostile = BTreeSet::new();
            let mut nodes: Vec<Node> = (0..count)
                .map(|at| {
                    let addr = public(&mut rng);
                    if at * 100 < count * hostile_percent {
                        hostile.insert(addr);
                        return Node { id: closest_id(target, addr, plot, &mut rng), addr };
                    }
                    Node { id: NodeId::for_ip(addr.ip(), &mut rng), addr }
                })
                .collect();
            nodes.sort();
            Self { rng, nodes, hostile, tables: BTreeMap::new(), target, plot }
        }

        /// Somebody honest.
        fn anybody(&mut self) -> Node {
            loop {
                let node = self.nodes[self.rng.below(self.nodes.len())];
                if !self.hostile.contains(&node.addr) {
                    return node;
                }
            }
        }

        fn table(&mut self, node: Node) -> &Table {
            let Self { rng, nodes, tables, .. } = self;
            tables.entry(node.addr).or_insert_with(|| {
                let mut table = Table::new(node.id, rng.fork("table"), Instant::ZERO);
                for bits in 0..30 {
                    // Those that share exactly so many bits are next to each other.
                    let least = nodes
                        .partition_point(|other| other.id < node.id && other.id.shared_bits(node.id) < bits);
                    let end = nodes.partition_point(|other| {
                        other.id <= node.id || other.id.shared_bits(node.id) >= bits
                    });
                    let near = &nodes[least..end];
                    for _ in 0..(256 >> bits.min(4)).min(4 * near.len()) {
                        table.answered(Instant::ZERO, near[rng.below(near.len())], RTT);
                    }
                }
                table
            })
        }

        fn answer(&mut self, asked: Node, target: NodeId) -> Option<Vec<Node>> {
            if !self.hostile.contains(&asked.addr) {
                return self
                    .nodes
                    .binary_search(&asked)
                    .is_ok()
                    .then(|| self.table(asked).closest(target, K));
            }
            let (hostile, rng) = (&self.hostile, &mut self.rng);
            Some(match self.plot {
                Plot::CrowdUnfit | Plot::CrowdFit => {
                    let known = self.nodes.iter().filter(|node| hostile.contains(&node.addr));
                    let mut known: Vec<Node> = known.filter(|_| rng.below(4) == 0).copied().collect();
                    known.sort_by_key(|node| node.id.distance(target));
                    known.truncate(NAMED_COUNT_MAX);
                    known
                }
                Plot::NameDead => {
                    let dead = std::iter::repeat_with(|| {
                        let addr = public(rng);
                        Node { id: closest_id(target, addr, Plot::CrowdFit, rng), addr }
                    });
                    let mut dead: Vec<Node> = dead.take(300).collect();
                    dead.sort_by_key(|node| node.id.distance(target));
                    dead
                }
            })
        }

        /// A lookup to its end, and those that answered.
        fn look_up(&mut self, from: Node, target: NodeId) -> (Lookup, Vec<Node>) {
            // What lookups of random targets teach.
            let size = self.nodes.len() as u64;
            let table = self.table(from);
            let mut lookup = Lookup::new(target, &table.starts(target), size);
            let (mut under_way, mut answered) = (VecDeque::new(), Vec::new());
            loop {
                while let Some(node) = lookup.next_query() {
                    under_way.push_back(node);
                }
                assert!(under_way.len() <= ALPHA);
                let Some(asked) = under_way.pop_front() else { break };
                match self.answer(asked, target) {
                    Some(nodes) => {
                        answered.push(asked);
                        let nodes = nodes.into_iter().filter(|node| node.addr != from.addr);
                        lookup.answered(asked.addr, asked.id, nodes, Some(b"token"));
                    }
                    None => lookup.failed(asked.addr),
                }
            }
            assert!(lookup.is_done());
            (lookup, answered)
        }
    }

    /// Overlays tried.
    const SEEDS: u64 = 12;

    fn median(mut of: Vec<u32>) -> u32 {
        of.sort_unstable();
        of[of.len() / 2]
    }

    #[test]
    fn a_lookup_in_an_overlay_of_ten_thousand_finds_the_closest_in_three_steps() {
        let mut overlay = Overlay::new(1, 10_000, 0, Plot::CrowdFit);
        let (mut hops, mut asked, mut missed) = (Vec::new(), Vec::new(), 0);
        for _ in 0..40 {
            let target = NodeId::random(&mut overlay.rng);
            let from = overlay.anybody();
            let (lookup, _) = overlay.look_up(from, target);
            let found = lookup.closest();
            let mut all: Vec<Node> = overlay.nodes.iter().filter(|node| **node != from).copied().collect();
            all.sort_by_key(|node| node.id.distance(target));
            missed += all[..K].iter().filter(|node| !found.iter().any(|f| f.node == **node)).count();
            assert!(found.is_sorted_by_key(|found| found.node.id.distance(target)));
            hops.push(lookup.hops(found[0].node.addr));
            asked.push(lookup.counts().0);
        }
        assert!(missed <= 3, "{missed} of 320 were not found");
        assert!(median(hops.clone()) <= 3, "{hops:?}");
        assert!(median(asked.clone()) <= 60, "{asked:?}");
    }

    /// Of so many who announce, each followed by one who looks for them: how many are found, percent.
    fn found_percent(count: usize, hostile_percent: usize, plot: Plot) -> usize {
        let mut found = 0;
        for seed in 0..SEEDS {
            let mut overlay = Overlay::new(seed, count, hostile_percent, plot);
            let (announcer, searcher) = (overlay.anybody(), overlay.anybody());
            let (lookup, _) = overlay.look_up(announcer, overlay.target);
            let stored: Vec<Node> = lookup
                .closest()
                .into_iter()
                .map(|found| found.node)
                .filter(|node| !overlay.hostile.contains(&node.addr))
                .collect();
            let (_, answered) = overlay.look_up(searcher, overlay.target);
            found += usize::from(answered.iter().any(|node| stored.contains(node)));
        }
        100 * found / SEEDS as usize
    }

    #[test]
    fn hostile_nodes_around_a_target_do_not_hide_the_honest_ones() {
        for plot in [Plot::CrowdUnfit, Plot::CrowdFit, Plot::NameDead] {
            for (hostile, least) in [(10, 95), (30, 80)] {
                let found = found_percent(3_000, hostile, plot);
                assert!(found >= least, "{plot:?} of {hostile} %: {found} % found");
            }
        }
    }

    #[test]
    fn where_a_crowd_is_seen_more_are_asked_and_all_who_answered_are_to_store() {
        for (hostile, is_crowd) in [(0, false), (30, true)] {
            let mut overlay = Overlay::new(1, 3_000, hostile, Plot::CrowdFit);
            let from = overlay.anybody();
            let (lookup, answered) = overlay.look_up(from, overlay.target);
            let stored = lookup.closest().len();
            let honest = answered.iter().filter(|node| !overlay.hostile.contains(&node.addr)).count();
            if is_crowd {
                assert_eq!(stored, answered.len());
                assert!(honest > 2 * K, "{honest} of {stored} are honest");
            } else {
                assert_eq!(stored, K);
                assert!(answered.len() <= 60, "{}", answered.len());
            }
        }
    }

    #[test]
    fn in_a_crowd_those_whose_ids_do_not_fit_have_their_places_too() {
        let mut rng = Rng::from_number(4);
        let target = NodeId::random(&mut rng);
        let mut draw = |fits: bool| loop {
            let addr = public(&mut rng);
            let id = if fits { NodeId::for_ip(addr.ip(), &mut rng) } else { NodeId::random(&mut rng) };
            if id.fits(addr.ip()) == fits && share_of_space(id.distance(target)) < 0.3 {
                return Node { id, addr };
            }
        };
        let nodes: Vec<Node> = (0..28).map(|at| draw(at < 24)).collect();
        let mut lookup = Lookup::new(target, &nodes, CLOSEST_COUNT_MAX as u64);
        while let Some(asked) = lookup.next_query() {
            lookup.answered(asked.addr, asked.id, std::iter::empty(), Some(b"token"));
        }
        let found = lookup.closest();
        assert_eq!(found.iter().filter(|found| !found.node.id.fits(found.node.addr.ip())).count(), 4);
        assert!(found.len() > CLOSEST_COUNT_MAX, "{}", found.len());
    }

    #[test]
    fn a_node_that_answers_under_the_other_id_that_it_is_named_by_is_one_node() {
        let addr: SocketAddr = "8.8.8.8:1".parse().unwrap();
        let [near, far] = [NodeId([1; 20]), NodeId([2; 20])];
        let starts = [near, far].map(|id| Node { id, addr });
        for first in [near, far] {
            let mut lookup = Lookup::new(first, &starts, 0);
            assert_eq!(lookup.next_query().map(|node| node.id), Some(first));
            let other = if first == near { far } else { near };
            lookup.answered(addr, other, std::iter::empty(), Some(b"token"));
            let closest: Vec<Node> = lookup.closest().into_iter().map(|found| found.node).collect();
            assert_eq!(closest, [Node { id: other, addr }]);
            assert!(lookup.is_done());
        }
    }

    fn node(ip: [u8; 4], byte: u8) -> Node {
        let mut id = [0; 20];
        id[0] = byte;
        Node { id: NodeId(id), addr: SocketAddr::new(ip.into(), 1) }
    }

    /// Looks for the id 0, where everything is local and fits.
    fn local_lookup(starts: &[Node]) -> Lookup {
        Lookup::new(NodeId([0; 20]), starts, 0)
    }

    fn all_queries(lookup: &mut Lookup) -> Vec<Node> {
        std::iter::from_fn(|| lookup.next_query()).collect()
    }

    #[test]
    fn four_are_asked_at_once_and_one_that_is_late_gives_its_place_away() {
        let starts: Vec<Node> = (1..=8).map(|at| node([10, 0, 0, at], at)).collect();
        let mut lookup = local_lookup(&starts);
        assert_eq!(all_queries(&mut lookup), starts[..4]);
        lookup.slow(starts[0].addr);
        assert_eq!(all_queries(&mut lookup), [starts[4]]);
        lookup.slow(starts[0].addr);
        lookup.failed(starts[7].addr);
        assert_eq!(all_queries(&mut lookup), [], "neither twice late nor never asked gives a place");
        for start in &starts[1..] {
            lookup.answered(start.addr, start.id, std::iter::empty(), None);
            let _ = all_queries(&mut lookup);
        }
        assert!(!lookup.is_done(), "the late one is the closest and may yet answer");
        lookup.answered(starts[0].addr, starts[0].id, std::iter::empty(), Some(b"late"));
        assert!(lookup.is_done());
        let found = lookup.closest();
        assert!(found.len() == 8 && found[0].token == b"late" && found[1].token.is_empty());
        assert_eq!(lookup.counts(), (8, 8));
    }

    #[test]
    fn who_is_late_is_not_waited_for_where_eight_others_answer() {
        let starts: Vec<Node> = (1..=9).map(|at| node([10, 0, 0, at], at)).collect();
        let mut lookup = local_lookup(&starts[..8]);
        let mut asked = all_queries(&mut lookup);
        lookup.slow(starts[0].addr);
        while let Some(node) = asked.pop() {
            let named = starts[8..].iter().copied();
            if node != starts[0] {
                lookup.answered(node.addr, node.id, named, None);
            }
            asked.extend(all_queries(&mut lookup));
        }
        assert!(lookup.is_done(), "the ninth was asked in the place of the late one");
        assert_eq!(lookup.counts(), (9, 8));
    }

    #[test]
    fn whoever_wants_to_store_passes_over_those_who_give_no_token() {
        let starts: Vec<Node> = (1..=12).map(|at| node([10, 0, 0, at], at)).collect();
        for (needs_tokens, first) in [(false, 0), (true, 3)] {
            let lookup = Lookup::new(NodeId([0; 20]), &starts[..1], 0);
            let mut lookup = if needs_tokens { lookup.with_tokens() } else { lookup };
            while let Some(asked) = lookup.next_query() {
                let token = (asked.id.0[0] > 3).then_some(&b"token"[..]);
                lookup.answered(asked.addr, asked.id, starts.iter().copied(), token);
            }
            assert!(lookup.is_done());
            let found: Vec<Node> = lookup.closest().into_iter().map(|found| found.node).collect();
            assert_eq!(found, starts[first..first + K]);
        }
    }

    #[test]
    fn steps_are_counted_from_our_own_table() {
        let start = node([10, 0, 0, 1], 64);
        let mut lookup = local_lookup(&[start]);
        let path: Vec<Node> = (1..5_u8).map(|at| node([10, 0, 1, at], 64 >> at)).collect();
        let mut asked = start;
        for next in &path {
            assert_eq!(all_queries(&mut lookup), [asked]);
            lookup.answered(asked.addr, asked.id, [*next, start].into_iter(), None);
            asked = *next;
        }
        assert_eq!(all_queries(&mut lookup), [asked]);
        lookup.failed(asked.addr);
        assert!(lookup.is_done());
        assert_eq!((lookup.hops(start.addr), lookup.hops(path[2].addr)), (1, 4));
        assert_eq!(lookup.closest()[0].node, path[2]);
    }

    #[test]
    fn whoever_answers_under_another_id_is_known_by_that() {
        let (named, real) = (node([10, 0, 0, 1], 1), node([10, 0, 0, 1], 200));
        let mut lookup = local_lookup(&[named]);
        assert_eq!(all_queries(&mut lookup), [named]);
        lookup.answered(named.addr, real.id, [named, real].into_iter(), None);
        assert!(lookup.is_done() && lookup.next_query().is_none(), "an address is asked once");
        let found: Vec<Node> = lookup.closest().into_iter().map(|found| found.node).collect();
        assert_eq!(found, [real]);
    }

    #[test]
    fn of_a_neighbourhood_one_is_asked_and_nobody_from_the_world_names_neighbours() {
        let start = node([8, 8, 8, 8], 255);
        let mut lookup = local_lookup(&[start]);
        assert_eq!(all_queries(&mut lookup), [start]);
        let named =
            [node([9, 9, 9, 1], 3), node([9, 9, 9, 2], 4), node([127, 0, 0, 1], 1), node([10, 0, 0, 1], 2)];
        let v6 = Node { addr: "[2001:db8::1]:1".parse().unwrap(), ..named[0] };
        lookup.answered(start.addr, start.id, named.into_iter().chain([v6]), None);
        assert_eq!(all_queries(&mut lookup), [named[0]]);
        lookup.failed(named[0].addr);
        assert_eq!(all_queries(&mut lookup), [named[1]], "the other one's turn comes if the first is dead");
    }

    #[test]
    fn an_answer_names_sixteen_and_who_names_the_dead_is_not_believed_for_long() {
        let start = node([10, 0, 0, 1], 255);
        let mut lookup = local_lookup(&[start]);
        assert_eq!(all_queries(&mut lookup), [start]);
        let dead = (1..=200).map(|at| node([10, 0, 1, at], at));
        lookup.answered(start.addr, start.id, dead, None);
        while let Some(dead) = lookup.next_query() {
            lookup.failed(dead.addr);
        }
        assert!(lookup.is_done());
        assert_eq!(lookup.counts(), (3, 1));
    }
}
