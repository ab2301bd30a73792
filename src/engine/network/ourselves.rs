//! Where this process reached itself.
//!
//! Trackers and the DHT name each seed to itself, and nothing but a handshake tells whose address
//! it is. What one torrent found out by dialling, thousands of others need not.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::proto::time::{Duration, Instant};

/// Addresses remembered; for a new one the oldest is forgotten. A host has few.
const KNOWN_MAX: usize = 16;
/// How long one is believed: a laptop that moves leaves its addresses to others.
const BELIEVED_FOR: Duration = Duration::from_secs(1_800);

/// Our own addresses, as far as found out. The lock is held to look through them.
#[derive(Debug, Default)]
pub(crate) struct Ourselves {
    known: Mutex<VecDeque<(SocketAddr, Instant)>>,
}

impl Ourselves {
    fn known(&self) -> MutexGuard<'_, VecDeque<(SocketAddr, Instant)>> {
        // Entries come and go whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who was dialled there were we.
    pub(crate) fn add(&self, now: Instant, addr: SocketAddr) {
        let mut known = self.known();
        known.retain(|&(other, at)| other != addr && now - at < BELIEVED_FOR);
        if known.len() == KNOWN_MAX {
            known.pop_front();
        }
        known.push_back((addr, now));
    }

    /// Takes out those that are us.
    pub(crate) fn strike(&self, now: Instant, addrs: &mut Vec<SocketAddr>) {
        let known = self.known();
        addrs.retain(|addr| !known.iter().any(|&(ours, at)| ours == *addr && now - at < BELIEVED_FOR));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_is_believed_for_a_while() {
        let ourselves = Ourselves::default();
        let addrs: Vec<SocketAddr> = (1..=20).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect();
        let start = Instant::from_micros(1_000_000);
        ourselves.add(start, addrs[0]);
        let struck = |now| {
            let mut left = addrs.clone();
            ourselves.strike(now, &mut left);
            addrs.len() - left.len()
        };
        assert_eq!((struck(start), struck(start + BELIEVED_FOR)), (1, 0));
        for &addr in addrs.iter().chain(&addrs) {
            ourselves.add(start, addr);
        }
        assert_eq!(struck(start), KNOWN_MAX);
    }
}
