//! The tracker's side of HTTP: decodes queries and encodes answers (BEP 3, 7, 23, 24, 31, 48).
//!
//! A query is read in place, without allocation; the shell bounds its length. `service` decides
//! which values are honoured (`ip`, `numwant`). `+` means itself, because infohashes are bytes, not
//! text of a form.

use std::io::Write as _;
use std::net::IpAddr;

use crate::proto::compact;
use crate::proto::crc32c::crc32c;
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::tracker::scrape::{HTTP_TORRENT_MAX, Scraped};
use crate::proto::tracker::swarm::Chosen;
use crate::proto::tracker::{Announce, AnnounceEvent, RetryIn};

/// Why a query is invalid; the text goes into the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Missing, or given twice.
    #[error("one info_hash is needed")]
    InfoHashCount,
    /// Not 20 bytes.
    #[error("info_hash is not 20 bytes")]
    InfoHash,
    /// Missing, or not 20 bytes.
    #[error("peer_id is not 20 bytes")]
    PeerId,
    /// Missing, 0, or not a number up to 65535.
    #[error("port is not between 1 and 65535")]
    Port,
}

/// Splits the target of a request into the path's name, without the slashes around it, and the
/// query. The target may be in absolute form (RFC 9112, 3.2.2), and some clients write `//announce`
/// or `/announce/`.
pub fn split_target(target: &str) -> (&str, &str) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path =
        path.split_once("://").map_or(path, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
    (path.trim_matches('/'), query)
}

/// An announce received by HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Its content.
    pub announce: Announce,
    /// Whether the answer may name peers in the compact form, unless the client refuses it.
    pub compact: bool,
}

/// Decodes the query string of an announce. Unknown keys are ignored; of repeated keys the last
/// counts, but two infohashes are refused. An invalid number (empty, negative, too large) counts as
/// missing, and a query without `left` is from a leecher.
pub fn decode_announce(query: &str) -> Result<Query, QueryError> {
    let (mut infohash, mut peer_id, mut port) = (None, None, None);
    let (mut uploaded, mut downloaded, mut left) = (0, 0, u64::MAX);
    let (mut event, mut numwant, mut key, mut ip, mut compact) = (AnnounceEvent::None, None, 0, None, true);
    for (name, value) in pairs(query) {
        match name {
            "info_hash" if infohash.is_some() => return Err(QueryError::InfoHashCount),
            "info_hash" => infohash = Some(InfoHash(twenty(value).ok_or(QueryError::InfoHash)?)),
            "peer_id" => peer_id = twenty(value).map(PeerId),
            "port" => port = value.parse::<u16>().ok().filter(|&port| port != 0),
            "uploaded" => uploaded = value.parse().unwrap_or(0),
            "downloaded" => downloaded = value.parse().unwrap_or(0),
            "left" => left = value.parse().unwrap_or(u64::MAX),
            "event" => {
                event = match value {
                    "started" => AnnounceEvent::Started,
                    "completed" => AnnounceEvent::Completed,
                    "stopped" => AnnounceEvent::Stopped,
                    _ => AnnounceEvent::None,
                }
            }
            "numwant" => numwant = value.parse().ok(),
            // BEP 7 does not limit its form: a key that is not hexadecimal is replaced by the
            // checksum of its text.
            "key" => key = u32::from_str_radix(value, 16).unwrap_or_else(|_| crc32c(value.as_bytes())),
            "ip" => ip = address(value),
            "compact" => compact = value != "0",
            _ => (),
        }
    }
    let infohash = infohash.ok_or(QueryError::InfoHashCount)?;
    let peer_id = peer_id.ok_or(QueryError::PeerId)?;
    let port = port.ok_or(QueryError::Port)?;
    let tracker_id = None;
    let announce =
        Announce { infohash, peer_id, port, uploaded, downloaded, left, event, numwant, key, ip, tracker_id };
    Ok(Query { announce, compact })
}

/// Decodes the query string of a scrape: the first [`HTTP_TORRENT_MAX`] torrents, sorted, without
/// repetition. A scrape of everything is refused.
pub fn decode_scrape(query: &str) -> Result<Vec<InfoHash>, QueryError> {
    let hashes = pairs(query).filter(|&(name, _)| name == "info_hash").take(HTTP_TORRENT_MAX);
    let hashes = hashes.map(|(_, value)| twenty(value).map(InfoHash).ok_or(QueryError::InfoHash));
    let mut hashes = hashes.collect::<Result<Vec<_>, _>>()?;
    if hashes.is_empty() {
        return Err(QueryError::InfoHashCount);
    }
    hashes.sort_unstable();
    hashes.dedup();
    Ok(hashes)
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Percent-decodes a value of exactly 20 bytes.
fn twenty(value: &str) -> Option<[u8; 20]> {
    let mut decoded = [0; 20];
    let mut bytes = percent_encoding::percent_decode_str(value);
    for byte in &mut decoded {
        *byte = bytes.next()?;
    }
    bytes.next().is_none().then_some(decoded)
}

/// Parses an address; the colons of IPv6 may be percent-encoded.
fn address(value: &str) -> Option<IpAddr> {
    /// Longest text of an address.
    const LEN_MAX: usize = 45;
    let mut text = [0; LEN_MAX];
    let mut len = 0;
    for byte in percent_encoding::percent_decode_str(value) {
        *text.get_mut(len)? = byte;
        len += 1;
    }
    let ip: IpAddr = std::str::from_utf8(&text[..len]).ok()?.parse().ok()?;
    Some(ip.to_canonical())
}

/// The parts of an answer besides peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// Seconds to the next announce.
    pub interval_secs: u32,
    /// Least seconds to the next announce.
    pub min_interval_secs: u32,
    /// The figures of the torrent.
    pub scraped: Scraped,
    /// The sender's address as seen here (BEP 24).
    pub external_ip: IpAddr,
}

fn write_number(out: &mut Vec<u8>, key: &str, number: u32) {
    write!(out, "{}:{key}i{number}e", key.len()).expect("writing to a Vec does not fail");
}

fn write_bytes(out: &mut Vec<u8>, key: &str, bytes: &[u8]) {
    write!(out, "{}:{key}{}:", key.len(), bytes.len()).expect("writing to a Vec does not fail");
    out.extend_from_slice(bytes);
}

/// Appends an answer to an announce. The long form has no peer ids, because the tracker does not
/// store them.
pub fn encode_reply(head: &ReplyHead, chosen: &Chosen, compact: bool, out: &mut Vec<u8>) {
    out.push(b'd');
    write_number(out, "complete", head.scraped.seeders);
    match head.external_ip.to_canonical() {
        IpAddr::V4(ip) => write_bytes(out, "external ip", &ip.octets()),
        IpAddr::V6(ip) => write_bytes(out, "external ip", &ip.octets()),
    }
    write_number(out, "incomplete", head.scraped.leechers);
    write_number(out, "interval", head.interval_secs);
    write_number(out, "min interval", head.min_interval_secs);
    if compact {
        write_bytes(out, "peers", &chosen.v4);
        if !chosen.v6.is_empty() {
            write_bytes(out, "peers6", &chosen.v6);
        }
    } else {
        out.extend_from_slice(b"5:peersl");
        for addr in compact::decode_v4(&chosen.v4).chain(compact::decode_v6(&chosen.v6)) {
            out.push(b'd');
            write_bytes(out, "ip", addr.ip().to_string().as_bytes());
            write_number(out, "port", u32::from(addr.port()));
            out.push(b'e');
        }
        out.push(b'e');
    }
    out.push(b'e');
}

/// Appends a refusal.
pub fn encode_failure(reason: &str, retry_in: Option<RetryIn>, out: &mut Vec<u8>) {
    out.push(b'd');
    write_bytes(out, "failure reason", reason.as_bytes());
    match retry_in {
        Some(RetryIn::Never) => write_bytes(out, "retry in", b"never"),
        Some(RetryIn::After(pause)) => {
            let minutes = pause.as_secs().div_ceil(60);
            write_number(out, "retry in", u32::try_from(minutes).unwrap_or(u32::MAX));
        }
        None => (),
    }
    out.push(b'e');
}

/// Appends an answer to a scrape; the torrents come in ascending order.
pub fn encode_scrape(torrents: impl Iterator<Item = (InfoHash, Scraped)>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"d5:filesd");
    for (infohash, scraped) in torrents {
        out.extend_from_slice(b"20:");
        out.extend_from_slice(&infohash.0);
        out.push(b'd');
        write_number(out, "complete", scraped.seeders);
        write_number(out, "downloaded", scraped.completed);
        write_number(out, "incomplete", scraped.leechers);
        out.push(b'e');
    }
    out.extend_from_slice(b"ee");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::time::Duration;
    use crate::proto::tracker::http;

    #[test]
    fn the_server_decodes_the_client_s_queries() {
        let announce = Announce {
            infohash: InfoHash(*b"\x00az-._~ +&=%\xff\x80/?#:@!"),
            peer_id: PeerId([0xab; 20]),
            port: 6881,
            uploaded: 1,
            downloaded: 2,
            left: 3,
            event: AnnounceEvent::Stopped,
            numwant: Some(50),
            key: 0xabc,
            ip: Some("2001:db8::1".parse().unwrap()),
            tracker_id: None,
        };
        let url = http::announce_url("http://t/announce?passkey=1", &announce);
        let query = decode_announce(url.split_once('?').unwrap().1);
        assert_eq!(query, Ok(Query { announce, compact: true }));
    }

    #[test]
    fn invalid_queries_get_the_reason() {
        let hash = "info_hash=aaaaaaaaaaaaaaaaaaaa";
        let id = "peer_id=bbbbbbbbbbbbbbbbbbbb";
        let read = |query: &str| decode_announce(query).map(|query| query.announce.left);
        assert_eq!(read(&format!("{hash}&{id}&port=1")), Ok(u64::MAX));
        assert_eq!(read(&format!("{hash}&{id}&port=0")), Err(QueryError::Port));
        assert_eq!(read(&format!("{hash}&{id}&port=65536")), Err(QueryError::Port));
        assert_eq!(read(&format!("{hash}&port=1")), Err(QueryError::PeerId));
        assert_eq!(read(&format!("{hash}a&{id}&port=1")), Err(QueryError::InfoHash));
        assert_eq!(read(&format!("{hash}&{id}&port=1&{hash}")), Err(QueryError::InfoHashCount));
        assert_eq!(read(&format!("{id}&port=1")), Err(QueryError::InfoHashCount));
        assert_eq!(read("info_hash=%zz%1&="), Err(QueryError::InfoHash));
        assert_eq!(decode_scrape(""), Err(QueryError::InfoHashCount));
        assert_eq!(decode_scrape("info_hash=a"), Err(QueryError::InfoHash));
    }

    #[test]
    fn numbers_that_cannot_be_read_count_as_missing() {
        let read = |rest: &str| {
            let whole = format!("info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=1&{rest}");
            decode_announce(&whole).unwrap().announce
        };
        let plain = read("");
        for value in
            ["", "=", "=-1", "=-0", "=1.5", "=1e3", "=NaN", "=%31x", "=99999999999999999999", "= 1", "=0x0"]
        {
            for name in ["left", "uploaded", "downloaded", "numwant", "ip"] {
                assert_eq!(read(&format!("{name}{value}")), plain, "{name}{value}");
            }
        }
        for rest in ["event", "event=", "event=paused", "key", "compact", "compact=", "&&=&", "left=7&left="]
        {
            assert_eq!(read(rest), plain, "{rest}");
        }
        assert_eq!(read("left=0").left, 0);
        assert_ne!(read("key=one text").key, read("key=another").key);
    }

    #[test]
    fn targets_are_split_whatever_slashes_clients_write() {
        for (target, expected) in [
            ("/announce?a=/b?c", ("announce", "a=/b?c")),
            ("//announce?a", ("announce", "a")),
            ("/announce/?a", ("announce", "a")),
            ("///announce///", ("announce", "")),
            ("http://tracker:6969/announce?a", ("announce", "a")),
            ("HTTP://[::1]:6969//scrape/?a", ("scrape", "a")),
            ("http://tracker?a", ("", "a")),
            ("/announce?u=http://x/y", ("announce", "u=http://x/y")),
            ("/health?x", ("health", "x")),
            ("/a/announce", ("a/announce", "")),
            ("*", ("*", "")),
            ("", ("", "")),
        ] {
            assert_eq!(split_target(target), expected, "{target}");
        }
    }

    #[test]
    fn the_client_decodes_the_server_s_answers() {
        let head = ReplyHead {
            interval_secs: 1800,
            min_interval_secs: 60,
            scraped: Scraped { seeders: 1, completed: 9, leechers: 2 },
            external_ip: "192.0.2.1".parse().unwrap(),
        };
        let mut chosen = Chosen::default();
        compact::encode("1.2.3.4:5".parse().unwrap(), &mut chosen.v4);
        compact::encode("[2001:db8::1]:6".parse().unwrap(), &mut chosen.v6);
        let mut replies = [true, false].map(|compact| {
            let mut body = Vec::new();
            encode_reply(&head, &chosen, compact, &mut body);
            http::decode_reply(&body).unwrap()
        });
        assert_eq!(replies[0], replies[1]);
        let reply = std::mem::take(&mut replies[0]);
        assert_eq!(reply.peers, ["1.2.3.4:5", "[2001:db8::1]:6"].map(|addr| addr.parse().unwrap()));
        assert_eq!((reply.seeders, reply.leechers), (Some(1), Some(2)));
        assert_eq!(reply.external_ip, Some(head.external_ip));
        assert_eq!(reply.min_interval, Some(Duration::from_secs(60)));
    }

    #[test]
    fn refusals_and_scrapes_round_trip() {
        use crate::proto::tracker::TrackerError;
        for retry_in in [None, Some(RetryIn::Never), Some(RetryIn::After(Duration::from_secs(300)))] {
            let mut body = Vec::new();
            encode_failure("no", retry_in, &mut body);
            let expected = TrackerError::Refused { reason: "no".into(), retry_in };
            assert_eq!(http::decode_reply(&body), Err(expected));
        }
        let hashes = [InfoHash([9; 20]), InfoHash([1; 20]), InfoHash([9; 20])];
        let url = http::scrape_url("http://t/announce", &hashes).unwrap();
        let asked = decode_scrape(url.split_once('?').unwrap().1).unwrap();
        assert_eq!(asked, [InfoHash([1; 20]), InfoHash([9; 20])]);
        let scraped = Scraped { seeders: 1, completed: 2, leechers: 3 };
        let mut body = Vec::new();
        encode_scrape(asked.into_iter().map(|hash| (hash, scraped)), &mut body);
        let figures = b"d8:completei1e10:downloadedi2e10:incompletei3ee";
        let expected = [&b"d5:filesd20:"[..], &[1; 20], figures, b"20:", &[9; 20], figures, b"ee"];
        assert_eq!(body, expected.concat());
    }
}
