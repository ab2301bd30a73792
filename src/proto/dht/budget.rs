//! What answering may cost: queries by prefix, and bytes in all, so that nobody can use us against a third.
//!
//! 10 queries a second of one /24 or /64 (in bursts of some seconds) and 16 kB of answers a second; prefixes are
//! counted in a table of fixed size where the longest silent makes room. Local addresses share only the bytes.
//! Datagrams beyond a budget are dropped, not answered, and nobody is banned for them: their source may be forged.

use std::net::IpAddr;

use crate::proto::time::Instant;

/// The books.
#[derive(Debug)]
pub struct Budget {
    _private: (),
}

impl Budget {
    /// Full.
    pub fn new(now: Instant) -> Self {
        let _ = now;
        todo!()
    }

    /// Whether a query from this address may be looked at; counts it.
    pub fn admit(&mut self, now: Instant, from: IpAddr) -> bool {
        let _ = (now, from);
        todo!()
    }

    /// Whether an answer of so many bytes may leave; counts it.
    pub fn spend(&mut self, now: Instant, len: usize) -> bool {
        let _ = (now, len);
        todo!()
    }
}
