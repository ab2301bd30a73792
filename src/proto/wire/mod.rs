//! The peer wire protocol (BEP 3, 6, 10): codecs that do not know why a message is sent.
//!
//! Every decoder here is total: any bytes give a value, "more is needed" or a typed error. What can
//! be built can be encoded, and what was encoded decodes to the same value.

pub mod allowed_fast;
pub mod decoder;
pub mod dont_have;
pub mod extension;
pub mod handshake;
pub mod message;
pub mod metadata;
pub mod pex;
pub mod sp_have;
