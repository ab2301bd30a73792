//! Whom we dial, and whom we let in: what holds for a connection before anything is said on it.
//!
//! Shared by the torrent and by the fetching of its description, which hands it on with all dials
//! under way. It knows the addresses, the dials under way and the names of both ends; how many
//! connections there may be, and what they are worth, is for whoever owns it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::candidates::Candidates;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::{ConnId, Connected, Direction, DisconnectReason, Source};

/// Dials under way at once: home routers choke on more. Others wait.
const DIALING_MAX: usize = 20;
/// Least time between two looks at the candidates, so that nothing spins.
const LOOK_SPACING: Duration = Duration::from_millis(100);

/// Whom we dial.
#[derive(Debug)]
pub(crate) struct Dialer {
    candidates: Candidates,
    dialing: BTreeSet<SocketAddr>,
    /// Dials under way to addresses that are not to be talked to any more: what they bring is
    /// closed.
    disowned: BTreeSet<SocketAddr>,
    /// Whether there may be somebody to dial now.
    stale: bool,
    /// When there may be somebody to dial.
    look_at: Option<Instant>,
}

impl Dialer {
    /// Nobody known. `private`: only trackers, the link and the user may name peers (BEP 27).
    pub(crate) fn new(rng: Rng, private: bool) -> Self {
        let mut candidates = Candidates::new(rng);
        if private {
            candidates.keep_named();
        }
        Self { candidates, dialing: BTreeSet::new(), disowned: BTreeSet::new(), stale: false, look_at: None }
    }

    /// Addresses from a source.
    pub(crate) fn add(&mut self, now: Instant, source: Source, addrs: &[SocketAddr]) {
        for &addr in addrs {
            // Also an address known before may be worth a try again.
            self.candidates.add(now, source, addr);
            self.stale = true;
        }
    }

    /// Addresses that somebody at `teller` told by gossip.
    pub(crate) fn add_gossip(&mut self, now: Instant, teller: IpAddr, addrs: &[SocketAddr]) {
        self.candidates.add_gossip(now, teller, addrs);
        self.stale = true;
    }

    /// Our own address as others see it.
    pub(crate) fn set_external(&mut self, addr: SocketAddr) {
        self.candidates.external_addr(addr);
    }

    /// A dial failed.
    pub(crate) fn failed(&mut self, now: Instant, addr: SocketAddr) {
        self.dialing.remove(&addr);
        self.disowned.remove(&addr);
        self.candidates.dial_failed(now, addr);
        self.stale = true;
    }

    /// A connection is up; refused is what was dialled and is not wanted any more.
    pub(crate) fn connected(&mut self, connected: &Connected) -> Result<(), DisconnectReason> {
        if connected.direction == Direction::Outgoing {
            self.dialing.remove(&connected.addr);
            self.candidates.dialled(connected.addr);
            self.stale = true;
            if self.disowned.remove(&connected.addr) {
                return Err(DisconnectReason::Stopping);
            }
        }
        Ok(())
    }

    /// Whether this is somebody to talk to. Of two connections to one peer, the one to let go for
    /// it.
    pub(crate) fn admit(
        &mut self,
        ours: PeerId,
        connected: &Connected,
        mut others: impl Iterator<Item = (ConnId, Connected)>,
    ) -> Result<Option<ConnId>, DisconnectReason> {
        if connected.peer_id == ours {
            if connected.direction == Direction::Outgoing {
                self.candidates.ourselves(connected.addr);
            }
            return Err(DisconnectReason::Ourselves);
        }
        if self.is_banned(connected.addr) {
            return Err(DisconnectReason::Banned);
        }
        match others.find(|(_, other)| is_same(connected, other)) {
            None => Ok(None),
            Some((conn, other)) if replaces(ours, connected, &other) => Ok(Some(conn)),
            Some(_) => Err(DisconnectReason::Duplicate),
        }
    }

    /// The connection was not taken. Of the `others`, with where they are known to listen, one to
    /// the same peer stands for the address that was dialled from now on.
    pub(crate) fn refused<'a>(
        &mut self,
        now: Instant,
        connected: &Connected,
        reason: DisconnectReason,
        mut others: impl Iterator<Item = (Connected, &'a mut Option<SocketAddr>)>,
    ) {
        if connected.direction == Direction::Incoming || reason == DisconnectReason::Ourselves {
            return;
        }
        let stays = |(other, known): &(Connected, &mut Option<SocketAddr>)| {
            is_same(connected, other) && stands_for(other.addr, **known, connected.addr)
        };
        match others.find(stays).filter(|_| reason == DisconnectReason::Duplicate) {
            Some((_, listen_addr)) => *listen_addr = Some(connected.addr),
            None => self.candidates.disconnected(now, connected.addr, false),
        }
    }

    /// A connected peer listens at this address.
    pub(crate) fn listens_at(&mut self, addr: SocketAddr) {
        self.candidates.listens_at(addr);
    }

    /// A connection to this address is gone; with a reason, it is we who closed it. `gave`: one
    /// side gave the other something.
    pub(crate) fn parted(
        &mut self,
        now: Instant,
        addr: SocketAddr,
        reason: Option<DisconnectReason>,
        gave: bool,
    ) {
        // After a pause, too, it goes on at once.
        if matches!(reason, Some(DisconnectReason::Anew | DisconnectReason::Stopping)) {
            self.candidates.anew(addr);
        }
        let useful = match reason {
            Some(DisconnectReason::Stopping | DisconnectReason::Anew) => true,
            None | Some(DisconnectReason::Idle | DisconnectReason::Full) => gave,
            Some(
                DisconnectReason::Protocol(_)
                | DisconnectReason::Poison
                | DisconnectReason::Ourselves
                | DisconnectReason::Duplicate
                | DisconnectReason::BothComplete
                | DisconnectReason::Banned,
            ) => false,
        };
        self.candidates.disconnected(now, addr, useful);
        self.stale = true;
    }

    /// Nothing more to do with the host of this address.
    pub(crate) fn ban(&mut self, addr: SocketAddr) {
        self.candidates.ban(addr);
    }

    /// Whether the host of this address is banned.
    pub(crate) fn is_banned(&self, addr: SocketAddr) -> bool {
        self.candidates.is_banned(addr)
    }

    /// Whether a tracker, the link or the user named this address.
    pub(crate) fn is_named(&self, addr: SocketAddr) -> bool {
        self.candidates.is_named(addr)
    }

    /// The torrent is private (BEP 27): only what trackers, the link and the user named stays or
    /// comes in.
    pub(crate) fn keep_named(&mut self) {
        self.candidates.keep_named();
        let candidates = &self.candidates;
        self.disowned.extend(self.dialing.extract_if(.., |addr| !candidates.is_known(*addr)));
        self.stale = true;
    }

    /// There may be somebody to dial now.
    pub(crate) fn look(&mut self) {
        self.stale = true;
    }

    /// When there may be somebody to dial.
    pub(crate) fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Dials under way.
    pub(crate) fn dialing_count(&self) -> usize {
        self.dialing.len()
    }

    /// Addresses that may be dialled now or later.
    pub(crate) fn candidate_count(&self) -> usize {
        self.candidates.len()
    }

    /// Dials whoever is due, at most `room` of them together with those under way.
    pub(crate) fn dial(&mut self, now: Instant, room: usize, mut dial: impl FnMut(SocketAddr)) {
        if !std::mem::take(&mut self.stale) {
            return;
        }
        let room = room.min(DIALING_MAX);
        while let Some(left) = room.checked_sub(self.dialing.len()).filter(|&left| left > 0) {
            let Some(addr) = self.candidates.next_dial(now, left) else { break };
            self.dialing.insert(addr);
            dial(addr);
        }
        // Without room the end of a dial or of a connection makes us look again.
        let waits = self.dialing.len() < room;
        self.look_at =
            self.candidates.next_at().filter(|_| waits).map(|next_at| next_at.max(now + LOOK_SPACING));
    }
}

fn is_same(one: &Connected, other: &Connected) -> bool {
    one.peer_id == other.peer_id || one.addr == other.addr
}

/// Of two connections to one peer, whether the one that stays, from or to `addr`, stands for the
/// address where the other one knew the peer to listen; `known`: where it does itself. Then that
/// address stays connected, instead of being dialled again and again for one connection too many.
pub(crate) fn stands_for(addr: SocketAddr, known: Option<SocketAddr>, listen_addr: SocketAddr) -> bool {
    addr.ip() == listen_addr.ip() && known.is_none_or(|known| known == listen_addr)
}

/// Of two connections between the same two, both ends keep the one that the greater peer id
/// dialled. A stranger who borrows a peer's name from another host does not get its place.
fn replaces(ours: PeerId, newer: &Connected, older: &Connected) -> bool {
    let kept = if ours > newer.peer_id { Direction::Outgoing } else { Direction::Incoming };
    newer.addr.ip() == older.addr.ip() && newer.direction == kept && older.direction != kept
}
