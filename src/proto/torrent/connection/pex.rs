//! Gossip: who is told of whom, and when (BEP 11).
//!
//! Told are the peers that we are connected to and whose extension handshake came, at the address
//! where they take connections: one that we dialled or that they named themselves, never the port
//! that an incoming connection happens to have. Nobody is told of itself, and nobody of addresses
//! that it could not mean ([`may_name`]). The banned are not connected.
//!
//! All changes are numbered in one sequence; of each peer that speaks `ut_pex` we keep only how far
//! it was told. So the state is one entry a connection and the last [`GONE_MAX`] that left, and a
//! message costs what changed since the one before it. Who was told everything waits for no timer:
//! the next change wakes it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::outbox::Outbox;
use crate::proto::compact;
use crate::proto::peer::Peer;
use crate::proto::peer::faults::{Fault, Faults};
use crate::proto::peer::pace::Pace;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::{ConnId, Direction, DisconnectReason};
use crate::proto::wire::message::Message;
use crate::proto::wire::pex::{PEX_COUNT_MAX, PexFlags, PexMessage};

/// Least time between two messages to one peer, by the BEP.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long news wait for others to go with them, where the minute has passed: long enough for the
/// connections of a start, short enough that newcomers soon know each other.
const GATHERING: Duration = Duration::from_secs(2);
/// Peers that left and are remembered, two messages' worth; the oldest is forgotten, and who would
/// have been told of it finds out by dialling.
const GONE_MAX: usize = 2 * PEX_COUNT_MAX;

/// Whether somebody at `teller` can mean the address `about`, and somebody there make use of it:
/// loopback is known to loopback alone, a local network to its hosts.
pub(crate) fn may_name(teller: IpAddr, about: IpAddr) -> bool {
    if about.to_canonical().is_loopback() {
        teller.to_canonical().is_loopback()
    } else {
        !compact::is_local(about) || compact::is_local(teller)
    }
}

/// The peers that a message of gossip tells of and that are worth a dial; none if it comes too
/// often or cannot be read, which is a fault. `seeding`: to us other seeds are not, for two of them
/// would part at once.
pub(crate) fn heard(
    now: Instant,
    payload: &[u8],
    (teller, seeding): (IpAddr, bool),
    pace: &mut Pace,
    faults: &mut Faults,
) -> Result<Vec<SocketAddr>, DisconnectReason> {
    let gossip = if pace.takes_gossip(now) { PexMessage::decode(payload).ok() } else { None };
    let Some(gossip) = gossip else {
        faults.count(Fault::Gossip)?;
        return Ok(Vec::new());
    };
    let added = gossip.added.into_iter();
    let worth = added.filter(|(addr, flags)| may_name(teller, addr.ip()) && !(seeding && flags.seed));
    Ok(worth.map(|(addr, _)| addr).collect())
}

/// Somebody who left.
#[derive(Debug)]
struct Gone {
    addr: SocketAddr,
    /// The number of its coming: who was told so far was told of it.
    joined: u64,
}

/// A peer that speaks `ut_pex`.
#[derive(Debug)]
struct Listener {
    /// The last coming that it was told of, or that was not for it.
    joined: u64,
    /// The last leaving.
    gone: u64,
    /// From when on it may be told more.
    may_at: Instant,
    /// When it will be; None: it knows all.
    due_at: Option<Instant>,
}

/// What there is to tell, and how far each peer was told.
#[derive(Debug, Default)]
pub(crate) struct Gossip {
    /// The number of the last change.
    last: u64,
    /// Who is here, by the number of its coming.
    here: BTreeMap<u64, (SocketAddr, ConnId)>,
    joined: BTreeMap<ConnId, u64>,
    /// Who left, by the number of its leaving.
    gone: BTreeMap<u64, Gone>,
    listeners: BTreeMap<ConnId, Listener>,
    due: BTreeSet<(Instant, ConnId)>,
    /// Listeners that know all.
    content: BTreeSet<ConnId>,
}

impl Gossip {
    /// A peer takes connections at this address.
    pub(crate) fn join(&mut self, now: Instant, conn: ConnId, addr: SocketAddr) {
        if !compact::is_dialable(addr) || self.joined.contains_key(&conn) {
            return;
        }
        self.last += 1;
        // It is back: of its leaving nobody needs to hear any more.
        self.gone.retain(|_, gone| gone.addr != addr);
        self.here.insert(self.last, (addr, conn));
        self.joined.insert(conn, self.last);
        self.wake(now);
    }

    /// A peer speaks `ut_pex`.
    pub(crate) fn listen(&mut self, now: Instant, conn: ConnId) {
        if self.listeners.contains_key(&conn) {
            return;
        }
        // Of those who left before it came it knows nothing anyway.
        let listener = Listener { joined: 0, gone: self.last, may_at: now, due_at: None };
        self.listeners.insert(conn, listener);
        self.content.insert(conn);
        self.wake(now);
    }

    /// A connection is gone.
    pub(crate) fn leave(&mut self, now: Instant, conn: ConnId) {
        if let Some(listener) = self.listeners.remove(&conn) {
            self.content.remove(&conn);
            if let Some(due_at) = listener.due_at {
                self.due.remove(&(due_at, conn));
            }
        }
        let Some(joined) = self.joined.remove(&conn) else { return };
        let Some((addr, _)) = self.here.remove(&joined) else { return };
        if self.listeners.is_empty() {
            self.gone.clear();
            return;
        }
        self.last += 1;
        self.gone.insert(self.last, Gone { addr, joined });
        if self.gone.len() > GONE_MAX {
            self.gone.pop_first();
        }
        self.wake(now);
    }

    /// When [`Gossip::tell`] is due; None while there is nothing to tell to anybody.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        self.due.first().map(|first| first.0)
    }

    /// Tells whoever is due.
    pub(crate) fn tell(&mut self, now: Instant, peers: &mut BTreeMap<ConnId, Peer>, out: &mut Outbox) {
        while let Some(&(at, conn)) = self.due.first()
            && at <= now
        {
            self.due.remove(&(at, conn));
            let message = self.next_message(now, conn, peers);
            let Some(peer) = peers.get_mut(&conn) else { continue };
            let number = peer.remote.extension().and_then(|extension| extension.ut_pex);
            if let (Some(id), Some(message)) = (number, message) {
                out.send(now, peer, Message::Extended { id, payload: message.encode() });
            }
        }
    }

    /// There is news: who knew all is told soon.
    fn wake(&mut self, now: Instant) {
        for conn in std::mem::take(&mut self.content) {
            if let Some(listener) = self.listeners.get_mut(&conn) {
                let due_at = listener.may_at.max(now + GATHERING);
                listener.due_at = Some(due_at);
                self.due.insert((due_at, conn));
            }
        }
    }

    /// What a peer is told now, and when again.
    fn next_message(
        &mut self,
        now: Instant,
        conn: ConnId,
        peers: &BTreeMap<ConnId, Peer>,
    ) -> Option<PexMessage> {
        let listener = self.listeners.get_mut(&conn)?;
        let to = peers.get(&conn)?.connected.addr.ip();
        let mut message = PexMessage::default();
        let (told, mut joined, mut gone) = (listener.joined, self.last, self.last);
        for (&number, left) in self.gone.range(listener.gone + 1..) {
            if message.dropped.len() == PEX_COUNT_MAX {
                gone = number - 1;
                break;
            }
            if left.joined <= told && may_name(to, left.addr.ip()) {
                message.dropped.push(left.addr);
            }
        }
        // Whose leaving has to wait for the next message, and who was not told of before, must not
        // count as told of then: so far the comings go.
        let untold = self.gone.range(gone + 1..).map(|(_, left)| left.joined).filter(|&joined| joined > told);
        joined = untold.min().map_or(joined, |untold| untold - 1);
        for (&number, &(addr, other)) in self.here.range(told + 1..).take_while(|here| *here.0 <= joined) {
            if message.added.len() == PEX_COUNT_MAX {
                joined = number - 1;
                break;
            }
            if let Some(peer) = peers.get(&other).filter(|_| other != conn && may_name(to, addr.ip())) {
                message.added.push((addr, flags(peer)));
            }
        }
        (listener.joined, listener.gone) = (joined, gone);
        let is_news = !message.is_empty();
        if is_news {
            listener.may_at = now + INTERVAL;
        }
        listener.due_at = (joined.min(gone) < self.last).then_some(now + INTERVAL);
        match listener.due_at {
            Some(due_at) => _ = self.due.insert((due_at, conn)),
            None => _ = self.content.insert(conn),
        }
        is_news.then_some(message)
    }

    /// Says whether the books agree.
    #[cfg(debug_assertions)]
    pub(crate) fn check_invariant(&self) {
        debug_assert_eq!(self.here.len(), self.joined.len());
        debug_assert_eq!(self.listeners.len(), self.due.len() + self.content.len());
        debug_assert!(self.gone.len() <= GONE_MAX);
    }
}

/// What others are told of a peer.
fn flags(peer: &Peer) -> PexFlags {
    let upload_only = peer.remote.extension().is_some_and(|extension| extension.upload_only);
    PexFlags {
        seed: upload_only || peer.remote.is_seed(),
        reachable: peer.connected.direction == Direction::Outgoing,
        ..PexFlags::default()
    }
}
