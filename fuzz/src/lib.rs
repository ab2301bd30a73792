//! The fuzz targets: functions that take any bytes, and panic if a decoder or a machine breaks a
//! promise. libFuzzer calls them (`fuzz_targets`), and the tests of the simulator do with the
//! corpora that are kept.

mod announcer;
mod bencoding;
mod dht;
mod discovery;
mod input;
mod journal;
mod metadata;
mod timer;
mod torrent;
mod tracker;
mod trackers;
mod wire;

/// A target.
pub type Target = fn(&[u8]);

/// Every target, by name: that of its corpus and of its program.
pub const TARGETS: [(&str, Target); 16] = [
    ("addresses", discovery::addresses),
    ("announcer", announcer::announcer),
    ("bencode", bencoding::bencode),
    ("dht", dht::dht),
    ("extension", wire::extension),
    ("http_tracker", trackers::http_tracker),
    ("journal", journal::journal),
    ("krpc", discovery::krpc),
    ("lsd", discovery::lsd),
    ("magnet", bencoding::magnet),
    ("metadata", metadata::metadata),
    ("metainfo", bencoding::metainfo),
    ("torrent", torrent::torrent),
    ("tracker", tracker::tracker),
    ("udp_tracker", trackers::udp_tracker),
    ("wire", wire::wire),
];

/// Runs the target of this name.
///
/// # Panics
/// There is none, or a promise is broken.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(of, _)| *of == name).expect("a target of this name");
    target(bytes);
}
