//! A NAT with one host behind it (RFC 4787): which port others see, and which datagrams come in.
//!
//! What the host writes opens a session for each destination, and only what it writes keeps it open
//! (REQ-6).

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// First of the ports that a NAT gives out.
const PORT_MIN: u16 = 1_024;
/// Sessions are looked through for old ones when there are so many, and then again at twice those
/// left.
const SESSION_SWEEP_COUNT: usize = 64;

/// How it maps and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One port for all destinations; anybody may write to it ("full cone").
    Open,
    /// One port for all destinations; only who was written to may answer, from that address and
    /// port.
    Filtering,
    /// Another port for each destination, which alone may answer ("symmetric").
    PerDestination,
}

/// The NAT.
#[derive(Debug)]
pub(super) struct Nat {
    kind: Kind,
    /// How long a session lasts after the host's last datagram.
    lifetime: Duration,
    /// The port of the first two kinds, and until when it is theirs.
    port: (u16, Instant),
    /// By remote address and port.
    sessions: BTreeMap<u64, Session>,
    sweep_count: usize,
    rng: Rng,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    port: u16,
    ends_at: Instant,
}

impl Nat {
    /// One of the kinds that there are, with a lifetime of two to five minutes (REQ-5).
    pub(super) fn draw(mut rng: Rng) -> Self {
        let kind = match rng.below(20) {
            0..14 => Kind::Filtering,
            14..17 => Kind::PerDestination,
            _ => Kind::Open,
        };
        let lifetime = Duration::from_secs(120 + rng.below(181) as u64);
        Self::new(kind, lifetime, rng)
    }

    fn new(kind: Kind, lifetime: Duration, mut rng: Rng) -> Self {
        let port = (draw_port(&mut rng), Instant::ZERO);
        Self { kind, lifetime, port, sessions: BTreeMap::new(), sweep_count: SESSION_SWEEP_COUNT, rng }
    }

    /// The host writes: the port that the receiver sees.
    pub(super) fn outgoing(&mut self, now: Instant, to: SocketAddrV4) -> u16 {
        self.sweep(now);
        if self.port.1 < now {
            self.port.0 = draw_port(&mut self.rng);
        }
        let ends_at = now + self.lifetime;
        self.port.1 = ends_at;
        let key = key(to);
        let port = match self.kind {
            Kind::Open => return self.port.0,
            Kind::Filtering => self.port.0,
            Kind::PerDestination => match self.sessions.get(&key) {
                Some(session) if session.ends_at >= now => session.port,
                Some(_) | None => draw_port(&mut self.rng),
            },
        };
        self.sessions.insert(key, Session { port, ends_at });
        port
    }

    /// Whether a datagram to this port comes through to the host.
    pub(super) fn lets_in(&self, now: Instant, from: SocketAddrV4, port: u16) -> bool {
        match self.kind {
            Kind::Open => self.port.0 == port && self.port.1 >= now,
            Kind::Filtering | Kind::PerDestination => self
                .sessions
                .get(&key(from))
                .is_some_and(|session| session.port == port && session.ends_at >= now),
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self.sessions.len() >= self.sweep_count {
            self.sessions.retain(|_, session| session.ends_at >= now);
            self.sweep_count = SESSION_SWEEP_COUNT.max(2 * self.sessions.len());
        }
    }
}

fn key(addr: SocketAddrV4) -> u64 {
    u64::from(addr.ip().to_bits()) << 16 | u64::from(addr.port())
}

fn draw_port(rng: &mut Rng) -> u16 {
    PORT_MIN + rng.below(usize::from(u16::MAX - PORT_MIN)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTES: Duration = Duration::from_secs(180);

    fn addr(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    fn nat(kind: Kind) -> Nat {
        Nat::new(kind, MINUTES, Rng::from_number(3))
    }

    #[test]
    fn a_filtering_nat_lets_in_whom_the_host_wrote_to_and_nobody_else() {
        let mut nat = nat(Kind::Filtering);
        let (friend, now) = (addr("1.2.3.4:5"), Instant::from_micros(1_000_000));
        let port = nat.outgoing(now, friend);
        assert!(nat.lets_in(now, friend, port));
        assert!(!nat.lets_in(now, friend, port + 1), "another port");
        assert!(!nat.lets_in(now, addr("1.2.3.4:6"), port), "the friend's other port");
        assert!(!nat.lets_in(now, addr("9.9.9.9:5"), port), "a stranger");
        assert_eq!(nat.outgoing(now, addr("9.9.9.9:5")), port, "one port for all");
        assert!(nat.lets_in(now, addr("9.9.9.9:5"), port));
    }

    #[test]
    fn sessions_end_unless_the_host_writes() {
        let mut nat = nat(Kind::Filtering);
        let (friend, other) = (addr("1.2.3.4:5"), addr("5.6.7.8:9"));
        let mut now = Instant::from_micros(1_000_000);
        let port = nat.outgoing(now, friend);
        now += MINUTES;
        assert!(nat.lets_in(now, friend, port));
        assert_eq!(nat.outgoing(now, other), port);
        now += Duration::from_secs(1);
        assert!(!nat.lets_in(now, friend, port), "not written to for too long");
        assert!(nat.lets_in(now, other, port));
        now += MINUTES;
        assert_ne!(nat.outgoing(now, friend), port, "the mapping itself is gone");
    }

    #[test]
    fn a_symmetric_nat_has_a_port_for_each_destination_and_an_open_one_for_all_the_world() {
        let now = Instant::from_micros(1_000_000);
        let mut symmetric = nat(Kind::PerDestination);
        let [one, other] = [addr("1.2.3.4:5"), addr("5.6.7.8:9")];
        let ports = [symmetric.outgoing(now, one), symmetric.outgoing(now, other)];
        assert_ne!(ports[0], ports[1]);
        assert!(symmetric.lets_in(now, one, ports[0]) && !symmetric.lets_in(now, one, ports[1]));
        let mut open = nat(Kind::Open);
        let port = open.outgoing(now, one);
        assert!(open.lets_in(now, addr("9.9.9.9:9"), port));
    }

    #[test]
    fn old_sessions_are_forgotten() {
        let mut nat = nat(Kind::Filtering);
        for second in 0..100_000_u32 {
            let to = SocketAddrV4::new((0x0100_0000 + second).into(), 1);
            let _ = nat.outgoing(Instant::ZERO + Duration::from_secs(second.into()), to);
        }
        assert!(nat.sessions.len() < 1_000, "{}", nat.sessions.len());
    }
}
