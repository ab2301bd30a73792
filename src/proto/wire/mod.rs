//! The peer wire protocol: codecs that do not know why a message is sent.

pub mod decoder;
pub mod extension;
pub mod handshake;
pub mod message;
pub mod sp_have;
