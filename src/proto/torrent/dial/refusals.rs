//! Peers that cannot be talked to because they seem to require encryption: how many, and when the
//! user is told.
//!
//! A client that takes only encrypted connections (MSE) closes ours without a handshake, and to the
//! user it looks as if there were no peers. But so does a client that is full, or no longer has the
//! torrent: certain it is only of those from whose address an encrypted connection came, too. Once
//! a peer shakes hands the owner drops all this: a swarm that answers needs no explanation.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::proto::time::{Duration, Instant};
use crate::proto::wire::handshake::HANDSHAKE_LEN;

/// Time from the first one until the user is told, so that most of them are counted.
const TELL_AFTER: Duration = Duration::from_secs(5);
/// Least time between two tellings; from one to the next the count doubles.
const TELL_PAUSE: Duration = Duration::from_secs(60);
/// Most addresses of each kind that are remembered. Further ones are not counted.
const ADDR_MAX: usize = 1_000;

/// What the user is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Peers, by their addresses.
    pub count: usize,
    /// What makes it seem that they require encryption.
    pub evidence: Evidence,
}

/// Why peers seem to require encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Some closed our connection without a handshake, which may have other reasons.
    Closed,
    /// All of these tried to connect to us encrypted; none was dialled, so they may take other
    /// connections.
    Encrypted,
    /// All that were dialled closed our connection, and tried to connect to us encrypted.
    Both,
}

/// The peers of one torrent that refused us.
#[derive(Debug, Default)]
pub struct Refusals {
    /// The addresses of peers that closed our connection without a handshake.
    closed: BTreeSet<SocketAddr>,
    /// From where encrypted connections came.
    encrypted: BTreeSet<IpAddr>,
    told: Option<(usize, Instant)>,
    tell_at: Option<Instant>,
}

impl Refusals {
    /// A peer that we dialled closed the connection without a handshake.
    pub fn handle_closed(&mut self, now: Instant, addr: SocketAddr) {
        if self.closed.len() < ADDR_MAX && self.closed.insert(addr) {
            self.plan(now);
        }
    }

    /// A connection from this address began with what looks like encryption.
    pub fn handle_encrypted(&mut self, now: Instant, ip: IpAddr) {
        if self.encrypted.len() < ADDR_MAX && self.encrypted.insert(ip) {
            self.plan(now);
        }
    }

    /// When to call [`Refusals::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tell_at
    }

    /// Time passed; what the user is to be told, if anything.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Refused> {
        self.tell_at.take_if(|at| *at <= now)?;
        let refused = self.refused();
        self.told = Some((refused.count, now));
        Some(refused)
    }

    fn plan(&mut self, now: Instant) {
        let due_at = match self.told {
            None => Some(now + TELL_AFTER),
            Some((count, at)) => {
                (self.refused().count >= 2 * count).then(|| (now + TELL_AFTER).max(at + TELL_PAUSE))
            }
        };
        self.tell_at = self.tell_at.or(due_at);
    }

    fn refused(&self) -> Refused {
        let dialled: BTreeSet<IpAddr> = self.closed.iter().map(SocketAddr::ip).collect();
        let evidence = if dialled.is_empty() {
            Evidence::Encrypted
        } else if dialled.is_subset(&self.encrypted) {
            Evidence::Both
        } else {
            Evidence::Closed
        };
        Refused { count: self.closed.len() + self.encrypted.difference(&dialled).count(), evidence }
    }
}

/// Whether the beginning of a connection looks like encryption (MSE): a public key of 96 bytes,
/// which look random.
pub fn looks_encrypted(bytes: &[u8; HANDSHAKE_LEN]) -> bool {
    /// Of 68 random bytes 60 differ and 34 are no ASCII; so few are seen once in hundreds of
    /// thousands.
    const DISTINCT_MIN: usize = 48;
    const BEYOND_ASCII_MIN: usize = 14;
    // A TLS record has random bytes, too.
    let is_tls = bytes.starts_with(&[0x16, 0x03]);
    let distinct = bytes.iter().collect::<BTreeSet<_>>().len();
    let beyond_ascii = bytes.iter().filter(|byte| !byte.is_ascii()).count();
    !is_tls && distinct >= DISTINCT_MIN && beyond_ascii >= BEYOND_ASCII_MIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rng::Rng;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn addr(number: usize) -> SocketAddr {
        SocketAddr::from(([8, 8, (number >> 8) as u8, number as u8], 6_881))
    }

    /// What is told until then, with the seconds at which.
    fn told(refusals: &mut Refusals, until: u64) -> Vec<(u64, Refused)> {
        let mut told = Vec::new();
        while let Some(due_at) = refusals.poll_timeout().filter(|&due_at| due_at <= at(until)) {
            let refused = refusals.handle_timeout(due_at);
            told.extend(refused.map(|refused| (due_at.as_micros() / 1_000_000, refused)));
        }
        told
    }

    #[test]
    fn the_first_ones_are_told_together_and_then_only_when_there_are_twice_as_many() {
        let mut refusals = Refusals::default();
        for (number, secs) in [(1, 10), (2, 11), (2, 12), (3, 14)] {
            refusals.handle_closed(at(secs), addr(number));
            assert_eq!(told(&mut refusals, secs), []);
        }
        let refused = |count| Refused { count, evidence: Evidence::Closed };
        assert_eq!(told(&mut refusals, 20), [(15, refused(3))]);
        (1..6).for_each(|number| refusals.handle_closed(at(30), addr(number)));
        assert_eq!(refusals.poll_timeout(), None, "fewer than twice as many");
        (6..9).for_each(|number| refusals.handle_closed(at(40), addr(number)));
        assert_eq!(told(&mut refusals, 1_000), [(75, refused(8))], "a minute after the first time");
        // However many there are, the lines are few and the memory is bounded.
        for number in 0..60_000 {
            refusals.handle_closed(at(2_000 + number as u64), addr(number));
        }
        assert!(told(&mut refusals, 100_000).len() <= 8);
        assert_eq!(refusals.closed.len(), ADDR_MAX);
    }

    #[test]
    fn only_those_who_encrypt_themselves_are_known_to_require_it() {
        let mut refusals = Refusals::default();
        refusals.handle_encrypted(at(0), addr(1).ip());
        assert_eq!(told(&mut refusals, 9), [(5, Refused { count: 1, evidence: Evidence::Encrypted })]);
        refusals.handle_closed(at(10), addr(1));
        refusals.handle_closed(at(10), addr(2));
        refusals.handle_encrypted(at(10), addr(3).ip());
        assert_eq!(told(&mut refusals, 99), [(65, Refused { count: 3, evidence: Evidence::Closed })]);
        refusals.handle_encrypted(at(200), addr(2).ip());
        (4..7).for_each(|number| refusals.handle_encrypted(at(200), addr(number).ip()));
        assert_eq!(told(&mut refusals, 999), [(205, Refused { count: 6, evidence: Evidence::Both })]);
    }

    #[test]
    fn a_public_key_is_told_from_other_protocols() {
        let mut rng = Rng::from_number(1);
        let mut key = [0; HANDSHAKE_LEN];
        for _ in 0..10_000 {
            rng.fill(&mut key);
            assert!(looks_encrypted(&key) || key.starts_with(&[0x16, 0x03]));
        }
        for text in
            ["GET /announce HTTP/1.1\r\nHost: tracker\r\n", "SSH-2.0-OpenSSH_9.2\r\n", "\0", "\u{fffd}ab"]
        {
            let bytes: Vec<u8> = text.bytes().cycle().take(HANDSHAKE_LEN).collect();
            assert!(!looks_encrypted(&bytes.try_into().unwrap()), "{text}");
        }
        key[..2].copy_from_slice(&[0x16, 0x03]);
        assert!(!looks_encrypted(&key), "TLS");
    }
}
