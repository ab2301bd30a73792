//! UDP trackers (BEP 15, 41): packets, both directions.
//!
//! Decoders are total and borrow: any datagram is a packet or a [`PacketError`], and decoding a
//! request allocates nothing. `udp_client` and `service` decide which ids are valid and when to
//! send.

use std::net::{IpAddr, Ipv4Addr};

use super::scrape::{Scraped, UDP_TORRENT_MAX};
use super::{Announce, AnnounceEvent, AnnounceReply, clamped_interval};
use crate::proto::compact;
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;

/// Starts every connect request, so that the tracker can distinguish it from noise.
pub const PROTOCOL_ID: u64 = 0x0417_2710_1980;
/// Length of a connect request, bytes, the shortest packet: a tracker answers nothing shorter.
pub const CONNECT_LEN: usize = 16;
/// Length of an announce request before its options, bytes.
pub const ANNOUNCE_LEN: usize = 98;
/// Longest path and query that an announce carries (BEP 41); the rest is cut off, so that the
/// datagram stays within an MTU.
pub const URL_DATA_LEN_MAX: usize = 1020;

const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;

const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_URL_DATA: u8 = 2;

/// Why a datagram is no packet of BEP 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Ends early.
    #[error("too short")]
    Short,
    /// An unknown action, or one of the other direction.
    #[error("unknown action")]
    Action,
    /// A connect request without [`PROTOCOL_ID`].
    #[error("wrong protocol id")]
    ProtocolId,
}

/// A packet of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Asks for a connection id.
    Connect {
        /// Comes back in the reply.
        transaction_id: u32,
    },
    /// Announces.
    Announce {
        /// Proves that the sender receives at its address.
        connection_id: u64,
        /// Comes back in the reply.
        transaction_id: u32,
        /// What is announced.
        announce: Announce,
        /// What follows it (BEP 41).
        options: Options<'a>,
    },
    /// Asks for figures of torrents.
    Scrape {
        /// Proves that the sender receives at its address.
        connection_id: u64,
        /// Comes back in the reply.
        transaction_id: u32,
        /// The torrents, at most [`UDP_TORRENT_MAX`].
        infohashes: &'a [[u8; 20]],
    },
}

/// What a tracker answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// A connection id.
    Connect {
        /// As in the request.
        transaction_id: u32,
        /// For the next minute's requests.
        connection_id: u64,
    },
    /// To an announce.
    Announce {
        /// As in the request.
        transaction_id: u32,
        /// The peers are of the family that was asked over.
        reply: AnnounceReply,
    },
    /// To a scrape, in the order asked.
    Scrape {
        /// As in the request.
        transaction_id: u32,
        /// One for each torrent.
        torrents: Vec<Scraped>,
    },
    /// It says no.
    Error {
        /// As in the request.
        transaction_id: u32,
        /// For people.
        message: String,
    },
}

/// Which addresses a reply carries: those of the family it came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// 6 bytes a peer.
    V4,
    /// 18 bytes a peer.
    V6,
}

impl Family {
    /// The family of an address, IPv4-mapped being IPv4.
    pub fn of(ip: IpAddr) -> Self {
        if ip.to_canonical().is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// The options after an announce (BEP 41), as they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// The parts of path and query, to be joined. Unknown options are skipped; one that claims more
    /// bytes than there are ends the list.
    pub fn url_data(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                let (&kind, after) = rest.split_first()?;
                if kind == OPTION_END {
                    return None;
                }
                if kind == OPTION_NOP {
                    rest = after;
                    continue;
                }
                let (&len, after) = after.split_first()?;
                let (data, after) = after.split_at_checked(usize::from(len))?;
                rest = after;
                if kind == OPTION_URL_DATA {
                    return Some(data);
                }
            }
        })
    }
}

/// Takes integers and arrays off the front of a datagram.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], PacketError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(PacketError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, PacketError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, PacketError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, PacketError> {
        self.array().map(u64::from_be_bytes)
    }
}

/// Reads what a client sent.
pub fn decode_request(bytes: &[u8]) -> Result<Request<'_>, PacketError> {
    let mut reader = Reader(bytes);
    let connection_id = reader.u64()?;
    let action = reader.u32()?;
    let transaction_id = reader.u32()?;
    match action {
        CONNECT if connection_id != PROTOCOL_ID => Err(PacketError::ProtocolId),
        CONNECT => Ok(Request::Connect { transaction_id }),
        ANNOUNCE => {
            let announce = decode_announce(&mut reader)?;
            Ok(Request::Announce { connection_id, transaction_id, announce, options: Options(reader.0) })
        }
        SCRAPE => {
            let all = reader.0.as_chunks().0;
            let infohashes = &all[..all.len().min(UDP_TORRENT_MAX)];
            Ok(Request::Scrape { connection_id, transaction_id, infohashes })
        }
        _ => Err(PacketError::Action),
    }
}

fn decode_announce(reader: &mut Reader<'_>) -> Result<Announce, PacketError> {
    let infohash = InfoHash(reader.array()?);
    let peer_id = PeerId(reader.array()?);
    let downloaded = reader.u64()?;
    let left = reader.u64()?;
    let uploaded = reader.u64()?;
    let event = match reader.u32()? {
        1 => AnnounceEvent::Completed,
        2 => AnnounceEvent::Started,
        3 => AnnounceEvent::Stopped,
        _ => AnnounceEvent::None,
    };
    let ip = Ipv4Addr::from(reader.array::<4>()?);
    let key = reader.u32()?;
    // -1 asks for the tracker's default; other negative numbers mean nothing, so they mean that
    // too.
    let numwant = u32::try_from(reader.u32()? as i32).ok();
    let port = reader.u16()?;
    let ip = (!ip.is_unspecified()).then_some(ip.into());
    Ok(Announce {
        infohash,
        peer_id,
        port,
        uploaded,
        downloaded,
        left,
        event,
        numwant,
        key,
        ip,
        tracker_id: None,
    })
}

fn encode_head(id: u64, action: u32, transaction_id: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&transaction_id.to_be_bytes());
}

/// Appends a connect request.
pub fn encode_connect(transaction_id: u32, out: &mut Vec<u8>) {
    encode_head(PROTOCOL_ID, CONNECT, transaction_id, out);
}

/// Appends an announce request; `url_data` is path and query of the tracker's URL, cut off at
/// [`URL_DATA_LEN_MAX`].
pub fn encode_announce(
    connection_id: u64,
    transaction_id: u32,
    announce: &Announce,
    url_data: &str,
    out: &mut Vec<u8>,
) {
    encode_head(connection_id, ANNOUNCE, transaction_id, out);
    out.extend_from_slice(&announce.infohash.0);
    out.extend_from_slice(&announce.peer_id.0);
    out.extend_from_slice(&announce.downloaded.to_be_bytes());
    out.extend_from_slice(&announce.left.to_be_bytes());
    out.extend_from_slice(&announce.uploaded.to_be_bytes());
    let event: u32 = match announce.event {
        AnnounceEvent::None => 0,
        AnnounceEvent::Completed => 1,
        AnnounceEvent::Started => 2,
        AnnounceEvent::Stopped => 3,
    };
    out.extend_from_slice(&event.to_be_bytes());
    // The field has room for IPv4 only.
    let ip = match announce.ip.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => ip,
        Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&announce.key.to_be_bytes());
    let numwant = announce.numwant.map_or(-1, |count| i32::try_from(count).unwrap_or(i32::MAX));
    out.extend_from_slice(&numwant.to_be_bytes());
    out.extend_from_slice(&announce.port.to_be_bytes());
    let url_data = &url_data.as_bytes()[..url_data.len().min(URL_DATA_LEN_MAX)];
    for part in url_data.chunks(usize::from(u8::MAX)) {
        out.extend_from_slice(&[OPTION_URL_DATA, part.len() as u8]);
        out.extend_from_slice(part);
    }
}

/// Appends a scrape request for the first [`UDP_TORRENT_MAX`] of `infohashes`.
pub fn encode_scrape(connection_id: u64, transaction_id: u32, infohashes: &[InfoHash], out: &mut Vec<u8>) {
    encode_head(connection_id, SCRAPE, transaction_id, out);
    for infohash in infohashes.iter().take(UDP_TORRENT_MAX) {
        out.extend_from_slice(&infohash.0);
    }
}

/// Reads what a tracker sent over `family`.
pub fn decode_response(bytes: &[u8], family: Family) -> Result<Response, PacketError> {
    let mut reader = Reader(bytes);
    let action = reader.u32()?;
    let transaction_id = reader.u32()?;
    match action {
        CONNECT => Ok(Response::Connect { transaction_id, connection_id: reader.u64()? }),
        ANNOUNCE => {
            let interval = clamped_interval(i64::from(reader.u32()? as i32));
            let leechers = Some(reader.u32()?);
            let seeders = Some(reader.u32()?);
            let peers = match family {
                Family::V4 => {
                    compact::decode_v4(reader.0).filter(|&peer| compact::is_dialable(peer)).collect()
                }
                Family::V6 => {
                    compact::decode_v6(reader.0).filter(|&peer| compact::is_dialable(peer)).collect()
                }
            };
            let reply = AnnounceReply { interval, seeders, leechers, peers, ..AnnounceReply::default() };
            Ok(Response::Announce { transaction_id, reply })
        }
        SCRAPE => {
            let rows = reader.0.as_chunks::<12>().0.iter().take(UDP_TORRENT_MAX);
            let torrents = rows.map(|row| {
                let column = |at: usize| u32::from_be_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
                Scraped { seeders: column(0), completed: column(4), leechers: column(8) }
            });
            Ok(Response::Scrape { transaction_id, torrents: torrents.collect() })
        }
        ERROR => Ok(Response::Error { transaction_id, message: super::words(reader.0) }),
        _ => Err(PacketError::Action),
    }
}

/// Appends the reply to a connect.
pub fn encode_connect_reply(transaction_id: u32, connection_id: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&CONNECT.to_be_bytes());
    out.extend_from_slice(&transaction_id.to_be_bytes());
    out.extend_from_slice(&connection_id.to_be_bytes());
}

/// Appends the reply to an announce, up to its peers: those follow in compact form, of the family
/// asked over.
pub fn encode_announce_reply(
    transaction_id: u32,
    interval_secs: u32,
    leechers: u32,
    seeders: u32,
    out: &mut Vec<u8>,
) {
    for number in [ANNOUNCE, transaction_id, interval_secs, leechers, seeders] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends the head of the reply to a scrape: [`encode_scraped`] follows for each torrent asked, in
/// order.
pub fn encode_scrape_reply(transaction_id: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&SCRAPE.to_be_bytes());
    out.extend_from_slice(&transaction_id.to_be_bytes());
}

/// Appends one torrent's figures.
pub fn encode_scraped(scraped: Scraped, out: &mut Vec<u8>) {
    for number in [scraped.seeders, scraped.completed, scraped.leechers] {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

/// Appends an error reply.
pub fn encode_error(transaction_id: u32, message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&ERROR.to_be_bytes());
    out.extend_from_slice(&transaction_id.to_be_bytes());
    out.extend_from_slice(message.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announce() -> Announce {
        Announce {
            infohash: InfoHash([1; 20]),
            peer_id: PeerId([2; 20]),
            port: 6881,
            uploaded: 3,
            downloaded: 4,
            left: 5,
            event: AnnounceEvent::Started,
            numwant: None,
            key: 6,
            ip: None,
            tracker_id: None,
        }
    }

    #[test]
    fn an_announce_round_trips_and_its_fields_are_where_the_bep_puts_them() {
        let mut bytes = Vec::new();
        let announce = announce();
        encode_announce(7, 8, &announce, "", &mut bytes);
        assert_eq!(bytes.len(), ANNOUNCE_LEN);
        assert_eq!(&bytes[8..16], [0, 0, 0, 1, 0, 0, 0, 8]);
        assert_eq!(
            &bytes[56..84],
            [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2]
        );
        assert_eq!(&bytes[92..], [0xff, 0xff, 0xff, 0xff, 0x1a, 0xe1]);
        let options = Options::default();
        let expected = Request::Announce { connection_id: 7, transaction_id: 8, announce, options };
        assert_eq!(decode_request(&bytes), Ok(expected));
        for len in 0..bytes.len() {
            assert_eq!(decode_request(&bytes[..len]), Err(PacketError::Short));
        }
    }

    #[test]
    fn long_urls_come_in_parts_and_lying_options_end_the_list() {
        let url = format!("/{}?key=1", "x".repeat(600));
        let mut bytes = Vec::new();
        encode_announce(7, 8, &announce(), &url, &mut bytes);
        let Ok(Request::Announce { options, .. }) = decode_request(&bytes) else { panic!() };
        assert_eq!(options.url_data().collect::<Vec<_>>().concat(), url.as_bytes());
        assert_eq!(
            Options(b"\x01\x02\x03abc\x07\x01z\x02\x01d\x00\x02\x01e")
                .url_data()
                .collect::<Vec<_>>()
                .concat(),
            b"abcd"
        );
        assert_eq!(Options(b"\x02\x01a\x02\xffb").url_data().collect::<Vec<_>>(), [b"a"]);
        assert_eq!(Options(b"\x02").url_data().count(), 0);
    }

    #[test]
    fn a_connect_needs_the_protocol_id() {
        let mut bytes = Vec::new();
        encode_connect(9, &mut bytes);
        assert_eq!(bytes.len(), CONNECT_LEN);
        assert_eq!(decode_request(&bytes), Ok(Request::Connect { transaction_id: 9 }));
        bytes[7] ^= 1;
        assert_eq!(decode_request(&bytes), Err(PacketError::ProtocolId));
        bytes[11] = 3;
        assert_eq!(decode_request(&bytes), Err(PacketError::Action));
    }

    #[test]
    fn replies_carry_peers_of_the_family_asked_over() {
        for (family, peer) in [(Family::V4, "1.2.3.4:5"), (Family::V6, "[2001:db8::1]:6")] {
            let mut bytes = Vec::new();
            encode_announce_reply(1, 1800, 3, 4, &mut bytes);
            let peer = peer.parse().unwrap();
            compact::encode(peer, &mut bytes);
            let Ok(Response::Announce { transaction_id: 1, reply }) = decode_response(&bytes, family) else {
                panic!()
            };
            assert_eq!((reply.leechers, reply.seeders, reply.peers), (Some(3), Some(4), vec![peer]));
            assert_eq!(reply.interval.as_secs(), 1800);
        }
    }

    #[test]
    fn scrapes_round_trip_and_are_truncated_to_a_datagram() {
        let mut bytes = Vec::new();
        encode_scrape(1, 2, &[InfoHash([3; 20]); 80], &mut bytes);
        let Ok(Request::Scrape { infohashes, .. }) = decode_request(&bytes) else { panic!() };
        assert_eq!(infohashes, [[3; 20]; UDP_TORRENT_MAX]);
        let scraped = Scraped { seeders: 1, completed: 2, leechers: 3 };
        let mut bytes = Vec::new();
        encode_scrape_reply(2, &mut bytes);
        encode_scraped(scraped, &mut bytes);
        let expected = Response::Scrape { transaction_id: 2, torrents: vec![scraped] };
        assert_eq!(decode_response(&bytes, Family::V4), Ok(expected));
    }
}
