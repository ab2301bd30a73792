//! The defence of routing and lookups against Sybil and eclipse attacks.
//!
//! [`prefix`] says what counts as one host or one network, [`quota`] bounds a network's share of a store.

pub(super) mod prefix;
pub(super) mod quota;
