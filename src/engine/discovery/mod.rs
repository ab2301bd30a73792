//! The tasks that carry what [`crate::proto::discovery`] asks: to trackers by HTTP and UDP, to the
//! DHT, and to the local network. Torrents share them.

pub mod dht;
pub(crate) mod dht_host;
pub(crate) mod http;
pub(crate) mod lsd;
pub(crate) mod turns;
pub(crate) mod udp;
