//! `ut_pex`: exchange of peer addresses (BEP 11).
//!
//! A message has the changes since the previous one to the same peer: compact addresses of either
//! family, each added one with a byte of flags. Keys of the wrong kind count as absent, missing
//! flags as none. Does not know which addresses may be sent to which peer, and how often.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::proto::bencode::{self, BencodeError, Keys, Limits, Numbers, Trailing, Value};
use crate::proto::compact;

/// Our own number for `ut_pex`.
pub const UT_PEX_ID: u8 = 3;

/// Most addresses added, and most dropped, in one message; further ones are ignored.
pub const PEX_COUNT_MAX: usize = 50;
/// Longest payload, bytes; longer ones are refused. Fifty and fifty of IPv6 take 1,900.
pub const PEX_LEN_MAX: usize = 8 * 1024;

/// What a payload may cost: six keys are known.
const LIMITS: Limits = Limits {
    len_max: PEX_LEN_MAX,
    depth_max: 4,
    token_max: 64,
    trailing: Trailing::Ignored,
    keys: Keys::LastWins,
    numbers: Numbers::Canonical,
};

/// The flags of an address, `added.f`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PexFlags {
    /// 0x01: prefers encryption.
    pub encryption: bool,
    /// 0x02: seed, or upload only.
    pub seed: bool,
    /// 0x04: speaks uTP.
    pub utp: bool,
    /// 0x08: speaks holepunch.
    pub holepunch: bool,
    /// 0x10: reachable: the sender dialled it.
    pub reachable: bool,
}

impl PexFlags {
    fn to_byte(self) -> u8 {
        let Self { encryption, seed, utp, holepunch, reachable } = self;
        [encryption, seed, utp, holepunch, reachable]
            .into_iter()
            .enumerate()
            .fold(0, |byte, (bit, flag)| byte | (u8::from(flag) << bit))
    }

    fn from_byte(byte: u8) -> Self {
        Self {
            encryption: byte & 0x01 != 0,
            seed: byte & 0x02 != 0,
            utp: byte & 0x04 != 0,
            holepunch: byte & 0x08 != 0,
            reachable: byte & 0x10 != 0,
        }
    }
}

/// A message: the changes since the previous one to the same peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PexMessage {
    /// New addresses of both families.
    pub added: Vec<(SocketAddr, PexFlags)>,
    /// Addresses of peers that left.
    pub dropped: Vec<SocketAddr>,
}

impl PexMessage {
    /// Whether the message has no changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty()
    }

    /// The payload of an extended message.
    pub fn encode(&self) -> Bytes {
        let mut lists: [Vec<u8>; 6] = Default::default();
        let [added, flags4, added6, flags6, dropped, dropped6] = &mut lists;
        for &(addr, flags) in &self.added {
            let is_v4 = compact::canonical(addr).is_ipv4();
            compact::encode(addr, if is_v4 { &mut *added } else { &mut *added6 });
            if is_v4 { &mut *flags4 } else { &mut *flags6 }.push(flags.to_byte());
        }
        for &addr in &self.dropped {
            let is_v4 = compact::canonical(addr).is_ipv4();
            compact::encode(addr, if is_v4 { &mut *dropped } else { &mut *dropped6 });
        }
        let keys = ["added", "added.f", "added6", "added6.f", "dropped", "dropped6"];
        let lists = lists.iter().map(|list| (!list.is_empty()).then(|| bencode::encode_bytes(list)));
        bencode::encode_dict(keys.into_iter().zip(lists)).into()
    }

    /// Decodes a payload; addresses are canonical, and those that cannot be dialled are dropped.
    ///
    /// # Errors
    /// It does not begin with a dictionary, or is too long.
    pub fn decode(payload: &[u8]) -> Result<Self, BencodeError> {
        if payload.len() > PEX_LEN_MAX {
            return Err(BencodeError { at: PEX_LEN_MAX, what: "too long" });
        }
        let root = Value::read(payload, &LIMITS)?.dict();
        let root = root.ok_or(BencodeError { at: 0, what: "not a dictionary" })?;
        let bytes = |key: &[u8]| root.get(key).and_then(|value| value.bytes()).unwrap_or_default();
        let flags =
            |key: &[u8]| bytes(key).iter().copied().chain(std::iter::repeat(0)).map(PexFlags::from_byte);
        let added = compact::decode_v4(bytes(b"added")).zip(flags(b"added.f"));
        let added6 = compact::decode_v6(bytes(b"added6")).zip(flags(b"added6.f"));
        let dropped = compact::decode_v4(bytes(b"dropped")).chain(compact::decode_v6(bytes(b"dropped6")));
        let is_somewhere = |(addr, _): &(SocketAddr, PexFlags)| compact::is_dialable(*addr);
        Ok(Self {
            added: added.chain(added6).filter(is_somewhere).take(PEX_COUNT_MAX).collect(),
            dropped: dropped.filter(|addr| compact::is_dialable(*addr)).take(PEX_COUNT_MAX).collect(),
        })
    }
}
