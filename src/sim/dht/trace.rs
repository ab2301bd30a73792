//! The trace of a run: a digest of all that happened, in its order, and how much it was.

use super::super::content::mix;
use super::network::HostId;
use crate::proto::time::Instant;

/// The trace.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// Equal for equal runs.
    pub(super) digest: u64,
    /// Events handled.
    pub(super) events: u64,
    /// Datagrams sent.
    pub(super) datagrams: u64,
}

impl Trace {
    /// Something happens: when, of which kind, to whom.
    pub(super) fn event(&mut self, now: Instant, kind: u64, what: u32) {
        self.events += 1;
        self.note(now.as_micros() << 4 | kind);
        self.note(u64::from(what));
    }

    /// A datagram comes to a host.
    pub(super) fn delivery(&mut self, to: HostId, bytes: &[u8]) {
        self.note(mix(digest(bytes), to as u64));
    }

    fn note(&mut self, value: u64) {
        self.digest = mix(self.digest, value);
    }
}

/// A few operations for each eight bytes: datagrams are many.
fn digest(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let tail = rest.iter().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
    let stir = |state: u64, word: u64| (state.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    words.iter().map(|word| u64::from_le_bytes(*word)).fold(stir(tail, bytes.len() as u64), stir)
}
