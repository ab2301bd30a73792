//! Magnet links (BEP 9, 53): a torrent's name, and hints where to find it.
//!
//! What can be read is read. Keys that we do not know are left alone, as other programs put their
//! own into links; of those that we know (`tr`, `x.pe`, `ws`, `so`, a second `xt`) what cannot be
//! read is left out and noted in [`Magnet::ignored`], for the user to be told. A link has to name
//! one torrent: without an infohash that can be read, or with two that differ, it is refused. `dn`
//! is for people: the first one counts. Memory is proportional to the text: ranges stay ranges.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{HINT_COUNT_MAX, is_absolute_url};
use crate::proto::infohash::InfoHash;

/// Longest link, bytes; longer ones are refused. Real ones with dozens of trackers take 4 KiB.
pub const MAGNET_LEN_MAX: usize = 64 << 10;

/// Unreadable parts of a link that are noted; more of them say nothing new.
const IGNORED_COUNT_MAX: usize = 16;

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
    /// Parts of the link, as `key=value`, that could not be read and were left out: the first
    /// [`IGNORED_COUNT_MAX`]. Not written again.
    pub ignored: Vec<String>,
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
}

impl Magnet {
    /// Returns which of so many files the link selects (BEP 53), all if it says nothing; None: none
    /// of those that it names. Its work is in proportion to both, as links may have thousands of
    /// overlapping ranges.
    pub fn selected(&self, file_count: usize) -> Option<Vec<bool>> {
        if self.select.is_empty() {
            return Some(vec![true; file_count]);
        }
        let mut steps = vec![0_i64; file_count + 1];
        for &(first, last) in &self.select {
            steps[(first as usize).min(file_count)] += 1;
            steps[(last as usize).saturating_add(1).min(file_count)] -= 1;
        }
        let mut depth = 0;
        let flags: Vec<bool> = steps[..file_count]
            .iter()
            .map(|step| {
                depth += step;
                depth > 0
            })
            .collect();
        flags.contains(&true).then_some(flags)
    }
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, MagnetError> {
        let text = text.trim();
        if text.len() > MAGNET_LEN_MAX {
            return Err(MagnetError::TooLong);
        }
        // Long links come out of mails in several lines.
        let text: String = text.chars().filter(|char| !matches!(char, '\r' | '\n' | '\t')).collect();
        let mut reader = Reader::default();
        for pair in query(&text).ok_or(MagnetError::Scheme)?.split('&') {
            // Links copied out of a page's source have their ampersands escaped.
            let pair = pair.strip_prefix("amp;").unwrap_or(pair);
            if let Some((key, value)) = pair.split_once('=') {
                reader.handle_pair(key, value)?;
            }
        }
        reader.finish()
    }
}

/// Whether the text is meant for a magnet link, whatever is wrong with it.
pub fn is_magnet(text: &str) -> bool {
    strip_prefix_any_case(text.trim_start(), "magnet:").is_some()
}

/// What follows `magnet:?`; some programs write `magnet://?` or `magnet:///?`.
fn query(text: &str) -> Option<&str> {
    strip_prefix_any_case(text, "magnet:")?.trim_start_matches('/').strip_prefix('?')
}

/// A link as far as it is read.
#[derive(Default)]
struct Reader {
    magnet: Magnet,
    /// With the number behind their key.
    trackers: Vec<(u32, String)>,
    /// What was wrong with the first infohash that cannot be read.
    topic_error: Option<MagnetError>,
}

impl Reader {
    /// Takes one parameter.
    ///
    /// # Errors
    /// It names another torrent than one before.
    fn handle_pair(&mut self, key: &str, value: &str) -> Result<(), MagnetError> {
        let (known, number) = numbered(key);
        let known = known.to_ascii_lowercase();
        if known == "dn" {
            self.magnet.name = self.magnet.name.take().or_else(|| name(value));
            return Ok(());
        }
        // A fragment, as addresses may have; in names it may be a part of them.
        let value = value.split_once('#').map_or(value, |(value, _)| value);
        let was_read = match known.as_str() {
            _ if value.is_empty() => true,
            "xt" => self.handle_topic(&percent_decode_str(value).decode_utf8_lossy())?,
            "tr" => kept(url(value).map(|url| (number, url)), &mut self.trackers),
            "x.pe" => kept(decoded(value).filter(|peer| is_host_and_port(peer)), &mut self.magnet.peers),
            "ws" => kept(url(value), &mut self.magnet.web_seeds),
            "so" => {
                self.handle_selection(&percent_decode_str(value).decode_utf8_lossy());
                true
            }
            _ => true,
        };
        if !was_read {
            self.ignore(key, value);
        }
        Ok(())
    }

    /// Takes one `xt` and returns whether it could be read; URNs other than `btih` and `btmh` are
    /// skipped.
    fn handle_topic(&mut self, topic: &str) -> Result<bool, MagnetError> {
        let read = if let Some(text) = strip_prefix_any_case(topic, "urn:btih:") {
            parse_infohash(text).map(|infohash| set_once(&mut self.magnet.infohash, infohash))
        } else if let Some(text) = strip_prefix_any_case(topic, "urn:btmh:") {
            parse_infohash_v2(text).map(|hash| set_once(&mut self.magnet.infohash_v2, hash))
        } else {
            return Ok(true);
        };
        match read {
            Ok(set) => set.map(|()| true),
            Err(error) => {
                self.topic_error.get_or_insert(error);
                Ok(false)
            }
        }
    }

    /// BEP 53: `0,2,4-6`.
    fn handle_selection(&mut self, list: &str) {
        for part in list.split(',') {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            match (file_number(from.trim()), file_number(to.trim())) {
                (Some(from), Some(to)) if from <= to => self.magnet.select.push((from, to)),
                _ if part.trim().is_empty() => {}
                _ => self.ignore("so", part),
            }
        }
    }

    fn ignore(&mut self, key: &str, value: &str) {
        if self.magnet.ignored.len() < IGNORED_COUNT_MAX {
            self.magnet.ignored.push(format!("{key}={value}"));
        }
    }

    fn finish(self) -> Result<Magnet, MagnetError> {
        let Self { mut magnet, mut trackers, topic_error } = self;
        if magnet.infohash.is_none() && magnet.infohash_v2.is_none() {
            return Err(topic_error.unwrap_or(MagnetError::NoInfohash));
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

/// Appends what could be read; whether it could.
fn kept<T>(read: Option<T>, to: &mut Vec<T>) -> bool {
    let was_read = read.is_some();
    to.extend(read);
    was_read
}

fn parse_infohash(text: &str) -> Result<InfoHash, MagnetError> {
    text.parse().map_err(|_| match text.chars().count() {
        32 | 40 => MagnetError::InfohashDigits,
        len => MagnetError::InfohashLen { len },
    })
}

fn parse_infohash_v2(text: &str) -> Result<[u8; 32], MagnetError> {
    let digits = text.strip_prefix(SHA256_MULTIHASH).ok_or(MagnetError::InfohashV2)?;
    let hash = data_encoding::HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).ok();
    hash.and_then(|hash| hash.try_into().ok()).ok_or(MagnetError::InfohashV2)
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
    fn unusable_hints_are_dropped_and_noted() {
        let peers =
            "&x.pe=1.2.3.4&x.pe=:1&x.pe=h:0&x.pe=h:65536&x.pe=::1:80&x.pe=[x]:1&x.pe=h:+1&x.pe=a%20b:1";
        let others = "&tr=tracker.example&tr=%ff&tr=&ws=/relative&dn=&dn=first&dn=second&tr";
        let magnet = parse(&format!("{peers}{others}")).unwrap();
        assert_eq!(magnet.name.as_deref(), Some("first"));
        assert_eq!(magnet.ignored.len(), 11, "{:?}", magnet.ignored);
        assert_eq!(magnet.ignored[..2], ["x.pe=1.2.3.4", "x.pe=:1"]);
        let bare = Magnet {
            infohash: magnet.infohash,
            name: magnet.name.clone(),
            ignored: magnet.ignored.clone(),
            ..Magnet::default()
        };
        assert_eq!(magnet, bare);
        assert_eq!(parse(&"&x.pe=x".repeat(1_000)).unwrap().ignored.len(), IGNORED_COUNT_MAX);
    }

    #[test]
    fn links_as_they_are_pasted_are_read() {
        let plain = parse("&dn=x&tr=udp://t:1").unwrap();
        for start in ["magnet:/?", "magnet://?", "magnet:///?", "Magnet:?", " \u{a0}magnet:?"] {
            let link = format!("{start}xt=urn:btih:{HEX}&dn=x&tr=udp://t:1\r\n");
            assert_eq!(link.parse(), Ok(plain.clone()), "{link:?}");
        }
        let wrapped = format!("magnet:?xt=urn:btih:{}\r\n{}\n&dn=x&tr=udp://t:1", &HEX[..20], &HEX[20..]);
        assert_eq!(wrapped.parse(), Ok(plain.clone()));
        assert_eq!(parse("&dn=x&tr=udp://t:1#top").unwrap(), plain);
        assert_eq!(format!("magnet:?dn=x&tr=udp://t:1&xt=urn:btih:{HEX}#top").parse(), Ok(plain));
        assert_eq!(parse("&dn=Track+%231 #1").unwrap().name.as_deref(), Some("Track #1 #1"));
        assert!(is_magnet(" MAGNET:x") && !is_magnet("magnet") && !is_magnet("m\u{e4}gnet:?"));
    }

    #[test]
    fn an_infohash_that_cannot_be_read_does_not_spoil_one_that_can() {
        let plain = parse("").unwrap();
        for other in ["urn:btih:123", "urn:btmh:1220ab", "urn:btmh:1114aa"] {
            for link in [format!("xt=urn:btih:{HEX}&xt.1={other}"), format!("xt={other}&xt=urn:btih:{HEX}")] {
                let magnet: Magnet = format!("magnet:?{link}").parse().unwrap();
                assert_eq!((magnet.infohash, magnet.infohash_v2), (plain.infohash, None), "{link}");
                assert_eq!(magnet.ignored.len(), 1, "{link}");
            }
        }
        assert!(parse("&xt=urn:sha1:abc&xt=urn:ed2k:1").unwrap().ignored.is_empty(), "kinds of others");
    }

    #[test]
    fn selections_stay_ranges_and_invalid_parts_are_left_out() {
        assert_eq!(parse("&so=0-4294967295,7").unwrap().select, [(0, u32::MAX), (7, 7)]);
        assert_eq!(parse("&so=1&so=3").unwrap().select, [(1, 1), (3, 3)]);
        for nothing in ["&so=", "&so=,", "&so"] {
            assert_eq!(parse(nothing), parse(""));
        }
        for (list, select, ignored) in [
            ("1,", &[(1, 1)][..], &[][..]),
            ("1%20, 2", &[(1, 1), (2, 2)], &[]),
            ("3-", &[], &["so=3-"]),
            ("7-4,10", &[(10, 10)], &["so=7-4"]),
            (
                "x,-1,1-2-3,4294967296,+1,5",
                &[(5, 5)],
                &["so=x", "so=-1", "so=1-2-3", "so=4294967296", "so=+1"],
            ),
            ("%ff,2", &[(2, 2)], &["so=\u{fffd}"]),
        ] {
            let magnet = parse(&format!("&so={list}")).unwrap();
            assert_eq!(magnet.select, select, "{list}");
            assert_eq!(magnet.ignored, ignored, "{list}");
        }
    }

    #[test]
    fn ranges_choose_files_and_must_choose_one() {
        let selected = |file_count, select: &[(u32, u32)]| {
            Magnet { select: select.to_vec(), ..Magnet::default() }.selected(file_count)
        };
        assert_eq!(selected(4, &[(1, 1), (3, u32::MAX)]), Some(vec![false, true, false, true]));
        assert_eq!(selected(3, &[(0, 1), (1, 2), (7, 9)]), Some(vec![true; 3]));
        assert_eq!(selected(3, &[(3, 5)]), None);
        assert_eq!(selected(0, &[(0, 0)]), None);
        assert_eq!(selected(1_000, &vec![(0, 999); 100_000]), Some(vec![true; 1_000]));
        assert_eq!(selected(2, &[]), Some(vec![true; 2]));
    }
}
