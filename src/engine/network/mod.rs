//! Connections with peers, from the listening socket or the dial to the buffers of blocks, and what
//! all sockets share.

pub(crate) mod connection;
pub(crate) mod handshake;
pub(crate) mod listen;
pub(crate) mod multicast;
pub(crate) mod ourselves;
pub(crate) mod pool;
pub(crate) mod receive;
pub(crate) mod send;
pub(crate) mod web;
