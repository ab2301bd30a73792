//! Every rule of every protocol, as pure state machines and codecs.
//!
//! Nothing below here opens a socket or a file, reads a clock, draws entropy, spawns, locks or
//! awaits: time and randomness are arguments. The shells (`engine` on real sockets, `sim` in
//! virtual time, the tracker binary) move what the machines decide.
//!
//! The contract of every machine:
//!
//! ```text
//! fn handle_<input>(&mut self, now: Instant, ...) -> Result<(), Error>   // the only mutators
//! fn poll_output(&mut self) -> Option<Output>    // drain to None after each mutation
//! fn poll_timeout(&self) -> Option<Instant>    // None: nothing to wait for
//! fn handle_timeout(&mut self, now: Instant)
//! ```

pub mod bandwidth;
pub mod bencode;
pub mod bitfield;
pub mod block;
pub mod compact;
pub mod connection;
pub mod crc32c;
pub mod dht;
pub mod discovery;
pub mod infohash;
pub mod lsd;
pub mod metainfo;
pub mod peer;
pub mod peer_id;
pub mod piece;
pub mod rate;
pub mod rng;
pub mod scope;
pub mod session;
pub mod time;
pub mod torrent;
pub mod tracker;
pub mod utp;
pub mod wire;
