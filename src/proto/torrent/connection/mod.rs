//! Connections of a torrent: who is connected, what peers say, and what they are told.

pub(crate) mod connections;
pub(crate) mod have_batch;
pub(crate) mod messages;
pub(crate) mod outbox;
pub(crate) mod pex;
