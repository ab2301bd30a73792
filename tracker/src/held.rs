//! Bytes that HTTP connections keep between two events: parts of request heads, and answers that a
//! socket has not accepted yet. Their sum is bounded for the process, so that memory does not grow
//! with clients that send partial requests or do not read.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Most bytes that all connections keep together: heads of 4 KiB of 8,192 connections. At the limit
/// a connection that would keep more is closed; complete requests, as nearly all clients send them,
/// keep nothing.
pub(crate) const HELD_LEN_MAX: usize = 32 << 20;

/// The sum of the bytes that all connections keep.
#[derive(Debug, Default)]
pub(crate) struct HeldLen(AtomicUsize);

/// The bytes that one connection keeps, in an allocation of exactly their length.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    sum: &'a HeldLen,
    bytes: Box<[u8]>,
}

impl<'a> Held<'a> {
    /// Creates it empty, without an allocation.
    pub(crate) fn new(sum: &'a HeldLen) -> Self {
        Self { sum, bytes: Box::default() }
    }

    /// Returns the kept bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Keeps these bytes instead of the earlier ones. False if all connections would exceed
    /// [`HELD_LEN_MAX`] together; then this one keeps nothing.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> bool {
        self.clear();
        let with = |sum: usize| Some(sum + bytes.len()).filter(|&sum| sum <= HELD_LEN_MAX);
        let fits = self.sum.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, with).is_ok();
        if fits {
            self.bytes = bytes.into();
        }
        fits
    }

    /// Drops the kept bytes.
    pub(crate) fn clear(&mut self) {
        self.sum.0.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.bytes = Box::default();
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_bounded_and_dropped_bytes_make_room() {
        let sum = HeldLen::default();
        let (mut first, mut second) = (Held::new(&sum), Held::new(&sum));
        assert!(first.keep(&vec![1; HELD_LEN_MAX - 1]) && second.keep(b"2"));
        assert!(second.keep(b"3") && second.bytes() == b"3", "in the place of the earlier byte");
        assert!(!second.keep(b"45") && second.bytes().is_empty());
        assert!(first.keep(b"") && second.keep(&vec![6; HELD_LEN_MAX]) && !first.keep(b"7"));
        drop(second);
        assert!(first.keep(&vec![8; HELD_LEN_MAX]));
    }
}
