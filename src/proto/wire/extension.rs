//! The extension handshake (BEP 10): which extensions a peer supports, under which numbers.
//!
//! The receiver of a message chooses its number, so `m` says how to write to its sender. A repeated
//! handshake replaces the keys that it has; the peer machine does this. An `m` entry of 0 switches
//! an extension off: [`ExtensionHandshake::update`] drops its number. Missing, mistyped and
//! out-of-range values count as absent, because clients differ and no value here justifies a
//! disconnect. Unknown keys are ignored.

use std::net::IpAddr;

use bytes::Bytes;

use crate::proto::bencode::{self, BencodeError, Limits, Value};

/// Our own number for `sp_have`, the interval's availability between sprats.
pub const SP_HAVE_ID: u8 = 1;

/// Longest payload of an extension handshake; a longer one is not read.
pub const HANDSHAKE_LEN_MAX: usize = Limits::EXTENSION.len_max;

/// Most characters of a client's name that are kept; the rest is cut off.
pub const CLIENT_CHAR_MAX: usize = 64;

/// An extension handshake; every value is optional. A number of 0 switches its extension off, and
/// never remains after [`ExtensionHandshake::update`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionHandshake {
    /// The sender's number for `lt_donthave` (BEP 54).
    pub lt_donthave: Option<u8>,
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
    /// Requests that the sender queues.
    pub request_queue_max: Option<u32>,
    /// The receiver's address as the sender sees it.
    pub your_ip: Option<IpAddr>,
    /// Whether the sender will not download (BEP 21).
    pub upload_only: bool,
}

/// The peer's extension handshake is no dictionary within the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad extension handshake: {0}")]
pub struct ExtensionError(#[from] pub BencodeError);

impl ExtensionHandshake {
    /// Returns the payload of extended message 0.
    pub fn encode(&self) -> Bytes {
        let integer = |number: u32| bencode::encode_integer(number.into());
        let numbers = [
            ("lt_donthave", self.lt_donthave),
            ("sp_have", self.sp_have),
            ("ut_metadata", self.ut_metadata),
            ("ut_pex", self.ut_pex),
        ];
        let numbers = numbers.map(|(name, number)| (name, number.map(|number| integer(number.into()))));
        let your_ip = self.your_ip.map(|ip| match ip.to_canonical() {
            IpAddr::V4(ip) => bencode::encode_bytes(ip.octets()),
            IpAddr::V6(ip) => bencode::encode_bytes(ip.octets()),
        });
        bencode::encode_dict([
            ("m", Some(bencode::encode_dict(numbers))),
            ("metadata_size", self.metadata_size.map(integer)),
            ("p", self.port.map(|port| integer(port.into()))),
            ("reqq", self.request_queue_max.map(integer)),
            ("upload_only", self.upload_only.then(|| integer(1))),
            ("v", self.client.as_ref().map(bencode::encode_bytes)),
            ("yourip", your_ip),
        ])
        .into()
    }

    /// Applies a later handshake of the same sender, which replaces the keys that it has (BEP 10).
    pub fn update(&mut self, later: Self) {
        let is_on = |number: &u8| *number > 0;
        *self = Self {
            lt_donthave: later.lt_donthave.or(self.lt_donthave).filter(is_on),
            sp_have: later.sp_have.or(self.sp_have).filter(is_on),
            ut_metadata: later.ut_metadata.or(self.ut_metadata).filter(is_on),
            ut_pex: later.ut_pex.or(self.ut_pex).filter(is_on),
            metadata_size: later.metadata_size.or(self.metadata_size),
            port: later.port.or(self.port),
            client: later.client.or(self.client.take()),
            request_queue_max: later.request_queue_max.or(self.request_queue_max),
            your_ip: later.your_ip.or(self.your_ip),
            upload_only: later.upload_only,
        };
    }

    /// Decodes the payload of extended message 0; values of the wrong kind or range count as
    /// absent.
    ///
    /// # Errors
    /// The payload does not begin with a dictionary, or exceeds the limits.
    pub fn decode(payload: &[u8]) -> Result<Self, ExtensionError> {
        let root = Value::read(payload, &Limits::EXTENSION)?.dict();
        let root = root.ok_or(BencodeError { at: 0, what: "not a dictionary" })?;
        let numbers = root.get(b"m").and_then(|numbers| numbers.dict());
        let extension = |name: &[u8]| u8::try_from(numbers?.get(name)?.integer()?).ok();
        Ok(Self {
            lt_donthave: extension(b"lt_donthave"),
            sp_have: extension(b"sp_have"),
            ut_metadata: extension(b"ut_metadata"),
            ut_pex: extension(b"ut_pex"),
            metadata_size: root.get(b"metadata_size").and_then(positive),
            port: root.get(b"p").and_then(positive),
            client: root.get(b"v").and_then(client_name),
            request_queue_max: root.get(b"reqq").and_then(positive),
            your_ip: root.get(b"yourip").and_then(address),
            upload_only: root.get(b"upload_only").and_then(positive::<u32>).is_some(),
        })
    }
}

/// A number above 0 that fits: 0 means "none" for every number outside `m`.
fn positive<T: TryFrom<i64>>(value: Value) -> Option<T> {
    let number = value.integer().filter(|number| *number > 0)?;
    T::try_from(number).ok()
}

fn client_name(value: Value) -> Option<String> {
    let harmless = |character: &char| !character.is_control() && !changes_direction(*character);
    let text = String::from_utf8_lossy(value.bytes()?);
    let name: String = text.chars().filter(harmless).take(CLIENT_CHAR_MAX).collect();
    (!name.is_empty()).then_some(name)
}

fn address(value: Value) -> Option<IpAddr> {
    let bytes = value.bytes()?;
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|ip| ip.to_canonical())
}

/// Whether it is a mark, embedding, override or isolate of Unicode's bidirectional algorithm, with
/// which a name could rearrange the line that shows it.
fn changes_direction(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
