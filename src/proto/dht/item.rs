//! Items of the DHT (BEP 44): immutable ones identified by their hash, mutable ones by a key and a
//! salt.

use std::fmt;

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha1::{Digest, Sha1};

use super::node_id::NodeId;
use crate::proto::bencode::{Keys, Limits, Numbers, Trailing, scan, write_bytes, write_integer};
use crate::proto::rng::Rng;

/// Longest value, bencoded, bytes; longer ones are refused with error 205.
pub const VALUE_LEN_MAX: usize = 1_000;
/// Longest salt, bytes; longer ones are refused with error 207.
pub const SALT_LEN_MAX: usize = 64;

/// Limits of a value: it must fit into a message within [`Limits::KRPC`], two levels deep and
/// beside at most 30 other tokens. A value beyond them counts as invalid bencode.
const VALUE: Limits = Limits {
    len_max: VALUE_LEN_MAX,
    depth_max: Limits::KRPC.depth_max - 2,
    token_max: 200,
    trailing: Trailing::Refused,
    keys: Keys::LastWins,
    numbers: Numbers::Canonical,
};

/// Identifies an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ItemKey {
    /// SHA-1 of the bencoded value.
    Immutable(NodeId),
    /// An item that the owner of this key can change.
    Mutable {
        /// ed25519.
        public_key: [u8; 32],
        /// Distinguishes the items of one key; may be empty.
        salt: Bytes,
    },
}

impl ItemKey {
    /// Returns its place in the key space.
    pub fn target(&self) -> NodeId {
        match self {
            Self::Immutable(target) => *target,
            Self::Mutable { public_key, salt } => mutable_target(public_key, salt),
        }
    }
}

/// A verified item, or one of our own: only [`Item::immutable`], [`SecretKey::sign`] and
/// [`ItemRef::verify`] make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Bencoded.
    value: Bytes,
    mutable: Option<Mutable>,
}

/// The parts of a mutable item besides its value.
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

/// An item as received, not yet verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRef<'a> {
    /// `v`, bencoded, as received.
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

/// Why an item is refused, with BEP 44's code.
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
    /// 203: neither its hash nor its key is the requested one, or the value is invalid bencode.
    #[error("it is not the item that was asked for")]
    Other,
}

impl ItemError {
    /// Returns its code in a KRPC error.
    pub fn code(self) -> i64 {
        match self {
            Self::TooLong => 205,
            Self::Signature => 206,
            Self::Salt => 207,
            Self::Other => 203,
        }
    }
}

impl Item {
    /// Makes an immutable item of this bencoded value.
    ///
    /// # Errors
    /// The value is too long or invalid bencode.
    pub fn immutable(value: Bytes) -> Result<Self, ItemError> {
        check_value(&value)?;
        Ok(Self { value, mutable: None })
    }

    /// Returns its key.
    pub fn key(&self) -> ItemKey {
        match &self.mutable {
            None => ItemKey::Immutable(immutable_target(&self.value)),
            Some(Mutable { public_key, salt, .. }) => {
                ItemKey::Mutable { public_key: *public_key, salt: salt.clone() }
            }
        }
    }

    /// Returns its place in the key space.
    pub fn target(&self) -> NodeId {
        match &self.mutable {
            None => immutable_target(&self.value),
            Some(Mutable { public_key, salt, .. }) => mutable_target(public_key, salt),
        }
    }

    /// Returns the bencoded value.
    pub fn value(&self) -> &Bytes {
        &self.value
    }

    /// Returns the parts of a mutable item besides its value; `None` for an immutable one.
    pub fn mutable(&self) -> Option<&Mutable> {
        self.mutable.as_ref()
    }

    /// Returns it in the form in which it is sent.
    pub fn as_item_ref(&self) -> ItemRef<'_> {
        let mutable = self.mutable.as_ref();
        ItemRef {
            value: &self.value,
            public_key: mutable.map(|mutable| &mutable.public_key),
            salt: mutable.map_or(&[], |mutable| &mutable.salt),
            seq: mutable.map_or(0, |mutable| mutable.seq),
            signature: mutable.map(|mutable| &mutable.signature),
        }
    }
}

impl ItemRef<'_> {
    /// Returns its place in the key space; costs a hash, no signature check.
    pub fn target(&self) -> NodeId {
        match self.public_key {
            None => immutable_target(self.value),
            Some(public_key) => mutable_target(public_key, self.salt),
        }
    }

    /// Returns the item, if its lengths and its signature are valid. Checking a signature takes
    /// some 50 microseconds, so a token is checked first.
    ///
    /// # Errors
    /// See [`ItemError`].
    pub fn verify(&self) -> Result<Item, ItemError> {
        check_value(self.value)?;
        let mutable = match self.public_key {
            None => None,
            Some(&public_key) => {
                check_salt(self.salt)?;
                let signature = *self.signature.ok_or(ItemError::Signature)?;
                let text = signed_text(self.salt, self.seq, self.value);
                // Strictly, because any signature would fit a key of small order.
                VerifyingKey::from_bytes(&public_key)
                    .and_then(|key| key.verify_strict(&text, &Signature::from_bytes(&signature)))
                    .map_err(|_| ItemError::Signature)?;
                Some(Mutable {
                    public_key,
                    salt: Bytes::copy_from_slice(self.salt),
                    seq: self.seq,
                    signature,
                })
            }
        };
        Ok(Item { value: Bytes::copy_from_slice(self.value), mutable })
    }

    /// Returns the item, if it is the one that `key` identifies (an answer to `get` carries no
    /// salt, so the key's salt is used).
    ///
    /// # Errors
    /// See [`ItemError`].
    pub fn verify_as(&self, key: &ItemKey) -> Result<Item, ItemError> {
        let own: ItemRef<'_> = *self;
        match key {
            ItemKey::Immutable(target) if immutable_target(self.value) == *target => {
                ItemRef { public_key: None, signature: None, ..own }.verify()
            }
            ItemKey::Mutable { public_key, salt } if self.public_key == Some(public_key) => {
                ItemRef { salt, ..own }.verify()
            }
            ItemKey::Immutable(_) | ItemKey::Mutable { .. } => Err(ItemError::Other),
        }
    }
}

/// The secret half of a key: 32 bytes of seed, as in RFC 8032.
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Generates a new key.
    pub fn generate(rng: &mut Rng) -> Self {
        let mut seed = [0; 32];
        rng.fill(&mut seed);
        Self::from_bytes(seed)
    }

    /// Makes a key from its 32 bytes.
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// Returns its 32 bytes, which must be kept secret.
    pub fn to_bytes(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Returns the public half.
    pub fn public_key(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a mutable item with this bencoded value.
    ///
    /// # Errors
    /// The value or the salt is too long, or the value is invalid bencode.
    pub fn sign(&self, salt: Bytes, seq: i64, value: Bytes) -> Result<Item, ItemError> {
        check_value(&value)?;
        check_salt(&salt)?;
        let signature = self.0.sign(&signed_text(&salt, seq, &value)).to_bytes();
        let mutable = Mutable { public_key: self.public_key(), salt, seq, signature };
        Ok(Item { value, mutable: Some(mutable) })
    }
}

impl fmt::Debug for SecretKey {
    /// Prints the public half only, because output ends up in logs.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SecretKey(of {})", data_encoding::HEXLOWER.encode(&self.public_key()))
    }
}

fn immutable_target(value: &[u8]) -> NodeId {
    NodeId(Sha1::digest(value).into())
}

fn mutable_target(public_key: &[u8; 32], salt: &[u8]) -> NodeId {
    NodeId(Sha1::new().chain_update(public_key).chain_update(salt).finalize().into())
}

/// Returns the signed bytes: `salt`, `seq` and `v` as in a dictionary, without an empty salt.
fn signed_text(salt: &[u8], seq: i64, value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(48 + salt.len() + value.len());
    if !salt.is_empty() {
        text.extend_from_slice(b"4:salt");
        write_bytes(&mut text, salt);
    }
    text.extend_from_slice(b"3:seq");
    write_integer(&mut text, seq);
    text.extend_from_slice(b"1:v");
    text.extend_from_slice(value);
    text
}

fn check_value(value: &[u8]) -> Result<(), ItemError> {
    if value.len() > VALUE_LEN_MAX {
        return Err(ItemError::TooLong);
    }
    scan(value, &VALUE).map(drop).map_err(|_| ItemError::Other)
}

fn check_salt(salt: &[u8]) -> Result<(), ItemError> {
    if salt.len() > SALT_LEN_MAX { Err(ItemError::Salt) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> SecretKey {
        SecretKey::generate(&mut Rng::from_number(number))
    }

    #[test]
    fn a_signed_item_verifies_and_a_changed_one_does_not() {
        let item = key(1).sign("salt".into(), -3, "5:hello".into()).unwrap();
        let sent = item.as_item_ref();
        assert_eq!(sent.verify(), Ok(item.clone()));
        assert_eq!(sent.target(), item.key().target());
        let (other_key, mut other_signature) = (key(2).public_key(), *sent.signature.unwrap());
        other_signature[63] ^= 0x10;
        for changed in [
            ItemRef { value: b"5:hellO", ..sent },
            ItemRef { seq: -2, ..sent },
            ItemRef { salt: b"", ..sent },
            ItemRef { public_key: Some(&other_key), ..sent },
            ItemRef { signature: Some(&other_signature), ..sent },
            ItemRef { signature: None, ..sent },
        ] {
            assert_eq!(changed.verify(), Err(ItemError::Signature));
        }
        let answered = ItemRef { salt: b"", ..sent };
        assert_eq!(answered.verify_as(&item.key()), Ok(item), "an answer carries no salt");
    }

    #[test]
    fn only_the_requested_item_is_accepted() {
        let immutable = Item::immutable("5:hello".into()).unwrap();
        let mutable = key(1).sign(Bytes::new(), 1, "5:hello".into()).unwrap();
        assert_eq!(mutable.as_item_ref().verify_as(&immutable.key()), Ok(immutable.clone()));
        assert_eq!(immutable.as_item_ref().verify_as(&mutable.key()), Err(ItemError::Other));
        let other = Item::immutable("5:hallo".into()).unwrap();
        assert_eq!(other.as_item_ref().verify_as(&immutable.key()), Err(ItemError::Other));
        let of_other_key = key(2).sign(Bytes::new(), 1, "5:hello".into()).unwrap();
        assert_eq!(of_other_key.as_item_ref().verify_as(&mutable.key()), Err(ItemError::Other));
    }

    #[test]
    fn lengths_have_limits() {
        let value = |len: usize| Bytes::from(format!("{}:{}", len - 4, "x".repeat(len - 4)));
        assert!(Item::immutable(value(VALUE_LEN_MAX)).is_ok());
        assert_eq!(Item::immutable(value(VALUE_LEN_MAX + 1)), Err(ItemError::TooLong));
        let salt = |len: usize| Bytes::from(vec![b's'; len]);
        assert!(key(1).sign(salt(SALT_LEN_MAX), 1, value(10)).is_ok());
        assert_eq!(key(1).sign(salt(SALT_LEN_MAX + 1), 1, value(10)), Err(ItemError::Salt));
        let item = key(1).sign(salt(SALT_LEN_MAX), 1, value(10)).unwrap();
        let long = salt(SALT_LEN_MAX + 1);
        assert_eq!(ItemRef { salt: &long, ..item.as_item_ref() }.verify(), Err(ItemError::Salt));
        let long = value(VALUE_LEN_MAX + 1);
        assert_eq!(ItemRef { value: &long, ..item.as_item_ref() }.verify(), Err(ItemError::TooLong));
    }

    #[test]
    fn a_value_is_one_bencoded_value_that_fits_into_a_message() {
        let deep = |depth: usize| Bytes::from(["l".repeat(depth), "e".repeat(depth)].concat());
        assert!(Item::immutable(deep(6)).is_ok());
        let many = format!("l{}e", "0:".repeat(200));
        for value in [deep(7), many.into(), "".into(), "5:hell".into(), "0:0:".into(), "i01e".into()] {
            assert_eq!(Item::immutable(value), Err(ItemError::Other));
        }
    }

    #[test]
    fn a_key_of_small_order_signs_nothing() {
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        let forged = ItemRef {
            value: b"0:",
            public_key: Some(&neutral),
            salt: b"",
            seq: 1,
            signature: Some(&signature),
        };
        assert_eq!(forged.verify(), Err(ItemError::Signature));
    }

    #[test]
    fn a_secret_is_kept_by_its_bytes_and_never_printed() {
        let secret = key(5);
        assert_eq!(SecretKey::from_bytes(secret.to_bytes()).public_key(), secret.public_key());
        let printed = format!("{secret:?}");
        assert!(!printed.contains(&data_encoding::HEXLOWER.encode(&secret.to_bytes())));
        assert!(!printed.contains(&format!("{:?}", secret.to_bytes())) && printed.len() < 100);
    }
}
