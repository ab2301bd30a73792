//! Limits how often a peer may name others: PEX (BEP 11) and its DHT node (BEP 5).

use crate::proto::time::{Duration, Instant};

/// Least mean time between PEX messages. BEP 11 allows one a minute; ten seconds are for network
/// delays. More frequent ones are faults and not read.
const GOSSIP_SPACING: Duration = Duration::from_secs(50);
/// Most by which a message may come too early: some clients send their first two together.
const GOSSIP_EARLY_MAX: Duration = GOSSIP_SPACING;
/// Least time between two PORT messages that are read on one connection. No client moves its node
/// so often, and each message costs a ping.
const PORT_SPACING: Duration = Duration::from_secs(300);

/// When a peer may name others again.
#[derive(Debug)]
pub struct Pace {
    /// When the next PEX message is due.
    gossip_at: Instant,
    /// When the next PORT message is read.
    port_at: Instant,
}

impl Pace {
    /// Creates it without messages.
    pub fn new(now: Instant) -> Self {
        Self { gossip_at: now, port_at: now }
    }

    /// Whether a PEX message may be read now.
    pub fn takes_gossip(&mut self, now: Instant) -> bool {
        let due_at = self.gossip_at.max(now);
        let takes = due_at - now <= GOSSIP_EARLY_MAX;
        if takes {
            self.gossip_at = due_at + GOSSIP_SPACING;
        }
        takes
    }

    /// Whether a PORT message may be read now.
    pub fn takes_port(&mut self, now: Instant) -> bool {
        let takes = self.port_at <= now;
        if takes {
            self.port_at = now + PORT_SPACING;
        }
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gossip_is_read_once_a_minute_and_the_first_two_together() {
        let secs = |secs: u64| Instant::from_micros(secs * 1_000_000);
        let mut pace = Pace::new(secs(9));
        assert!(pace.takes_gossip(secs(10)) && pace.takes_gossip(secs(10)));
        assert!(!pace.takes_gossip(secs(10)) && !pace.takes_gossip(secs(59)));
        assert!((1..100).all(|minute| pace.takes_gossip(secs(10 + 60 * minute))));
        let (mut pace, mut taken) = (Pace::new(secs(0)), 0);
        (0..6_000).for_each(|second| taken += u32::from(pace.takes_gossip(secs(second))));
        assert!((100..=122).contains(&taken), "{taken}");
    }

    #[test]
    fn port_messages_are_read_once_in_a_while() {
        let mut pace = Pace::new(Instant::ZERO);
        assert!(pace.takes_port(Instant::ZERO) && !pace.takes_port(Instant::ZERO + Duration::from_secs(299)));
        assert!(pace.takes_port(Instant::ZERO + Duration::from_secs(300)));
    }
}
