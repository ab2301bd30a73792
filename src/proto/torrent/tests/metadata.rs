//! A machine that has the description, and a peer that a test plays and that wants it.

use bytes::Bytes;

use super::rules::{PEER, PIECES, Rig, connected, disconnected};
use super::swarm::{FAST, settings};
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::Geometry;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{Command, DisconnectReason, Output, Settings};
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::{MetadataMessage, UT_METADATA_ID};

/// A seed with a description of three pieces, and a peer that takes metadata under number 9.
fn describing_seed(private: bool) -> Rig {
    let settings = Settings { metadata: vec![3; 40_000].into(), private, ..settings(0) };
    let mut rig = Rig::with(settings, Bitfield::full(PIECES));
    let greeting = rig.connect(PEER, connected(1, FAST));
    let handshake = extended(&greeting, 0).find_map(|payload| ExtensionHandshake::decode(payload).ok());
    let told = (!private).then_some(40_000);
    assert_eq!(handshake.unwrap().metadata_size, told);
    let payload = ExtensionHandshake { ut_metadata: Some(9), ..ExtensionHandshake::default() }.encode();
    rig.say(Message::Extended { id: 0, payload });
    rig
}

fn ask_metadata(rig: &mut Rig, piece: u32) -> Vec<Output> {
    rig.say(Message::Extended { id: UT_METADATA_ID, payload: MetadataMessage::Request(piece).encode() })
}

/// Payloads of the extended messages under this number.
fn extended(outputs: &[Output], number: u8) -> impl Iterator<Item = &Bytes> {
    outputs.iter().filter_map(move |output| {
        if let Output::Send(_, message) | Output::SendMetadata(_, message) = output
            && let Message::Extended { id, payload } = message
        {
            (*id == number).then_some(payload)
        } else {
            None
        }
    })
}

fn metadata(outputs: &[Output]) -> Vec<MetadataMessage> {
    extended(outputs, 9).filter_map(|payload| MetadataMessage::decode(payload).ok()).collect()
}

#[test]
fn the_description_is_given_piece_by_piece_and_not_without_end() {
    let mut rig = describing_seed(false);
    let last = MetadataMessage::Data { piece: 2, total_len: 40_000, bytes: vec![3; 7_232].into() };
    assert_eq!(metadata(&ask_metadata(&mut rig, 2)), [last]);
    assert_eq!(metadata(&ask_metadata(&mut rig, 3)), [MetadataMessage::Reject(3)]);
    let flood: Vec<_> = (0..250).flat_map(|_| ask_metadata(&mut rig, 0)).collect();
    let (given, refused): (Vec<_>, Vec<_>) =
        metadata(&flood).into_iter().partition(|message| matches!(message, MetadataMessage::Data { .. }));
    assert_eq!((given.len(), refused.len()), (5, 245), "the whole twice");
    assert_eq!(disconnected(&flood), None);
    let flood: Vec<_> = (0..250).flat_map(|_| ask_metadata(&mut rig, 0)).collect();
    assert!(matches!(disconnected(&flood), Some(DisconnectReason::Protocol(_))));
    assert_eq!(rig.torrent.snapshot(rig.now).traffic.availability_sent, 5, "one have-all");
}

#[test]
fn the_description_leaves_under_the_upload_limit() {
    let mut rig = describing_seed(false);
    let limit = Command::Limit { upload_rate: Some(16_384), download_rate: None };
    rig.torrent.handle_command(rig.now, limit);
    let outputs: Vec<_> = (0..3).flat_map(|piece| ask_metadata(&mut rig, piece)).collect();
    assert_eq!(metadata(&outputs).len(), 1);
    assert!(metadata(&rig.wait(Duration::from_millis(800))).is_empty());
    assert_eq!(metadata(&rig.wait(Duration::from_millis(1_300))).len(), 2);
}

#[test]
fn of_long_metadata_so_much_is_handed_out_as_has_left() {
    let settings = Settings { metadata: vec![3; 50 * 16_384].into(), ..settings(0) };
    let mut rig = Rig::with(settings, Bitfield::full(PIECES));
    rig.connect(PEER, connected(1, FAST));
    let payload = ExtensionHandshake { ut_metadata: Some(9), ..ExtensionHandshake::default() }.encode();
    rig.say(Message::Extended { id: 0, payload });
    let outputs: Vec<_> = (0..50).flat_map(|piece| ask_metadata(&mut rig, piece)).collect();
    assert_eq!(metadata(&outputs).len(), 16);
    assert!(metadata(&rig.wait(Duration::from_secs(5))).is_empty(), "the peer does not read");
    let sent = [16, 5, 11, 16, 2, 1].map(|count| {
        rig.torrent.handle_metadata_sent(rig.now, PEER, count);
        metadata(&rig.drain()).len()
    });
    assert_eq!(sent, [16, 5, 11, 2, 0, 0]);
}

/// A seed with metadata of three pieces of a torrent of so many pieces.
fn complete(piece_count: u32) -> Rig {
    let settings = Settings { metadata: vec![3; 40_000].into(), ..settings(0) };
    let now = Instant::from_micros(1_000_000);
    let geometry = Geometry::new(u64::from(piece_count) * 32_768, 32_768).unwrap();
    let full = Bitfield::full(piece_count);
    let torrent = Torrent::new(settings, geometry, full.clone(), full, Rng::from_number(1), now);
    Rig { torrent, now }
}

/// What a peer says first, and whether it may have come for metadata.
#[test]
fn who_has_only_the_infohash_is_not_parted_from_as_complete() {
    let handshake = |metadata_size, upload_only| {
        let known = ExtensionHandshake {
            ut_metadata: Some(9),
            metadata_size,
            upload_only,
            ..ExtensionHandshake::default()
        };
        Message::Extended { id: 0, payload: known.encode() }
    };
    let empty = Message::Bitfield(Bitfield::new(0));
    let cases = [
        // A torrent without pieces: every word on pieces says "complete".
        (0, vec![Message::HaveNone, handshake(None, false)], true),
        (0, vec![Message::HaveAll, handshake(None, false)], true),
        (0, vec![empty, handshake(None, true)], true),
        (0, vec![handshake(None, false), Message::HaveNone], true),
        (0, vec![handshake(Some(0), true)], true),
        (0, vec![Message::HaveAll], true),
        (0, vec![Message::HaveNone, handshake(Some(40_000), true)], false),
        (0, vec![handshake(Some(40_000), false), Message::HaveAll], false),
        // qBittorrent and libtorrent say that they only upload while they wait for metadata alone.
        (PIECES, vec![handshake(None, true)], true),
        (PIECES, vec![Message::HaveNone, handshake(None, true)], true),
        (PIECES, vec![handshake(Some(40_000), true)], false),
        (PIECES, vec![Message::HaveAll], false),
        (PIECES, vec![handshake(None, false), Message::HaveAll], false),
    ];
    for (piece_count, said, stays) in cases {
        let mut rig = complete(piece_count);
        rig.connect(PEER, connected(1, FAST));
        let outputs: Vec<_> = said.iter().flat_map(|message| rig.say(message.clone())).collect();
        assert_eq!(disconnected(&outputs).is_none(), stays, "{piece_count}: {said:?}");
        let greeted = said.iter().any(|message| matches!(message, Message::Extended { .. }));
        if stays && greeted {
            let given: Vec<_> = (0..3).flat_map(|piece| ask_metadata(&mut rig, piece)).collect();
            assert_eq!(metadata(&given).len(), 3, "{piece_count}: {said:?}");
            let outputs = rig.say(handshake(Some(40_000), true));
            assert_eq!(disconnected(&outputs), Some(DisconnectReason::BothComplete), "it has it now");
        }
    }
}

#[test]
fn a_private_torrent_s_description_is_not_given() {
    let mut rig = describing_seed(true);
    assert!(ask_metadata(&mut rig, 0).is_empty());
}

#[test]
fn metadata_that_nobody_asked_for_ends_the_connection_when_it_goes_on() {
    let mut rig = describing_seed(false);
    let data = MetadataMessage::Data { piece: 0, total_len: 40_000, bytes: vec![3; 16_384].into() };
    let message = Message::Extended { id: UT_METADATA_ID, payload: data.encode() };
    let outputs: Vec<_> = (0..100).flat_map(|_| rig.say(message.clone())).collect();
    assert_eq!(disconnected(&outputs), None);
    assert!(disconnected(&rig.say(message)).is_some());
}
