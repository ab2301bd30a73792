//! Every channel of the engine: its capacity, and what happens when it is full.
//!
//! The rule against deadlock: a connection may wait for its torrent (that is the back-pressure that
//! reaches the sender's socket); a torrent never waits for a connection, the supervisor or the
//! disk.

/// Connection to torrent: batches of at most [`RECEIVE_BATCH_MAX`] received blocks and messages,
/// reports of sent blocks, the end of a connection. Full: the connection waits and its socket is
/// not read. What the batches hold is bounded in bytes by `pool`.
pub(crate) const INBOX: usize = 256;

/// Torrent to connection: messages and blocks to send. Full: the peer has not taken anything for as
/// many messages and is disconnected. Takes memory only for what is queued.
pub(crate) const OUTBOX: usize = 4096;

/// User, listener and supervisor to torrent (`mailbox`): commands and accepted connections. Full:
/// they wait. The torrent reads it even while the disk makes it leave its inbox alone.
pub(crate) const CONTROL: usize = 64;

/// Engine and torrents to supervisor: added torrents, demands. Full: an add waits, a demand is told
/// an interval later.
pub(crate) const SUPERVISOR: usize = 256;

/// Torrent to UDP socket: announces. Full: the announce waits, in a task of its own.
pub(crate) const UDP_REQUEST: usize = 64;

/// Torrents and users to the DHT node: requests and hints. Full: a request waits in its task, a
/// hint is lost.
pub(crate) const DHT_REQUEST: usize = 256;

/// DHT node to whoever asked: findings. Full: peers are lost, for a lookup finds the same again and
/// again; the end is told by closing.
pub(crate) const FOUND: usize = 64;

/// Torrents to the task of the local network: which run. Full: they wait, in a task of their own.
pub(crate) const LSD_REQUEST: usize = 256;

/// Torrent to each reader of its events. Full: the oldest are dropped and the reader is told how
/// many. Takes memory only for what is kept, and nothing is kept for nobody.
pub(crate) const EVENT: usize = 256;

/// Most received blocks and messages told at once: 32 blocks are half a MiB, a wake-up every few
/// hundred microseconds at 10 Gbit/s.
pub(crate) const RECEIVE_BATCH_MAX: usize = 32;
