//! Addresses of peers: which are known, which are dialled when, and which refuse.

pub mod candidates;
pub(crate) mod dialer;
pub mod refusals;
