//! What was typed behind `sprat dht`: its commands, and what each of their arguments may look like.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::args::BootstrapArgs;
use super::size::parse_duration;
use crate::engine::metainfo::magnet::is_magnet;
use crate::engine::{InfoHash, Magnet};

/// Ask the DHT, or be a node of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sprat dht peers 50a96681f9854639985a9007b9131206269a0561
  sprat dht node --port 6881 --json
  sprat dht put 'Hello' --key-file my.key        prints the key by which others get it
  sprat dht get KEY")]
pub(crate) struct DhtArgs {
    #[command(subcommand)]
    pub(crate) command: DhtCommand,
}

impl DhtArgs {
    /// Whether it is the command that runs until it is told to stop.
    pub(crate) fn is_node(&self) -> bool {
        matches!(self.command, DhtCommand::Node(_))
    }
}

/// What to do with the DHT.
#[derive(Debug, Subcommand)]
pub(crate) enum DhtCommand {
    /// Be a node, for others to begin at, until told to stop
    Node(NodeArgs),
    /// Print the peers of a torrent
    Peers(PeersArgs),
    /// Tell the DHT that a torrent has a peer on this machine
    Announce(AnnounceArgs),
    /// Print an item
    Get(GetArgs),
    /// Store an item: under its hash, or with --key-file under a key
    Put(PutArgs),
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// UDP port; 0: any [default: 6881, or any if that is taken]
    #[arg(short, long, env = "SPRAT_PORT", hide_env = true)]
    pub(crate) port: Option<u16>,
    /// How often figures are printed
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_every)]
    pub(crate) every: Duration,
    #[command(flatten)]
    pub(crate) bootstrap: BootstrapArgs,
}

/// A question, asked by a node that leaves afterwards.
#[derive(Clone, Debug, Args)]
pub(crate) struct AskArgs {
    /// Longest time for it all
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) bootstrap: BootstrapArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PeersArgs {
    /// An infohash or a magnet link
    #[arg(value_name = "INFOHASH", value_parser = parse_infohash)]
    pub(crate) infohash: InfoHash,
    /// Estimate too how many seeds and downloaders there are
    #[arg(long)]
    pub(crate) scrape: bool,
    /// UDP port to ask from; 0: any
    #[arg(short, long, default_value_t = 0)]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AnnounceArgs {
    /// An infohash or a magnet link
    #[arg(value_name = "INFOHASH", value_parser = parse_infohash)]
    pub(crate) infohash: InfoHash,
    /// Where the peer takes connections
    #[arg(short, long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// The peer is complete
    #[arg(long)]
    pub(crate) seed: bool,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// 40 hexadecimal digits: an item's hash; 64: a public key, with a salt behind a colon if it
    /// has one
    #[arg(value_name = "TARGET|KEY[:SALT]", value_parser = parse_item_name)]
    pub(crate) name: ItemName,
    /// Print the sequence number in front of a mutable item
    #[arg(long)]
    pub(crate) seq: bool,
    /// UDP port to ask from; 0: any
    #[arg(short, long, default_value_t = 0)]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    /// What to store, as text: at most 996 bytes
    pub(crate) value: String,
    /// Store it under the key in this file, replacing what was there; the file is made if it is
    /// missing
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Tells apart the items of one key
    #[arg(long, requires = "key_file", default_value = "", hide_default_value = true)]
    pub(crate) salt: String,
    /// Number of this version; higher replaces lower [default: one more than what is there]
    #[arg(long, value_name = "N", requires = "key_file", allow_negative_numbers = true)]
    pub(crate) seq: Option<i64>,
    /// Replace only the version with this number
    #[arg(long, value_name = "N", requires = "key_file", allow_negative_numbers = true)]
    pub(crate) cas: Option<i64>,
    /// UDP port to ask from; 0: any
    #[arg(short, long, default_value_t = 0)]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) ask: AskArgs,
}

/// What an item is asked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ItemName {
    /// The hash of an immutable item.
    Hash([u8; 20]),
    /// Key and salt of a mutable one.
    Key([u8; 32], String),
}

/// Shortest interval of figures: below it, printing them is the node's main work.
const EVERY_MIN: Duration = Duration::from_millis(100);

fn parse_every(text: &str) -> Result<Duration, String> {
    let every = parse_duration(text)?;
    if every < EVERY_MIN { Err("it is at least 100ms".to_owned()) } else { Ok(every) }
}

/// An infohash, or that of a magnet link; of a v2 torrent the first 20 bytes, as the DHT knows it
/// (BEP 52).
fn parse_infohash(text: &str) -> Result<InfoHash, String> {
    if is_magnet(text) {
        let magnet: Magnet = text.parse().map_err(|error| format!("{error}"))?;
        let truncated = magnet.infohash_v2.and_then(|hash| hash.first_chunk().copied().map(InfoHash));
        return magnet.infohash.or(truncated).ok_or_else(|| "the magnet link has no infohash".to_owned());
    }
    text.parse().map_err(|_| {
        let wrong = match text.chars().count() {
            32 | 40 => "this one has other characters".to_owned(),
            count => format!("this one has {count} characters"),
        };
        format!("an infohash is 40 hexadecimal digits or 32 base32 letters, and {wrong}")
    })
}

fn parse_item_name(text: &str) -> Result<ItemName, String> {
    let (digits, salt) = text.split_once(':').unwrap_or((text, ""));
    if let (Some(hash), false) = (parse_hex(digits), text.contains(':')) {
        return Ok(ItemName::Hash(hash));
    }
    if let Some(key) = parse_hex(digits) {
        return Ok(ItemName::Key(key, salt.to_owned()));
    }
    Err("an item is named by 40 hexadecimal digits, or by a key of 64 and, behind a colon, a salt".to_owned())
}

/// Exactly `N` bytes as hexadecimal digits, either case.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |at: usize| char::from(digits[at]).to_digit(16);
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(digit(2 * at)? << 4 | digit(2 * at + 1)?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_infohash_says_why() {
        let hex = "50a96681f9854639985a9007b9131206269a0561";
        assert_eq!(parse_infohash(hex), Ok(hex.parse().unwrap()));
        assert_eq!(parse_infohash(&format!("magnet:?xt=urn:btih:{hex}")), Ok(hex.parse().unwrap()));
        assert!(parse_infohash(&hex[1..]).unwrap_err().contains("39 characters"));
        assert!(parse_infohash(&hex.replace('a', "g")).unwrap_err().contains("other characters"));
        assert!(parse_infohash("magnet:?dn=x").is_err() && parse_infohash("").is_err());
        let v2 = format!("magnet:?xt=urn:btmh:1220{}", "ab".repeat(32));
        assert_eq!(parse_infohash(&v2), Ok(InfoHash([0xab; 20])));
    }

    #[test]
    fn items_are_named_by_hash_or_by_key_and_salt() {
        assert_eq!(parse_item_name(&"01".repeat(20)), Ok(ItemName::Hash([1; 20])));
        assert_eq!(parse_item_name(&"Fe".repeat(32)), Ok(ItemName::Key([0xfe; 32], String::new())));
        let salted = format!("{}:a:b", "02".repeat(32));
        assert_eq!(parse_item_name(&salted), Ok(ItemName::Key([2; 32], "a:b".to_owned())));
        let hash_with_salt = format!("{}:a", "02".repeat(20));
        for wrong in ["", "xyz", &"0g".repeat(20), &"01".repeat(21), &hash_with_salt, "ä"] {
            assert!(parse_item_name(wrong).is_err(), "{wrong}");
        }
    }
}
