//! Magnet links (BEP 9, 53): a torrent's name, and hints where to find it.
//!
//! What we do not know is ignored, as other programs put their own keys into links. Of hints (`tr`, `x.pe`, `ws`)
//! the unusable ones are dropped; what names the torrent (`xt`) or the files wanted (`so`) must be right, as
//! guessing there would fetch something else. `dn` is for people: the first one counts. Memory is proportional to
//! the text: ranges stay ranges.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{HINT_COUNT_MAX, is_absolute_url};
use crate::proto::infohash::InfoHash;

/// Longest link, bytes; longer ones are refused. Real ones with dozens of trackers take 4 KiB.
pub const MAGNET_LEN_MAX: usize = 64 << 10;

/// Multihash code and length of SHA-256, in hexadecimal, as BEP 52 puts in front of v2 infohashes.
const SHA256_MULTIHASH: &str = "1220";

/// What is escaped in values: all but the unreserved characters of RFC 3986.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for `x.pe`, which other programs expect to read as it is.
const ESCAPED_IN_PEER: &AsciiSet = &ESCAPED.remove(b':').remove(b'[').remove(b']');

/// What a magnet link carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Magnet {
    /// `xt=urn:btih:`
    pub infohash: Option<InfoHash>,
    /// `xt=urn:btmh:1220...`
    pub infohash_v2: Option<[u8; 32]>,
    /// `dn`
    pub name: Option<String>,
    /// `tr`, then `tr.1`, `tr.2`, ... by number; a tracker that comes again is left out.
    pub trackers: Vec<String>,
    /// `x.pe`: host and port as written.
    pub peers: Vec<String>,
    /// `ws`
    pub web_seeds: Vec<String>,
    /// `so`: inclusive ranges of file numbers, as written; empty: all files.
    pub select: Vec<(u32, u32)>,
}

/// Why a text is no magnet link that we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// It does not start with `magnet:?`.
    #[error("not a magnet link")]
    Scheme,
    /// Longer than [`MAGNET_LEN_MAX`].
    #[error("the magnet link is longer than {MAGNET_LEN_MAX} bytes")]
    TooLong,
    /// No `xt` that names a torrent.
    #[error("the magnet link has no infohash (`xt=urn:btih:...` or `xt=urn:btmh:...`)")]
    NoInfohash,
    /// `urn:btih:` with something else behind it.
    #[error(
        "the magnet link's infohash has {len} characters; it must have 40 hexadecimal digits or 32 base32 letters"
    )]
    InfohashLen {
        /// Characters behind `urn:btih:`.
        len: usize,
    },
    /// `urn:btih:` of the right length with wrong characters.
    #[error(
        "the magnet link's infohash has characters that are neither hexadecimal digits nor base32 letters"
    )]
    InfohashDigits,
    /// `urn:btmh:` with something else than a SHA-256 behind it.
    #[error("the magnet link's v2 infohash is not `1220` and 64 hexadecimal digits")]
    InfohashV2,
    /// Two `xt` of one kind that differ.
    #[error("the magnet link names two different torrents")]
    TwoTorrents,
    /// `so` with something else than numbers and ranges.
    #[error("the magnet link's `so` is not a list of file numbers and ranges such as `0,2,4-6`")]
    Select,
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        let text = text.trim();
        if text.len() > MAGNET_LEN_MAX {
            return Err(MagnetError::TooLong);
        }
        let scheme = text.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("magnet:?"));
        let query = &text[scheme.ok_or(MagnetError::Scheme)?.len()..];
        let mut magnet = Self::default();
        let mut trackers = Vec::new();
        for pair in query.split('&') {
            // Links copied out of a page's source have their ampersands escaped.
            let pair = pair.strip_prefix("amp;").unwrap_or(pair);
            let Some((key, value)) = pair.split_once('=') else { continue };
            let (key, number) = numbered(key);
            match key.to_ascii_lowercase().as_str() {
                "xt" => magnet.add_topic(&percent_decode_str(value).decode_utf8_lossy())?,
                "dn" if magnet.name.is_none() => magnet.name = name(value),
                "tr" => trackers.extend(url(value).map(|url| (number, url))),
                "x.pe" => magnet.peers.extend(decoded(value).filter(|peer| is_host_and_port(peer))),
                "ws" => magnet.web_seeds.extend(url(value)),
                "so" => magnet.add_selection(&decoded(value).ok_or(MagnetError::Select)?)?,
                _ => {}
            }
        }
        if magnet.infohash.is_none() && magnet.infohash_v2.is_none() {
            return Err(MagnetError::NoInfohash);
        }
        trackers.sort_by_key(|&(number, _)| number);
        let mut seen = BTreeSet::new();
        let trackers = trackers.into_iter().map(|(_, url)| url).filter(|url| seen.insert(url.clone()));
        magnet.trackers = trackers.take(HINT_COUNT_MAX).collect();
        magnet.peers.truncate(HINT_COUNT_MAX);
        magnet.web_seeds.truncate(HINT_COUNT_MAX);
        Ok(magnet)
    }
}

impl Magnet {
    /// One `xt`; of kinds that are not ours there may be any number.
    fn add_topic(&mut self, topic: &str) -> Result<(), MagnetError> {
        if let Some(text) = strip_prefix_any_case(topic, "urn:btih:") {
            let infohash = text.parse().map_err(|_| match text.chars().count() {
                32 | 40 => MagnetError::InfohashDigits,
                len => MagnetError::InfohashLen { len },
            })?;
            set_once(&mut self.infohash, infohash)
        } else if let Some(text) = strip_prefix_any_case(topic, "urn:btmh:") {
            let digits = text.strip_prefix(SHA256_MULTIHASH).ok_or(MagnetError::InfohashV2)?;
            let hash = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes());
            let hash = hash.ok().and_then(|hash| hash.try_into().ok());
            set_once(&mut self.infohash_v2, hash.ok_or(MagnetError::InfohashV2)?)
        } else {
            Ok(())
        }
    }

    /// BEP 53: `0,2,4-6`.
    fn add_selection(&mut self, list: &str) -> Result<(), MagnetError> {
        for part in list.split(',').filter(|_| !list.is_empty()) {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            match (file_number(from), file_number(to)) {
                (Some(from), Some(to)) if from <= to => self.select.push((from, to)),
                _ => return Err(MagnetError::Select),
            }
        }
        Ok(())
    }
}

fn set_once<T: PartialEq>(slot: &mut Option<T>, value: T) -> Result<(), MagnetError> {
    match slot {
        Some(before) if *before != value => Err(MagnetError::TwoTorrents),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

/// A key and the number behind it, `tr.3`; without one it counts as 0.
fn numbered(key: &str) -> (&str, u32) {
    key.rsplit_once('.').and_then(|(key, number)| Some((key, file_number(number)?))).unwrap_or((key, 0))
}

/// Digits alone: unlike `parse`, no sign.
fn file_number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn strip_prefix_any_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Without percent signs; None if that gives no UTF-8.
fn decoded(value: &str) -> Option<String> {
    percent_decode_str(value).decode_utf8().ok().map(|text| text.into_owned())
}

/// `dn`, where `+` is a space as in forms; None if nothing is left.
fn name(value: &str) -> Option<String> {
    let spaced = value.replace('+', " ");
    let name = percent_decode_str(&spaced).decode_utf8_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

fn url(value: &str) -> Option<String> {
    decoded(value).filter(|url| is_absolute_url(url))
}

/// `host:port`, `1.2.3.4:port` or `[v6]:port`.
fn is_host_and_port(peer: &str) -> bool {
    let Some((host, port)) = peer.rsplit_once(':') else { return false };
    let port_is_sound = file_number(port).is_some_and(|port| (1..=u32::from(u16::MAX)).contains(&port));
    let host_is_sound = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    port_is_sound && host_is_sound
}

impl fmt::Display for Magnet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "magnet:?";
        let mut pair = |key: &str, value: &dyn fmt::Display| {
            let separator = std::mem::replace(&mut separator, "&");
            write!(out, "{separator}{key}={value}")
        };
        if let Some(infohash) = self.infohash {
            pair("xt", &format_args!("urn:btih:{infohash}"))?;
        }
        if let Some(hash) = self.infohash_v2 {
            let hash = data_encoding::HEXLOWER.encode(&hash);
            pair("xt", &format_args!("urn:btmh:{SHA256_MULTIHASH}{hash}"))?;
        }
        if let Some(name) = &self.name {
            pair("dn", &utf8_percent_encode(name, ESCAPED))?;
        }
        for tracker in &self.trackers {
            pair("tr", &utf8_percent_encode(tracker, ESCAPED))?;
        }
        for peer in &self.peers {
            pair("x.pe", &utf8_percent_encode(peer, ESCAPED_IN_PEER))?;
        }
        for web_seed in &self.web_seeds {
            pair("ws", &utf8_percent_encode(web_seed, ESCAPED))?;
        }
        let range =
            |&(from, to): &(u32, u32)| if from == to { from.to_string() } else { format!("{from}-{to}") };
        if !self.select.is_empty() {
            pair("so", &self.select.iter().map(range).collect::<Vec<_>>().join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";

    fn parse(rest: &str) -> Result<Magnet, MagnetError> {
        format!("magnet:?xt=urn:btih:{HEX}{rest}").parse()
    }

    #[test]
    fn everything_is_read_and_written_again() {
        let v2 = "1220".to_owned() + &"ab".repeat(32);
        let magnet = parse(&format!(
            "&xt=urn:btmh:{v2}&dn=A+b%26%C3%A4%2B&tr.2=udp://c:3&tr.1=udp%3A%2F%2Fb%3A2&tr=http://a/announce?x%3D1\
             &tr.4=udp://c:3\
             &x.pe=1.2.3.4:5&x.pe=[::1]:6881&x.pe=host.example:80&ws=https://w/&so=0,2,4-6&xl=10&kt=a+b"
        ))
        .unwrap();
        assert_eq!(magnet.infohash.unwrap().to_string(), HEX);
        assert_eq!(magnet.infohash_v2, Some([0xab; 32]));
        assert_eq!(magnet.name.as_deref(), Some("A b&ä+"));
        assert_eq!(magnet.trackers, ["http://a/announce?x=1", "udp://b:2", "udp://c:3"]);
        assert_eq!(magnet.peers, ["1.2.3.4:5", "[::1]:6881", "host.example:80"]);
        assert_eq!(magnet.web_seeds, ["https://w/"]);
        assert_eq!(magnet.select, [(0, 0), (2, 2), (4, 6)]);
        assert_eq!(magnet.to_string().parse(), Ok(magnet));
    }

    #[test]
    fn case_and_escaped_ampersands_do_not_matter() {
        let plain = parse("&dn=x").unwrap();
        let shouted: Magnet =
            format!("MAGNET:?XT=URN:BTIH:{}&amp;DN=x ", HEX.to_uppercase()).parse().unwrap();
        assert_eq!(shouted, plain);
        let base32 = data_encoding::BASE32.encode(&plain.infohash.unwrap().0).to_lowercase();
        assert_eq!(format!("magnet:?dn=x&xt.1=urn%3Abtih%3A{base32}").parse(), Ok(plain));
    }

    #[test]
    fn what_names_the_torrent_must_be_right() {
        let error = |text: &str| text.parse::<Magnet>().unwrap_err();
        assert_eq!(error("http://x/"), MagnetError::Scheme);
        assert_eq!(error("magnet:"), MagnetError::Scheme);
        assert_eq!(error("magnét:?x"), MagnetError::Scheme);
        assert_eq!(error("magnet:?"), MagnetError::NoInfohash);
        assert_eq!(error("magnet:?xt=urn:sha1:abc&dn=x"), MagnetError::NoInfohash);
        assert_eq!(
            error(&format!("magnet:?xt=urn:btih:{}", &HEX[1..])),
            MagnetError::InfohashLen { len: 39 }
        );
        assert!(error(&format!("magnet:?xt=urn:btih:{}", &HEX[1..])).to_string().contains("39"));
        assert_eq!(error(&format!("magnet:?xt=urn:btih:z{}", &HEX[1..])), MagnetError::InfohashDigits);
        for bad in
            ["1220ab", &("1114".to_owned() + &"ab".repeat(20)), &("1220".to_owned() + &"zz".repeat(32))]
        {
            assert_eq!(error(&format!("magnet:?xt=urn:btmh:{bad}")), MagnetError::InfohashV2);
        }
        assert!(parse(&format!("&xt=urn:btih:{HEX}")).is_ok(), "the same twice");
        assert_eq!(parse(&format!("&xt=urn:btih:{}", "0".repeat(40))), Err(MagnetError::TwoTorrents));
        assert_eq!(parse(&"&a=b".repeat(MAGNET_LEN_MAX / 4)), Err(MagnetError::TooLong));
    }

    #[test]
    fn unusable_hints_are_dropped() {
        let peers =
            "&x.pe=1.2.3.4&x.pe=:1&x.pe=h:0&x.pe=h:65536&x.pe=::1:80&x.pe=[x]:1&x.pe=h:+1&x.pe=a%20b:1";
        let others = "&tr=tracker.example&tr=%ff&tr=&ws=/relative&dn=&dn=first&dn=second&tr";
        let magnet = parse(&format!("{peers}{others}")).unwrap();
        assert_eq!(magnet.name.as_deref(), Some("first"));
        let bare = Magnet { infohash: magnet.infohash, name: magnet.name.clone(), ..Magnet::default() };
        assert_eq!(magnet, bare);
    }

    #[test]
    fn selections_stay_ranges_and_must_be_right() {
        assert_eq!(parse("&so=0-4294967295,7").unwrap().select, [(0, u32::MAX), (7, 7)]);
        assert_eq!(parse("&so=1&so=3").unwrap().select, [(1, 1), (3, 3)]);
        assert!(parse("&so=").unwrap().select.is_empty());
        for bad in ["x", "1,", "-1", "3-2", "1-2-3", "4294967296", "+1", "1%20"] {
            assert_eq!(parse(&format!("&so={bad}")), Err(MagnetError::Select), "{bad}");
        }
    }
}
