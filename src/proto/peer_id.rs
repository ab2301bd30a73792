//! The 20 bytes that identify a peer within one swarm (BEP 3, BEP 20).

use std::fmt;

use super::rng::Rng;

/// A peer id: ours is `-SP`, four version digits, `-` and 12 random bytes, new for each torrent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

/// Client code and version, Azureus style (BEP 20).
const PREFIX: &[u8; 8] = b"-SP0100-";

impl PeerId {
    /// Generates an id of our own.
    pub fn generate(rng: &mut Rng) -> Self {
        let mut id = [0; 20];
        let (prefix, random) = id.split_at_mut(PREFIX.len());
        prefix.copy_from_slice(PREFIX);
        for byte in random {
            *byte = data_encoding::BASE32_NOPAD.encode(&[rng.bits() as u8]).as_bytes()[0];
        }
        Self(id)
    }
}

impl fmt::Display for PeerId {
    /// Prints non-printable bytes as `.`, because peer ids go to logs and terminals.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| {
            write!(out, "{}", if byte.is_ascii_graphic() { char::from(byte) } else { '.' })
        })
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_ids_are_recognizable_unique_and_printable() {
        let mut rng = Rng::from_number(3);
        let (one, other) = (PeerId::generate(&mut rng), PeerId::generate(&mut rng));
        assert!(one.0.starts_with(PREFIX));
        assert_ne!(one, other);
        assert!(!one.to_string().contains('.'));
        assert_eq!(PeerId(*b"-TR4000-\0\x1b[31m~~~~~~").to_string(), "-TR4000-..[31m~~~~~~");
    }
}
