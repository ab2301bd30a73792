//! The extension handshake (BEP 10): which extensions a peer speaks, under which numbers.

use std::net::IpAddr;

use bytes::Bytes;

/// Our own number for `sp_have`, the interval's availability between sprats.
pub const SP_HAVE_ID: u8 = 1;

/// An extension handshake; everything is optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionHandshake {
    /// The sender's number for `sp_have`.
    pub sp_have: Option<u8>,
    /// The sender's number for `ut_metadata` (BEP 9).
    pub ut_metadata: Option<u8>,
    /// The sender's number for `ut_pex` (BEP 11).
    pub ut_pex: Option<u8>,
    /// Bytes of the info dictionary (BEP 9).
    pub metadata_size: Option<u32>,
    /// The sender's listening port.
    pub port: Option<u16>,
    /// Client name and version; at most 64 characters are kept, none of them control characters.
    pub client: Option<String>,
    /// Requests that the sender lets wait in its queue.
    pub request_queue_max: Option<u32>,
    /// The receiver's address as the sender sees it.
    pub your_ip: Option<IpAddr>,
    /// Will not download (BEP 21).
    pub upload_only: bool,
}

/// The peer's extension handshake is no dictionary within the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad extension handshake: {0}")]
pub struct ExtensionError(#[from] pub crate::proto::bencode::BencodeError);

impl ExtensionHandshake {
    /// The payload of extended message 0.
    pub fn encode(&self) -> Bytes {
        todo!()
    }

    /// Reads the payload of extended message 0; values of the wrong kind or range count as absent.
    pub fn decode(payload: &[u8]) -> Result<Self, ExtensionError> {
        let _ = payload;
        todo!()
    }
}
