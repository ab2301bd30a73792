//! The identifier of a torrent: SHA-1 of the `info` dictionary exactly as received (BEP 3).

use std::fmt;
use std::str::FromStr;

use sha1::{Digest, Sha1};

/// 20 bytes: SHA-1 of a torrent's `info` dictionary.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl InfoHash {
    /// Returns the infohash of an `info` dictionary, of its bytes as received.
    pub fn of(info_bytes: &[u8]) -> Self {
        Self(Sha1::digest(info_bytes).into())
    }
}

/// Why a text is no infohash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an infohash is 40 hexadecimal digits or 32 base32 letters")]
pub struct NotAnInfoHash;

impl FromStr for InfoHash {
    type Err = NotAnInfoHash;

    /// 40 hexadecimal digits, or 32 letters of base32 (BEP 9), either case.
    fn from_str(text: &str) -> Result<Self, NotAnInfoHash> {
        let encoding = match text.len() {
            40 => data_encoding::HEXLOWER_PERMISSIVE,
            32 => data_encoding::BASE32,
            _ => return Err(NotAnInfoHash),
        };
        let text = if text.len() == 32 { text.to_ascii_uppercase() } else { text.to_owned() };
        let bytes = encoding.decode(text.as_bytes()).map_err(|_| NotAnInfoHash)?;
        bytes.try_into().map(Self).map_err(|_| NotAnInfoHash)
    }
}

impl fmt::Display for InfoHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_base32_name_the_same_torrent() {
        let hash = InfoHash::of(b"hello");
        let hex = hash.to_string();
        let base32 = data_encoding::BASE32.encode(&hash.0);
        assert_eq!(hex.to_uppercase().parse(), Ok(hash));
        assert_eq!(base32.to_lowercase().parse(), Ok(hash));
        assert_eq!(hex[1..].parse::<InfoHash>(), Err(NotAnInfoHash));
        assert_eq!(hex.replace('a', "z").parse::<InfoHash>(), Err(NotAnInfoHash));
    }
}
