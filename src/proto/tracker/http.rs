//! HTTP trackers (BEP 3, 7, 23, 24, 31, 48): query strings and bencoded answers, both directions.
//!
//! This file is the client's side, `server` the tracker's. Optional keys of the wrong kind count as
//! absent, and peers that cannot be dialled are dropped. The shell fetches; [`announce_scope`] says
//! which addresses it may ask.

pub mod forwarded;
pub mod server;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::scrape::HTTP_TORRENT_MAX;
use super::{
    Announce, AnnounceEvent, AnnounceReply, INTERVAL_DEFAULT, RetryIn, TrackerError, clamped_interval, words,
};
use crate::proto::bencode::{Dict, Kind, Limits, Value};
use crate::proto::compact;
use crate::proto::infohash::InfoHash;
use crate::proto::scope::{Origin, Scope};
use crate::proto::time::Duration;

/// Longest body of an answer that is read, after inflating.
pub const BODY_LEN_MAX: usize = 2 << 20;
/// Most peers taken from one answer; the rest is dropped. Ten times what any client asks for.
pub const REPLY_PEER_MAX: usize = 2_000;
/// Longest `tracker id` that is kept and sent back; a longer one counts as absent, because every
/// announce carries it.
pub const TRACKER_ID_LEN_MAX: usize = 512;
/// Longest time of `retry in`: a day, in minutes.
const RETRY_IN_MINUTES_MAX: i64 = 24 * 60;

/// All characters but the unreserved ones of RFC 3986.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns the URL to fetch, with the query of the tracker's URL and without its fragment.
pub fn announce_url(tracker: &str, announce: &Announce) -> String {
    let mut url = with_query_open(tracker);
    let Announce { infohash, peer_id, port, uploaded, downloaded, left, .. } = announce;
    let infohash = percent_encode(&infohash.0, QUERY);
    let peer_id = percent_encode(&peer_id.0, QUERY);
    let result = write!(
        url,
        "info_hash={infohash}&peer_id={peer_id}&port={port}&uploaded={uploaded}&downloaded={downloaded}\
         &left={left}&compact=1&no_peer_id=1&key={:08X}",
        announce.key
    );
    result.expect("writing to a String does not fail");
    let event = match announce.event {
        AnnounceEvent::None => None,
        AnnounceEvent::Started => Some("started"),
        AnnounceEvent::Completed => Some("completed"),
        AnnounceEvent::Stopped => Some("stopped"),
    };
    let mut add = |key: &str, value: &str| {
        url.extend(["&", key, "="]);
        url.extend(percent_encode(value.as_bytes(), QUERY));
    };
    if let Some(event) = event {
        add("event", event);
    }
    if let Some(numwant) = announce.numwant {
        add("numwant", &numwant.to_string());
    }
    if let Some(ip) = announce.ip {
        add("ip", &ip.to_canonical().to_string());
    }
    if let Some(tracker_id) = &announce.tracker_id {
        add("trackerid", tracker_id);
    }
    url
}

/// Returns the innermost network to which an announce may lead: hosts outside the internet are
/// asked only for a tracker's path, so that a link cannot make this machine call their other
/// services.
pub fn announce_scope(origin: Origin, path: &str) -> Scope {
    if is_announce_path(path) { origin.innermost() } else { Scope::Public }
}

/// Whether a URL's path ends in `announce`, in a name that continues with a non-letter
/// (`announce.php`), or in a passkey after such an element.
fn is_announce_path(path: &str) -> bool {
    let is_announce = |element: &str| {
        let rest = element.strip_prefix("announce");
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    path.trim_end_matches('/').rsplit('/').take(2).any(is_announce)
}

/// Returns the URL to scrape, if the announce URL allows it: the last path element begins with
/// `announce`, which becomes `scrape` (BEP 48).
pub fn scrape_url(tracker: &str, infohashes: &[InfoHash]) -> Option<String> {
    let path_end = tracker.find(['?', '#']).unwrap_or(tracker.len());
    let last = tracker[..path_end].rfind('/')? + 1;
    let rest = tracker[last..].strip_prefix("announce")?;
    let mut url = with_query_open(&format!("{}scrape{rest}", &tracker[..last]));
    for (count, infohash) in infohashes.iter().take(HTTP_TORRENT_MAX).enumerate() {
        url.push_str(if count == 0 { "info_hash=" } else { "&info_hash=" });
        url.extend(percent_encode(&infohash.0, QUERY));
    }
    Some(url)
}

/// Returns the URL without its fragment, ready for `key=value`.
fn with_query_open(url: &str) -> String {
    let url = url.split('#').next().unwrap_or_default();
    let separator = match (url.contains('?'), url.ends_with(['?', '&'])) {
        (false, _) => "?",
        (true, false) => "&",
        (true, true) => "",
    };
    format!("{url}{separator}")
}

/// Decodes the body of an answer of any HTTP status (the shell reports 410 as `Gone`).
pub fn decode_reply(body: &[u8]) -> Result<AnnounceReply, TrackerError> {
    let dict = root(body)?;
    let integer = |key: &[u8]| dict.get(key).and_then(|value| value.integer());
    let bytes = |key: &[u8]| dict.get(key).and_then(|value| value.bytes());
    let count = |key: &[u8]| integer(key).and_then(|count| u32::try_from(count).ok());
    let mut peers = Vec::new();
    match dict.get(b"peers").map(|value| value.kind()) {
        Some(Kind::Bytes(bytes)) => peers.extend(dialable(compact::decode_v4(bytes))),
        Some(Kind::List(list)) => {
            let dicts = list.filter_map(|value| value.dict());
            peers.extend(dialable(dicts.filter_map(|dict| dictionary_peer(&dict))));
        }
        Some(Kind::Integer(_) | Kind::Dict(_)) | None => (),
    }
    peers.extend(dialable(compact::decode_v6(bytes(b"peers6").unwrap_or_default())));
    let interval = integer(b"interval").map_or(INTERVAL_DEFAULT, clamped_interval);
    let min_interval = integer(b"min interval").map(|secs| clamped_interval(secs).min(interval));
    let tracker_id = dict.get(b"tracker id").and_then(|value| value.text());
    Ok(AnnounceReply {
        interval,
        min_interval,
        seeders: count(b"complete"),
        leechers: count(b"incomplete"),
        peers,
        tracker_id: tracker_id.filter(|id| id.len() <= TRACKER_ID_LEN_MAX).map(str::to_owned),
        warning: bytes(b"warning message").map(words),
        external_ip: bytes(b"external ip").and_then(raw_ip),
    })
}

/// Returns the dictionary of an answer that is not a refusal.
fn root(body: &[u8]) -> Result<Dict<'_>, TrackerError> {
    let root = Value::read(body, &Limits::TRACKER_REPLY);
    let dict = root.ok().and_then(|value| value.dict()).ok_or(TrackerError::Garbage("not bencoded"))?;
    let Some(reason) = dict.get(b"failure reason") else {
        return Ok(dict);
    };
    let reason = words(reason.bytes().unwrap_or_default());
    let retry_in = dict.get(b"retry in").and_then(|value| match value.kind() {
        Kind::Integer(minutes) => {
            let minutes = minutes.clamp(0, RETRY_IN_MINUTES_MAX).unsigned_abs();
            Some(RetryIn::After(Duration::from_secs(60 * minutes)))
        }
        Kind::Bytes(b"never") => Some(RetryIn::Never),
        Kind::Bytes(_) | Kind::List(_) | Kind::Dict(_) => None,
    });
    Err(TrackerError::Refused { reason, retry_in })
}

fn dialable(addrs: impl Iterator<Item = SocketAddr>) -> impl Iterator<Item = SocketAddr> {
    addrs.filter(|&addr| compact::is_dialable(addr)).take(REPLY_PEER_MAX)
}

/// Returns a peer of the long form; one with a domain name is dropped, because looking up names for
/// peers would let them direct us anywhere.
fn dictionary_peer(dict: &Dict<'_>) -> Option<SocketAddr> {
    let ip: IpAddr = dict.get(b"ip")?.text()?.parse().ok()?;
    let port = u16::try_from(dict.get(b"port")?.integer()?).ok()?;
    Some(compact::canonical(SocketAddr::new(ip, port)))
}

/// Returns an address of 4 or 16 bytes (BEP 24).
fn raw_ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets: [u8; 16] = bytes.try_into().ok()?;
    Some(IpAddr::from(Ipv6Addr::from(octets)).to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::peer_id::PeerId;

    fn announce() -> Announce {
        Announce {
            infohash: InfoHash(*b"\x00az-._~ +&=%\xff\x80/?#:@!"),
            peer_id: PeerId(*b"-SP0100-abcdefghijkl"),
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            event: AnnounceEvent::Started,
            numwant: Some(50),
            key: 0xabc,
            ip: None,
            tracker_id: None,
        }
    }

    #[test]
    fn the_url_carries_all_fields_and_keeps_the_tracker_s_query() {
        let url = announce_url("http://t/announce", &announce());
        let expected = "http://t/announce?info_hash=%00az-._~%20%2B%26%3D%25%FF%80%2F%3F%23%3A%40%21\
                        &peer_id=-SP0100-abcdefghijkl&port=6881&uploaded=1&downloaded=2&left=3&compact=1\
                        &no_peer_id=1&key=00000ABC&event=started&numwant=50";
        assert_eq!(url, expected);
        let tracker_id = Some("a&b c".to_owned());
        let ip = Some("2001:db8::1".parse().unwrap());
        let more = Announce { tracker_id, ip, event: AnnounceEvent::None, ..announce() };
        let url = announce_url("http://t/a?passkey=1#x", &more);
        assert!(url.starts_with("http://t/a?passkey=1&info_hash="), "{url}");
        assert!(url.ends_with("&numwant=50&ip=2001%3Adb8%3A%3A1&trackerid=a%26b%20c"), "{url}");
        assert!(!url.contains("event"));
    }

    #[test]
    fn only_announce_paths_lead_into_the_local_network() {
        for path in [
            "/announce",
            "/announce/",
            "/x/announce",
            "/announce.php",
            "/announce/0123456789abcdef",
            "/0123456789abcdef/announce",
        ] {
            assert_eq!(announce_scope(Origin::User, path), Scope::Loopback, "{path}");
            for scope in [Scope::Public, Scope::Private, Scope::LinkLocal, Scope::Loopback] {
                assert_eq!(announce_scope(Origin::Server(scope), path), scope, "{path}");
            }
        }
        for path in [
            "",
            "/",
            "/admin/reboot",
            "/announcements",
            "/announce/a/b",
            "/reannounce",
            "/ANNOUNCE",
            "/x-announce/y",
        ] {
            assert_eq!(announce_scope(Origin::User, path), Scope::Public, "{path}");
            assert_eq!(announce_scope(Origin::Server(Scope::Loopback), path), Scope::Public, "{path}");
        }
    }

    #[test]
    fn scraping_needs_an_announce_in_the_url() {
        let scrape = |url: &str| scrape_url(url, &[InfoHash([b'a'; 20]), InfoHash([b'b'; 20])]);
        let hashes = format!("info_hash={}&info_hash={}", "a".repeat(20), "b".repeat(20));
        assert_eq!(scrape("http://t/x/announce"), Some(format!("http://t/x/scrape?{hashes}")));
        assert_eq!(scrape("http://t/announce.php?k=/1"), Some(format!("http://t/scrape.php?k=/1&{hashes}")));
        assert_eq!(scrape("http://t/a"), None);
        assert_eq!(scrape("http://t/announce/x"), None);
    }

    #[test]
    fn every_form_of_peers_is_read_and_the_undialable_dropped() {
        let compact =
            b"d8:intervali1800e5:peers12:\x01\x02\x03\x04\x00\x05\x01\x02\x03\x04\x00\x006:peers618:\
                        \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x00\x06e";
        let reply = decode_reply(compact).unwrap();
        let expected: Vec<SocketAddr> = ["1.2.3.4:5", "[2001:db8::1]:6"].map(|a| a.parse().unwrap()).into();
        assert_eq!(reply.peers, expected);
        let dicts =
            b"d5:peersld2:ip7:1.2.3.44:porti5eed2:ip11:2001:db8::14:porti6eed2:ip9:localhost4:porti7ee\
                      d2:ip7:1.2.3.44:porti65536eed4:porti1eei7eee";
        let reply = decode_reply(dicts).unwrap();
        assert_eq!((reply.peers, reply.interval), (expected, INTERVAL_DEFAULT));
    }

    #[test]
    fn invalid_optional_keys_count_as_absent() {
        let body = b"d8:completei3e11:external ip4:\x08\x08\x08\x0810:incompletei-1e8:intervali60e\
                     12:min intervali120e10:tracker id2:id15:warning message5:\x1bslowe";
        let reply = decode_reply(body).unwrap();
        assert_eq!((reply.seeders, reply.leechers), (Some(3), None));
        assert_eq!(reply.external_ip, Some("8.8.8.8".parse().unwrap()));
        assert_eq!(reply.min_interval, Some(Duration::from_secs(60)), "never above the interval");
        assert_eq!((reply.tracker_id.as_deref(), reply.warning.as_deref()), (Some("id"), Some("slow")));
        let junk = decode_reply(b"d8:completele11:external ip3:abc8:interval2:ab5:peersi7e10:tracker idlee");
        assert_eq!(junk, Ok(AnnounceReply { interval: INTERVAL_DEFAULT, ..AnnounceReply::default() }));
    }

    #[test]
    fn refusals_have_a_reason_and_a_retry_time() {
        let read = |body: &[u8]| match decode_reply(body) {
            Err(TrackerError::Refused { reason, retry_in }) => (reason, retry_in),
            other => panic!("{other:?}"),
        };
        assert_eq!(read(b"d14:failure reason2:noe"), ("no".into(), None));
        let soon = Some(RetryIn::After(Duration::from_secs(300)));
        assert_eq!(read(b"d14:failure reason2:no8:retry ini5ee"), ("no".into(), soon));
        assert_eq!(read(b"d14:failure reason2:no8:retry in5:nevere"), ("no".into(), Some(RetryIn::Never)));
        for garbage in [&b""[..], b"<html>", b"le", b"i1e", b"d8:interval"] {
            assert!(matches!(decode_reply(garbage), Err(TrackerError::Garbage(_))));
        }
    }
}
