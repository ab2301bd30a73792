//! Which piece of the info dictionary is asked of whom, and who lied.
//!
//! Peers that claim the same size fill one assembly together. If it does not hash, each of them has
//! to send a assembly alone: who sends a whole wrong one is the liar, and once a right one is
//! there, so is everyone whose piece of the first assembly differs. A claim of another size is
//! another assembly, so a lie about the size costs the others nothing. Room is reserved for each
//! assembly before anything is asked for it, and given back when it is dropped.
//!
//! Invariants: a assembly exists only for a claim; a source asks for nothing that has no open
//! assembly; the assemblies keep [`ASSEMBLIES_MAX`] and [`RESERVED_MAX`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;

use super::METADATA_LEN_MAX;
use super::assembly::{Evidence, MetadataAssembly};
use super::source::{Answer, MetadataSource};
use crate::proto::infohash::InfoHash;
use crate::proto::peer::faults::{Fault, Faults};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::{ConnId, DisconnectReason};

/// Copies in the making at once; other claims wait until one is done with or stalls.
const ASSEMBLIES_MAX: usize = 8;
/// Bytes of all assemblies in the making: one of any length, and ordinary ones beside it. Other
/// claims wait.
const RESERVED_MAX: u64 = METADATA_LEN_MAX as u64 + (8 << 20);
/// Peers of one claim that send their assemblies alone at once; the others wait.
const ALONE_MAX: usize = 4;
/// A assembly to which nothing was added for so long makes room for another, and so does one of
/// that age that grows slower than [`RATE_MIN`].
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// Bytes a second: so the peers that hold all assemblies with lies have to send them, and are found
/// out.
const RATE_MIN: u64 = 8 << 10;
/// A assembly to which nothing was added for so long is dropped, and one of that age that grows
/// slower than [`RATE_MIN`]: other torrents may need the room. It is begun again if anybody still
/// claims it.
const ABANDONED_AFTER: Duration = Duration::from_secs(300);

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Ask this peer for this piece.
    Ask(ConnId, u32),
    /// Room for so many bytes is needed.
    Reserve(u32),
    /// Room for so many bytes is not needed any more.
    Release(u32),
    /// This address sent what does not belong there.
    Liar(SocketAddr),
    /// This is it.
    Complete(Bytes),
}

/// Of which size, and of whom if of one peer alone.
type AssemblyId = (u32, Option<ConnId>);

#[derive(Debug)]
enum Stage {
    /// Room is asked for.
    Reserving,
    Open(MetadataAssembly),
}

impl Stage {
    /// Whether it is to make room for a assembly that others claim.
    fn is_stalled(&self, now: Instant) -> bool {
        match self {
            Self::Open(assembly) => is_late(assembly, now, STALLED_AFTER),
            Self::Reserving => false,
        }
    }

    /// Whether it is not worth its room even if nobody here needs it.
    fn is_abandoned(&self, now: Instant) -> bool {
        match self {
            Self::Open(assembly) => is_late(assembly, now, ABANDONED_AFTER),
            Self::Reserving => false,
        }
    }
}

/// Whether nothing was added for so long, or too little in all of at least that time.
fn is_late(assembly: &MetadataAssembly, now: Instant, span: Duration) -> bool {
    let age = now - assembly.opened_at;
    let is_slow = u64::from(assembly.done_len()) < age.as_secs() * RATE_MIN;
    age >= span && (is_slow || now - assembly.progress_at >= span)
}

/// What is known of a size that somebody claims.
#[derive(Debug, Default)]
struct Claim {
    /// A assembly of several peers did not hash: each has to send one alone.
    mistrusted: bool,
    /// Who sent what of it.
    evidence: Evidence,
    /// How often a assembly of it stalled.
    stall_count: u32,
}

/// The fetching of one dictionary.
#[derive(Debug)]
pub(crate) struct MetadataFetch {
    infohash: InfoHash,
    claims: BTreeMap<u32, Claim>,
    assemblies: BTreeMap<AssemblyId, Stage>,
    sources: BTreeMap<ConnId, MetadataSource>,
    done: bool,
    rng: Rng,
    decisions: VecDeque<Decision>,
}

impl MetadataFetch {
    /// Nobody to ask.
    pub(crate) fn new(infohash: InfoHash, rng: Rng) -> Self {
        Self {
            infohash,
            claims: BTreeMap::new(),
            assemblies: BTreeMap::new(),
            sources: BTreeMap::new(),
            done: false,
            rng,
            decisions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub(crate) fn pop(&mut self) -> Option<Decision> {
        self.decisions.pop_front()
    }

    /// A peer says that it has the dictionary, of so many bytes.
    pub(crate) fn joined(
        &mut self,
        now: Instant,
        conn: ConnId,
        addr: SocketAddr,
        total_len: u32,
    ) -> Result<(), DisconnectReason> {
        if self.done || total_len == 0 || total_len > METADATA_LEN_MAX {
            return Ok(());
        }
        if let Some(known) = self.sources.get(&conn) {
            let same = known.total_len == total_len;
            return if same { Ok(()) } else { Err(ANOTHER_SIZE) };
        }
        self.sources.insert(conn, MetadataSource::new(now, addr, total_len));
        self.claims.entry(total_len).or_default();
        self.open_assemblies(now);
        self.fill(now, conn);
        Ok(())
    }

    /// A peer is gone, or does not have it any more.
    pub(crate) fn left(&mut self, now: Instant, conn: ConnId) {
        let Some(source) = self.sources.remove(&conn) else { return };
        self.drop_assembly((source.total_len, Some(conn)));
        let shared = (source.total_len, None);
        if let Some(Stage::Open(assembly)) = self.assemblies.get_mut(&shared) {
            source.asked().into_iter().for_each(|piece| assembly.release(piece));
        }
        // What came may be of use to the next one who claims this size.
        if self.claimants(shared.0).next().is_none() && self.done_len_of(&shared) == 0 {
            self.drop_assembly(shared);
        }
        self.forget_claims();
        self.advance(now);
    }

    /// Whether this peer is one of those that have it.
    pub(crate) fn is_source(&self, conn: ConnId) -> bool {
        self.sources.contains_key(&conn)
    }

    /// When this peer sent a piece of it last.
    pub(crate) fn gave_at(&self, conn: ConnId) -> Option<Instant> {
        self.sources.get(&conn)?.gave_at
    }

    /// Whether anything is reserved, or about to be: someone has to look after it.
    pub(crate) fn holds_room(&self) -> bool {
        !self.assemblies.is_empty()
    }

    /// How many say that they have it.
    pub(crate) fn source_count(&self) -> usize {
        self.sources.len()
    }

    /// There is room for a assembly of so many bytes.
    pub(crate) fn reserved(&mut self, now: Instant, total_len: u32) {
        let waits =
            |(id, stage): &(&AssemblyId, &mut Stage)| id.0 == total_len && matches!(stage, Stage::Reserving);
        match self.assemblies.iter_mut().find(waits) {
            Some((_, stage)) if !self.done => *stage = Stage::Open(MetadataAssembly::new(total_len, now)),
            Some(_) | None => self.decisions.push_back(Decision::Release(total_len)),
        }
        self.fill_all(now);
    }

    /// A piece came.
    pub(crate) fn data(
        &mut self,
        now: Instant,
        conn: ConnId,
        (piece, total_len, bytes): (u32, u32, &[u8]),
        faults: &mut Faults,
    ) -> Result<(), DisconnectReason> {
        if self.done {
            return Ok(());
        }
        let Some(source) = self.sources.get_mut(&conn).filter(|known| known.total_len == total_len) else {
            let flaps = self.sources.contains_key(&conn);
            return if flaps { Err(ANOTHER_SIZE) } else { faults.count(Fault::UnsolicitedMetadata) };
        };
        let (answer, addr) = (source.gave(now, piece), source.addr);
        if answer == Answer::Unasked {
            return faults.count(Fault::UnsolicitedMetadata);
        }
        let id = self.assembly_of(conn, total_len);
        let Some(Stage::Open(assembly)) = self.assemblies.get_mut(&id) else { return Ok(()) };
        if answer == Answer::Awaited {
            assembly.release(piece);
        }
        if !assembly.fits(piece, bytes.len()) {
            return Err(DisconnectReason::Protocol("metadata piece of wrong length"));
        }
        assembly.put(now, piece, bytes, addr);
        if assembly.is_complete() {
            self.completed(now, id);
        } else {
            self.fill(now, conn);
        }
        Ok(())
    }

    /// A peer will not send this piece.
    pub(crate) fn rejected(
        &mut self,
        now: Instant,
        conn: ConnId,
        piece: u32,
        faults: &mut Faults,
    ) -> Result<(), DisconnectReason> {
        if self.done {
            return Ok(());
        }
        let Some(source) = self.sources.get_mut(&conn) else {
            return faults.count(Fault::UnsolicitedMetadata);
        };
        let (answer, total_len) = (source.refused(now, piece), source.total_len);
        if answer == Answer::Unasked {
            return faults.count(Fault::UnsolicitedMetadata);
        }
        let id = self.assembly_of(conn, total_len);
        if let Some(Stage::Open(assembly)) = self.assemblies.get_mut(&id)
            && answer == Answer::Awaited
        {
            assembly.release(piece);
        }
        self.fill_all(now);
        Ok(())
    }

    /// Some time passed: silence is noticed.
    pub(crate) fn upkeep(&mut self, now: Instant) {
        let conns: Vec<ConnId> = self.sources.keys().copied().collect();
        for conn in conns {
            self.time_out(now, conn);
        }
        let abandoned = |(id, stage): (&AssemblyId, &Stage)| stage.is_abandoned(now).then_some(*id);
        let abandoned: Vec<AssemblyId> = self.assemblies.iter().filter_map(abandoned).collect();
        abandoned.into_iter().for_each(|id| self.stalled(id));
        self.advance(now);
    }

    /// How far it is: by the assembly that is furthest, or the claim that most peers make.
    pub(crate) fn progress(&self) -> (u32, u32) {
        let open = self.assemblies.iter().filter_map(|(id, stage)| match stage {
            Stage::Open(assembly) => Some((assembly.done_len(), id.0)),
            Stage::Reserving => None,
        });
        let claimed = |total_len: &u32| self.claimants(*total_len).count();
        let claim = self.claims.keys().copied().max_by_key(claimed).unwrap_or(0);
        open.max().filter(|&(done_len, _)| done_len > 0).unwrap_or((0, claim))
    }

    fn claimants(&self, total_len: u32) -> impl Iterator<Item = (ConnId, &MetadataSource)> {
        let claims = move |(_, source): &(&ConnId, &MetadataSource)| source.total_len == total_len;
        self.sources.iter().filter(claims).map(|(conn, source)| (*conn, source))
    }

    fn done_len_of(&self, id: &AssemblyId) -> u32 {
        match self.assemblies.get(id) {
            Some(Stage::Open(assembly)) => assembly.done_len(),
            Some(Stage::Reserving) | None => 0,
        }
    }

    fn is_mistrusted(&self, total_len: u32) -> bool {
        self.claims.get(&total_len).is_some_and(|claim| claim.mistrusted)
    }

    /// The assembly to which this peer's pieces belong.
    fn assembly_of(&self, conn: ConnId, total_len: u32) -> AssemblyId {
        (total_len, self.is_mistrusted(total_len).then_some(conn))
    }

    fn time_out(&mut self, now: Instant, conn: ConnId) {
        let Some(total_len) = self.sources.get(&conn).map(|source| source.total_len) else { return };
        let id = self.assembly_of(conn, total_len);
        let Some(source) = self.sources.get_mut(&conn) else { return };
        for piece in source.time_out(now) {
            if let Some(Stage::Open(assembly)) = self.assemblies.get_mut(&id) {
                assembly.release(piece);
            }
        }
    }

    /// A assembly is whole: right, or somebody lied.
    fn completed(&mut self, now: Instant, id: AssemblyId) {
        let Some(Stage::Open(assembly)) = self.assemblies.remove(&id) else { return };
        let claim = self.claims.entry(id.0).or_default();
        if assembly.infohash() == self.infohash {
            let liars = assembly.liars(&claim.evidence);
            self.decisions.extend(liars.into_iter().map(Decision::Liar));
            self.decisions.push_back(Decision::Complete(assembly.into_bytes()));
            self.done = true;
            return;
        }
        match assembly.sole_contributor() {
            Some(liar) => {
                self.sources.retain(|_, source| source.addr != liar);
                self.decisions.push_back(Decision::Liar(liar));
            }
            None => {
                claim.mistrusted = true;
                claim.evidence = assembly.evidence();
            }
        }
        self.withdraw(id);
        self.decisions.push_back(Decision::Release(id.0));
        self.forget_claims();
        self.advance(now);
    }

    /// A assembly is gone: nobody is asked for its pieces any more. What is on its way may come, to
    /// where it belongs then.
    fn withdraw(&mut self, id: AssemblyId) {
        let asked = |(conn, source): &(&ConnId, &mut MetadataSource)| {
            source.total_len == id.0 && id.1.is_none_or(|alone| alone == **conn)
        };
        self.sources.iter_mut().filter(asked).for_each(|(_, source)| source.give_up_all());
    }

    /// Opens what assemblies there is room for, and asks whoever may be asked.
    fn advance(&mut self, now: Instant) {
        self.open_assemblies(now);
        self.fill_all(now);
    }

    fn open_assemblies(&mut self, now: Instant) {
        if self.done {
            return;
        }
        for id in self.wanted_assemblies() {
            let alone_count =
                self.assemblies.keys().filter(|other| other.0 == id.0 && other.1.is_some()).count();
            if id.1.is_some() && alone_count >= ALONE_MAX {
                if let Some(stalled) = self.stalled_assembly(now, |other| other.0 == id.0) {
                    self.stalled(stalled);
                } else {
                    continue;
                }
            }
            while !self.has_room(id.0) {
                let Some(stalled) = self.stalled_assembly(now, |_| true) else { break };
                self.stalled(stalled);
            }
            if self.has_room(id.0) {
                self.assemblies.insert(id, Stage::Reserving);
                self.decisions.push_back(Decision::Reserve(id.0));
            }
        }
    }

    /// The assemblies that somebody could fill and that are not there, the most promising first:
    /// what stalled least, what most peers claim, what is shortest.
    fn wanted_assemblies(&self) -> Vec<AssemblyId> {
        let mut wanted = Vec::new();
        for (&total_len, claim) in &self.claims {
            let count = Reverse(self.claimants(total_len).count());
            if claim.mistrusted {
                let alone = self.claimants(total_len);
                wanted.extend(alone.map(|(conn, source)| {
                    (claim.stall_count + source.stall_count, count, (total_len, Some(conn)))
                }));
            } else if count.0 > 0 {
                wanted.push((claim.stall_count, count, (total_len, None)));
            }
        }
        wanted.retain(|(_, _, id)| !self.assemblies.contains_key(id));
        wanted.sort_unstable();
        wanted.into_iter().map(|(_, _, id)| id).collect()
    }

    fn has_room(&self, total_len: u32) -> bool {
        let reserved: u64 = self.assemblies.keys().map(|id| u64::from(id.0)).sum();
        self.assemblies.len() < ASSEMBLIES_MAX && reserved + u64::from(total_len) <= RESERVED_MAX
    }

    /// Of these assemblies one that nobody fills, or too slowly.
    fn stalled_assembly(&self, now: Instant, among: impl Fn(&AssemblyId) -> bool) -> Option<AssemblyId> {
        let deserted = |id: &AssemblyId| self.claimants(id.0).next().is_none();
        let stalled =
            |(id, stage): &(&AssemblyId, &Stage)| among(id) && (deserted(id) || stage.is_stalled(now));
        self.assemblies.iter().find(stalled).map(|(id, _)| *id)
    }

    /// Drops a assembly that nobody fills.
    fn stalled(&mut self, id: AssemblyId) {
        match id.1.and_then(|conn| self.sources.get_mut(&conn)) {
            Some(source) => source.stall_count += 1,
            None => self.claims.entry(id.0).or_default().stall_count += 1,
        }
        self.drop_assembly(id);
        self.forget_claims();
    }

    fn drop_assembly(&mut self, id: AssemblyId) {
        // Of one that is only being reserved, the room is given back when it is granted.
        if let Some(Stage::Open(_)) = self.assemblies.remove(&id) {
            self.decisions.push_back(Decision::Release(id.0));
            self.withdraw(id);
        }
    }

    /// Forgets sizes that nobody claims and of which nothing is there.
    fn forget_claims(&mut self) {
        let claimed: Vec<u32> = self.sources.values().map(|source| source.total_len).collect();
        let assemblies = &self.assemblies;
        self.claims.retain(|len, _| claimed.contains(len) || assemblies.contains_key(&(*len, None)));
    }

    /// In turns, or the silent that came first would take every slot that others of their kind
    /// leave.
    fn fill_all(&mut self, now: Instant) {
        let turns = self.sources.iter().map(|(conn, source)| (source.turn(), *conn));
        let mut turns: Vec<_> = turns.collect();
        turns.sort_unstable();
        turns.into_iter().for_each(|(_, conn)| self.fill(now, conn));
    }

    /// Asks a peer for as much as it may be asked.
    fn fill(&mut self, now: Instant, conn: ConnId) {
        let Some(total_len) = self.sources.get(&conn).map(|source| source.total_len) else { return };
        let id = self.assembly_of(conn, total_len);
        let (Some(source), Some(Stage::Open(assembly))) =
            (self.sources.get_mut(&conn), self.assemblies.get_mut(&id))
        else {
            return;
        };
        while !self.done && source.has_room(now) {
            let Some(piece) = assembly.pick(now, &source.asked(), &mut self.rng) else { return };
            source.ask(now, piece);
            self.decisions.push_back(Decision::Ask(conn, piece));
        }
    }

    /// Says whether the bounds hold.
    #[cfg(debug_assertions)]
    pub(crate) fn check_invariant(&self) {
        debug_assert!(self.assemblies.len() <= ASSEMBLIES_MAX);
        debug_assert!(self.assemblies.keys().map(|id| u64::from(id.0)).sum::<u64>() <= RESERVED_MAX);
        debug_assert!(self.done || self.assemblies.keys().all(|id| self.claims.contains_key(&id.0)));
    }
}

const ANOTHER_SIZE: DisconnectReason = DisconnectReason::Protocol("metadata of another size than before");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_is_dropped_leaves_nobody_asked() {
        let (mut fetch, now) = (MetadataFetch::new(InfoHash([7; 20]), Rng::from_number(1)), Instant::ZERO);
        let conn = ConnId(1);
        fetch.joined(now, conn, "80.0.0.1:1".parse().unwrap(), 100_000).unwrap();
        fetch.reserved(now, 100_000);
        assert!(!fetch.sources[&conn].asked().is_empty());
        fetch.stalled((100_000, None));
        assert!(fetch.sources[&conn].asked().is_empty());
    }
}
