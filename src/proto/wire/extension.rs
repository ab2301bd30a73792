//! The extension handshake (BEP 10): which extensions a peer speaks, under which numbers.
//!
//! A message's number is chosen by whoever receives it, so what `m` says is how to write to its sender. The
//! handshake may come again and then replaces what it names; that is the peer machine's to do. Read
//! tolerantly: what is missing, of the wrong kind or out of range counts as absent, since clients differ and
//! nothing here is worth losing one for. Keys that nobody knows are ignored (as is an `m` entry of 0, which
//! switches an extension off).

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use serde::Serialize;
use serde_bencode::value::Value;
use serde_bytes::ByteBuf;

use crate::proto::bencode::{self, Keys, Limits, Trailing};

/// Our own number for `sp_have`, the interval's availability between sprats.
pub const SP_HAVE_ID: u8 = 1;

/// Most characters of a client's name that are kept; the rest is cut off.
pub const CLIENT_CHAR_MAX: usize = 64;

/// What an extension handshake may cost: those of today's clients take some 300 bytes and 60 tokens. Beyond
/// it the message is refused.
const LIMITS: Limits = Limits {
    len_max: 16 * 1024,
    depth_max: 16,
    token_max: 1_024,
    trailing: Trailing::Ignored,
    keys: Keys::LastWins,
};

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

/// The dictionary as on the wire.
#[derive(Serialize)]
struct Wire<'a> {
    m: BTreeMap<&'static str, u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reqq: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload_only: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    yourip: Option<ByteBuf>,
}

impl ExtensionHandshake {
    /// The payload of extended message 0.
    pub fn encode(&self) -> Bytes {
        let numbers = [("sp_have", self.sp_have), ("ut_metadata", self.ut_metadata), ("ut_pex", self.ut_pex)];
        bencode::encode(&Wire {
            m: numbers.into_iter().filter_map(|(name, number)| Some((name, number?))).collect(),
            metadata_size: self.metadata_size,
            p: self.port,
            reqq: self.request_queue_max,
            upload_only: self.upload_only.then_some(1),
            v: self.client.as_deref(),
            yourip: self.your_ip.map(|ip| match ip.to_canonical() {
                IpAddr::V4(ip) => ByteBuf::from(ip.octets()),
                IpAddr::V6(ip) => ByteBuf::from(ip.octets()),
            }),
        })
        .into()
    }

    /// Reads the payload of extended message 0; values of the wrong kind or range count as absent.
    ///
    /// # Errors
    /// The payload does not begin with a dictionary, or takes more than any client's does.
    pub fn decode(payload: &[u8]) -> Result<Self, ExtensionError> {
        let root = Dictionary(bencode::decode(payload, &LIMITS)?);
        Ok(Self {
            sp_have: root.extension("sp_have"),
            ut_metadata: root.extension("ut_metadata"),
            ut_pex: root.extension("ut_pex"),
            metadata_size: root.positive("metadata_size"),
            port: root.positive("p"),
            client: root.text("v"),
            request_queue_max: root.positive("reqq"),
            your_ip: root.address("yourip"),
            upload_only: root.positive::<u32>("upload_only").is_some(),
        })
    }
}

/// The root dictionary as received.
struct Dictionary(BTreeMap<ByteBuf, Value>);

impl Dictionary {
    fn value(&self, key: &str) -> Option<&Value> {
        self.0.get(serde_bytes::Bytes::new(key.as_bytes()))
    }

    fn extension(&self, name: &str) -> Option<u8> {
        let Value::Dict(numbers) = self.value("m")? else { return None };
        positive(numbers.get(name.as_bytes())?)
    }

    fn positive<T: TryFrom<i64>>(&self, key: &str) -> Option<T> {
        positive(self.value(key)?)
    }

    fn text(&self, key: &str) -> Option<String> {
        let Value::Bytes(bytes) = self.value(key)? else { return None };
        let harmless = |character: &char| !character.is_control() && !changes_direction(*character);
        let text: String =
            String::from_utf8_lossy(bytes).chars().filter(harmless).take(CLIENT_CHAR_MAX).collect();
        (!text.is_empty()).then_some(text)
    }

    fn address(&self, key: &str) -> Option<IpAddr> {
        let Value::Bytes(bytes) = self.value(key)? else { return None };
        let v4 = <[u8; 4]>::try_from(&bytes[..]).map(IpAddr::from);
        v4.or_else(|_| <[u8; 16]>::try_from(&bytes[..]).map(IpAddr::from)).ok().map(|ip| ip.to_canonical())
    }
}

/// A number above 0 that fits: 0 means "none" for every number of this handshake.
fn positive<T: TryFrom<i64>>(value: &Value) -> Option<T> {
    let Value::Int(number) = value else { return None };
    (*number > 0).then(|| T::try_from(*number).ok()).flatten()
}

/// Marks, embeddings, overrides and isolates of Unicode's bidirectional algorithm: with them a name could
/// rearrange the line that it is shown in.
fn changes_direction(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
