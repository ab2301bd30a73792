//! The first messages of a connection: our pieces (BEP 3, 6), our extensions (BEP 10), and the
//! allowed-fast set for newcomers (BEP 6).

use super::uploads::QUEUE_COUNT_MAX;
use crate::proto::bitfield::Bitfield;
use crate::proto::connection::{Connected, Settings};
use crate::proto::piece::PieceIndex;
use crate::proto::wire::allowed_fast::allowed_fast_set;
use crate::proto::wire::dont_have::LT_DONTHAVE_ID;
use crate::proto::wire::extension::{ExtensionHandshake, SP_HAVE_ID};
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::UT_METADATA_ID;
use crate::proto::wire::pex::UT_PEX_ID;

/// Pieces that a new peer may request while choked; peers with as many pieces get none.
pub const ALLOWED_FAST_COUNT: usize = 10;

/// Client name and version in the extension handshake.
const CLIENT: &str = concat!("sprat ", env!("CARGO_PKG_VERSION"));

/// Returns our pieces in the shortest message that the peer understands; `None` without BEP 6 if we
/// have no pieces.
pub fn availability(have: &Bitfield, fast: bool) -> Option<Message> {
    match (fast, have.count()) {
        (true, 0) => Some(Message::HaveNone),
        (true, _) if have.is_full() => Some(Message::HaveAll),
        (false, 0) => None,
        (true | false, _) => Some(Message::Bitfield(have.clone())),
    }
}

/// Returns our extension handshake. `upload_only`: we will not request anything (BEP 21).
/// `introduced`: [`introduction`] was sent before on this connection; what it offered and a private
/// torrent does not is switched off. `queue_max`: requests of the peer that may wait.
pub fn extension(
    settings: &Settings,
    connected: &Connected,
    upload_only: bool,
    introduced: bool,
    queue_max: u32,
) -> Message {
    let off = introduced.then_some(0);
    // Private or absent metadata is not offered.
    let metadata_len = u32::try_from(settings.metadata.len()).ok();
    let metadata_len = metadata_len.filter(|&len| len > 0 && !settings.private);
    let handshake = ExtensionHandshake {
        sp_have: Some(SP_HAVE_ID),
        ut_metadata: metadata_len.map(|_| UT_METADATA_ID).or(off),
        ut_pex: settings.gossips().then_some(UT_PEX_ID).or(off),
        metadata_size: metadata_len,
        upload_only,
        request_queue_max: Some(queue_max),
        ..plain(settings.listen_port, connected)
    };
    Message::Extended { id: 0, payload: handshake.encode() }
}

/// Returns the PORT message for a peer with a DHT node (BEP 5).
pub fn dht_port(settings: &Settings, connected: &Connected) -> Option<Message> {
    settings.dht_port().filter(|_| connected.capabilities.dht).map(Message::Port)
}

/// Returns our extension handshake of the metadata stage.
pub fn introduction(settings: &Settings, connected: &Connected) -> Message {
    let handshake = ExtensionHandshake {
        ut_metadata: Some(UT_METADATA_ID),
        ut_pex: settings.gossips().then_some(UT_PEX_ID),
        ..plain(settings.listen_port, connected)
    };
    Message::Extended { id: 0, payload: handshake.encode() }
}

/// Returns the part common to all our extension handshakes.
fn plain(listen_port: Option<u16>, connected: &Connected) -> ExtensionHandshake {
    ExtensionHandshake {
        port: listen_port,
        client: Some(CLIENT.to_owned()),
        request_queue_max: Some(QUEUE_COUNT_MAX as u32),
        your_ip: Some(connected.addr.ip()),
        lt_donthave: Some(LT_DONTHAVE_ID),
        ..ExtensionHandshake::default()
    }
}

/// Returns our pieces that a new peer may request while choked.
pub fn allowed_fast(settings: &Settings, connected: &Connected, have: &Bitfield) -> Vec<PieceIndex> {
    let set = allowed_fast_set(settings.infohash, connected.addr.ip(), have.len(), ALLOWED_FAST_COUNT);
    set.into_iter().filter(|&piece| have.get(piece)).collect()
}
