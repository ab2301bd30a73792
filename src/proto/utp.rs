//! Refuses uTP connections (BEP 29), which are not supported: answers a SYN by a RESET, so that a
//! client which tries uTP first turns to TCP at once instead of waiting.
//!
//! Invariants: only a valid SYN is answered; the answer is never longer than the SYN, so a forged
//! source gains nothing; each prefix and all together get no more answers than the budget allows.

use std::net::SocketAddr;

use super::dht::budget::Budget;
use super::rng::Rng;
use super::time::Instant;

/// Length of a packet without extensions, bytes.
pub const HEADER_LEN: usize = 20;
/// Type and version, the first byte of a packet: `ST_SYN` and `ST_RESET` of version 1.
const SYN: u8 = 0x41;
const RESET: u8 = 0x31;

/// Answers connection attempts.
#[derive(Debug)]
pub struct Refuser {
    budget: Budget,
}

impl Refuser {
    /// Creates it; the secret of its budget is drawn from `rng`.
    pub fn new(rng: Rng, now: Instant) -> Self {
        Self { budget: Budget::new(rng, now) }
    }

    /// Returns the answer to a datagram; `None` if it is no SYN, or the budget is used up.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<[u8; HEADER_LEN]> {
        let header = syn(bytes)?;
        let is_within = self.budget.admit(now, from.ip()) && self.budget.spend(now, HEADER_LEN);
        is_within.then(|| reset(now, header))
    }
}

/// Returns the header of a valid SYN: complete extensions, and nothing after them.
fn syn(bytes: &[u8]) -> Option<&[u8; HEADER_LEN]> {
    let (header, mut rest) = bytes.split_first_chunk::<HEADER_LEN>()?;
    let mut extension = header[1];
    while extension != 0 {
        let (&[next, len], after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(len)..)?;
        extension = next;
    }
    (header[0] == SYN && rest.is_empty()).then_some(header)
}

/// Returns a RESET of the connection that a SYN would open, with the connection id at which its
/// sender receives, and its sequence number acknowledged.
fn reset(now: Instant, syn: &[u8; HEADER_LEN]) -> [u8; HEADER_LEN] {
    let timestamp = now.as_micros() as u32;
    let sent_at = u32::from_be_bytes([syn[4], syn[5], syn[6], syn[7]]);
    let mut bytes = [0; HEADER_LEN];
    bytes[0] = RESET;
    bytes[2..4].copy_from_slice(&syn[2..4]);
    bytes[4..8].copy_from_slice(&timestamp.to_be_bytes());
    bytes[8..12].copy_from_slice(&timestamp.wrapping_sub(sent_at).to_be_bytes());
    bytes[18..20].copy_from_slice(&syn[16..18]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A SYN followed by these extension bytes; `first` is the type of the first extension.
    fn packet(first: u8, extensions: &[u8]) -> Vec<u8> {
        let mut bytes = vec![SYN, first, 0x12, 0x34, 0, 0, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0xab, 0xcd, 0, 0];
        bytes.extend_from_slice(extensions);
        bytes
    }

    #[test]
    fn a_syn_is_reset_and_nothing_else_is_answered() {
        let now = Instant::from_micros(1_000_007);
        let mut refuser = Refuser::new(Rng::from_number(1), now);
        let mut answer = |bytes: &[u8]| refuser.handle_datagram(now, addr("10.0.0.1:5"), bytes);
        let expected =
            [0x31, 0, 0x12, 0x34, 0, 0xf, 0x42, 0x47, 0, 0xf, 0x42, 0x40, 0, 0, 0, 0, 0, 0, 0xab, 0xcd];
        assert_eq!(answer(&packet(0, &[])), Some(expected));
        // Extensions: close reason (3) of four bytes, then extension bits (2) of eight.
        let extended = packet(3, &[2, 4, 0, 0, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(answer(&extended), Some(expected));
        for len in 0..extended.len() {
            assert_eq!(answer(&extended[..len]), None, "cut to {len}");
        }
        assert_eq!(answer(&packet(0, &[0])), None, "a SYN carries no data");
        for first in (0..=255).filter(|&first| first != SYN) {
            let mut other = packet(0, &[]);
            other[0] = first;
            assert_eq!(answer(&other), None, "{first:#x}: data, a state, a reset, another version");
        }
    }

    #[test]
    fn a_forged_source_gets_few_answers_no_longer_than_the_datagrams() {
        let mut now = Instant::ZERO;
        let mut refuser = Refuser::new(Rng::from_number(1), now);
        let (mut received, mut answered) = (0, 0);
        for number in 0..100_000_u32 {
            now = Instant::from_micros(u64::from(number) * 100);
            let from = addr(&format!("8.8.8.{}:{}", number % 256, 1 + number % 60_000));
            let bytes = packet(0, &[]);
            received += bytes.len();
            answered += refuser.handle_datagram(now, from, &bytes).map_or(0, |answer| answer.len());
        }
        assert!(answered <= received / 10 && answered <= 20 * (50 + 10 * 11), "{answered} bytes in 10 s");
        assert!(answered >= 20 * 100);
    }
}
