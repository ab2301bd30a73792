//! Items of the DHT (BEP 44): immutable ones named by their hash, mutable ones by a key and a salt.

use bytes::Bytes;

use super::node_id::NodeId;
use crate::proto::rng::Rng;

/// Longest value, bencoded, bytes; longer ones are refused with error 205.
pub const VALUE_LEN_MAX: usize = 1_000;
/// Longest salt, bytes; longer ones are refused with error 207.
pub const SALT_LEN_MAX: usize = 64;

/// What names an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKey {
    /// SHA-1 of the bencoded value.
    Immutable(NodeId),
    /// Whoever has the secret half of this key writes it.
    Mutable {
        /// ed25519.
        public_key: [u8; 32],
        /// Tells apart the items of one key; may be empty.
        salt: Bytes,
    },
}

impl ItemKey {
    /// Where in the key space it is kept.
    pub fn target(&self) -> NodeId {
        todo!()
    }
}

/// A verified item, or one of our own: can only be made by [`Item::immutable`], [`SecretKey::sign`] and
/// [`ItemRef::verify`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Bencoded.
    value: Bytes,
    mutable: Option<Mutable>,
}

/// What a mutable item has beside its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutable {
    /// ed25519.
    pub public_key: [u8; 32],
    /// May be empty.
    pub salt: Bytes,
    /// Higher is newer.
    pub seq: i64,
    /// Over salt, seq and value.
    pub signature: [u8; 64],
}

/// An item as received, nothing of it believed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRef<'a> {
    /// `v`, bencoded as it came.
    pub value: &'a [u8],
    /// `k`
    pub public_key: Option<&'a [u8; 32]>,
    /// `salt`, in a `put` only.
    pub salt: &'a [u8],
    /// `seq`
    pub seq: i64,
    /// `sig`
    pub signature: Option<&'a [u8; 64]>,
}

/// Why an item is not taken; the number is BEP 44's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// 205
    #[error("the value is longer than {VALUE_LEN_MAX} bytes")]
    TooLong,
    /// 206
    #[error("the signature does not fit")]
    Signature,
    /// 207
    #[error("the salt is longer than {SALT_LEN_MAX} bytes")]
    Salt,
    /// 203: neither its hash nor its key is the one sought, or the value is no bencode.
    #[error("it is not the item that was asked for")]
    Other,
}

impl Item {
    /// An immutable item with this bencoded value.
    ///
    /// # Errors
    /// The value is too long, or no bencode.
    pub fn immutable(value: Bytes) -> Result<Self, ItemError> {
        let _ = value;
        todo!()
    }

    /// What names it.
    pub fn key(&self) -> ItemKey {
        todo!()
    }

    /// Bencoded.
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// What a mutable item has beside its value; None: immutable.
    pub fn mutable(&self) -> Option<&Mutable> {
        self.mutable.as_ref()
    }
}

impl ItemRef<'_> {
    /// Where in the key space it belongs; costs a hash, no signature.
    pub fn target(&self) -> NodeId {
        todo!()
    }

    /// The item, if its lengths and its signature are good. Verifying a signature costs some 50 microseconds:
    /// whoever asks for it has shown a token first.
    ///
    /// # Errors
    /// See [`ItemError`].
    pub fn verify(&self) -> Result<Item, ItemError> {
        todo!()
    }

    /// The item, if it is the one that `key` names (an answer to `get` carries no salt: the key's is used).
    ///
    /// # Errors
    /// See [`ItemError`].
    pub fn verify_as(&self, key: &ItemKey) -> Result<Item, ItemError> {
        let _ = key;
        todo!()
    }
}

/// The secret half of a key: 32 bytes of seed, as in RFC 8032.
pub struct SecretKey {
    _private: (),
}

impl SecretKey {
    /// A new one.
    pub fn generate(rng: &mut Rng) -> Self {
        let _ = rng;
        todo!()
    }

    /// From its 32 bytes.
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        let _ = seed;
        todo!()
    }

    /// Its 32 bytes, to be kept secret.
    pub fn to_bytes(&self) -> [u8; 32] {
        todo!()
    }

    /// The public half.
    pub fn public_key(&self) -> [u8; 32] {
        todo!()
    }

    /// A mutable item with this bencoded value.
    ///
    /// # Errors
    /// Value or salt is too long, or the value no bencode.
    pub fn sign(&self, salt: Bytes, seq: i64, value: Bytes) -> Result<Item, ItemError> {
        let _ = (salt, seq, value);
        todo!()
    }
}
