//! The datagrams of local service discovery (BEP 14): a search in the form of HTTP.
//!
//! ```text
//! BT-SEARCH * HTTP/1.1
//! Host: 239.192.152.143:6771
//! Port: 6881
//! Infohash: 0123456789abcdef0123456789abcdef01234567
//! cookie: 00112233445566ff
//! ```
//!
//! and two empty lines; lines end with CR LF, and `Infohash` may be repeated. Headers are accepted
//! in any case and order, unknown ones are ignored, invalid infohashes are dropped.

use std::fmt::Write as _;

use super::Group;
use crate::proto::infohash::InfoHash;

/// Longest datagram, bytes: an MTU, by the BEP; longer ones are refused.
pub const DATAGRAM_LEN_MAX: usize = 1_400;
/// Most infohashes in a datagram; further ones are ignored.
pub const INFOHASH_MAX: usize = 24;
/// Longest cookie that is read, bytes; a longer one counts as absent.
const COOKIE_LEN_MAX: usize = 64;

/// Length of the longest lines around the infohashes: request, IPv6 host, port, a cookie of 16
/// digits, the end.
const FRAME_LEN_MAX: usize = 22 + 33 + 13 + 26 + 4;
const _: () = assert!(FRAME_LEN_MAX + INFOHASH_MAX * 52 <= DATAGRAM_LEN_MAX);

/// The torrents of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The sender's listening port; not 0.
    pub port: u16,
    /// The torrents that it looks for and may have; at least one.
    pub infohashes: Vec<InfoHash>,
    /// Identifies the sender's own datagrams.
    pub cookie: Option<String>,
}

/// The datagram is no valid announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no announce of local service discovery")]
pub struct BadDatagram;

impl Search {
    /// Returns the bytes to send to a group.
    pub fn encode(&self, group: Group) -> Vec<u8> {
        let mut text = format!("BT-SEARCH * HTTP/1.1\r\nHost: {}\r\nPort: {}\r\n", group.addr(), self.port);
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            write!(text, "{name}: {value}\r\n").expect("writing to a string does not fail");
        };
        self.infohashes.iter().for_each(|infohash| line("Infohash", infohash));
        if let Some(cookie) = &self.cookie {
            line("cookie", cookie);
        }
        text.push_str("\r\n\r\n");
        text.into_bytes()
    }

    /// Decodes a datagram.
    ///
    /// # Errors
    /// It is too long, another request, or lacks a valid port or infohash.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadDatagram> {
        if bytes.len() > DATAGRAM_LEN_MAX {
            return Err(BadDatagram);
        }
        let mut lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        let request = lines.next().unwrap_or_default();
        if !request.starts_with(b"BT-SEARCH * HTTP/1.") {
            return Err(BadDatagram);
        }
        let (mut port, mut infohashes, mut cookie) = (None, Vec::new(), None);
        for line in lines.take_while(|line| !line.is_empty()) {
            let Some((name, value)) = header(line) else { continue };
            if name.eq_ignore_ascii_case("port") {
                port = value.parse().ok().filter(|port| *port != 0);
            } else if name.eq_ignore_ascii_case("infohash") && infohashes.len() < INFOHASH_MAX {
                infohashes.extend(value.parse::<InfoHash>().ok());
            } else if name.eq_ignore_ascii_case("cookie") && value.len() <= COOKIE_LEN_MAX {
                cookie = Some(value.to_owned());
            }
        }
        let port = port.filter(|_| !infohashes.is_empty()).ok_or(BadDatagram)?;
        Ok(Self { port, infohashes, cookie })
    }
}

/// Returns name and value of a header line.
fn header(line: &[u8]) -> Option<(&str, &str)> {
    let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
    Some((name.trim(), value.trim()))
}
