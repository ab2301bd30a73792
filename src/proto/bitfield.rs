//! One bit for each piece, most significant bit first, as on the wire (BEP 3 `bitfield`).

/// A set of pieces out of `len`; the spare bits of the last byte are always zero.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bitfield {
    bytes: Vec<u8>,
    len: u32,
    ones: u32,
}

/// Why bytes are no bitfield of a torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BitfieldError {
    /// Not `len / 8` bytes, rounded up.
    #[error("bitfield of {actual} bytes where {expected} belong")]
    Length {
        /// Length of a bitfield of `len` pieces, bytes.
        expected: usize,
        /// Length received, bytes.
        actual: usize,
    },
    /// A spare bit is set.
    #[error("bitfield with a spare bit set")]
    SpareBits,
}

impl Bitfield {
    /// Creates an empty set out of `len` pieces.
    pub fn new(len: u32) -> Self {
        Self { bytes: vec![0; Self::byte_len(len)], len, ones: 0 }
    }

    /// Creates the set of all `len` pieces.
    pub fn full(len: u32) -> Self {
        let mut field = Self { bytes: vec![0xff; Self::byte_len(len)], len, ones: len };
        let spare = field.spare_bits();
        if let Some(last) = field.bytes.last_mut() {
            *last = 0xff << spare;
        }
        field
    }

    /// Decodes `len` bits from a peer.
    ///
    /// # Errors
    /// The length is wrong, or a spare bit is set.
    pub fn from_wire(bytes: &[u8], len: u32) -> Result<Self, BitfieldError> {
        let expected = Self::byte_len(len);
        if bytes.len() != expected {
            return Err(BitfieldError::Length { expected, actual: bytes.len() });
        }
        let ones = bytes.iter().map(|byte| byte.count_ones()).sum();
        Self { bytes: bytes.to_vec(), len, ones }.without_spare()
    }

    /// Returns the same pieces out of `len`, for a field that was received before the number of
    /// pieces was known and so counts the spare bits of its last byte.
    ///
    /// # Errors
    /// The length is wrong, or a spare bit is set.
    pub fn fitted(self, len: u32) -> Result<Self, BitfieldError> {
        let expected = Self::byte_len(len);
        if self.bytes.len() != expected {
            return Err(BitfieldError::Length { expected, actual: self.bytes.len() });
        }
        Self { len, ..self }.without_spare()
    }

    fn without_spare(self) -> Result<Self, BitfieldError> {
        let spare = self.spare_bits();
        if self.bytes.last().is_some_and(|last| last & ((1_u16 << spare) - 1) as u8 != 0) {
            return Err(BitfieldError::SpareBits);
        }
        Ok(self)
    }

    /// Returns the length of a bitfield of `len` pieces, bytes.
    pub const fn byte_len(len: u32) -> usize {
        (len as usize).div_ceil(8)
    }

    fn spare_bits(&self) -> u32 {
        (8 - self.len % 8) % 8
    }

    /// Returns the bytes as on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of pieces, set or not.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether the torrent has no pieces (all its files are empty).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of pieces that are set.
    pub fn count(&self) -> u32 {
        self.ones
    }

    /// Whether all pieces are set.
    pub fn is_full(&self) -> bool {
        self.ones == self.len
    }

    /// Whether `index` is set; false beyond the end.
    pub fn get(&self, index: u32) -> bool {
        index < self.len && self.bytes[index as usize / 8] & (0x80 >> (index % 8)) != 0
    }

    /// Sets `index`; returns true if it was clear. Does nothing beyond the end.
    pub fn set(&mut self, index: u32) -> bool {
        if index >= self.len || self.get(index) {
            return false;
        }
        self.bytes[index as usize / 8] |= 0x80 >> (index % 8);
        self.ones += 1;
        true
    }

    /// Clears `index`; returns true if it was set.
    pub fn clear(&mut self, index: u32) -> bool {
        if !self.get(index) {
            return false;
        }
        self.bytes[index as usize / 8] &= !(0x80 >> (index % 8));
        self.ones -= 1;
        true
    }

    /// Sets every piece of `other`, a field of the same length.
    pub fn set_all(&mut self, other: &Self) {
        for (ours, theirs) in self.bytes.iter_mut().zip(&other.bytes) {
            *ours |= theirs;
        }
        self.ones = self.bytes.iter().map(|byte| byte.count_ones()).sum();
    }

    /// Returns the set pieces, ascending.
    pub fn iter_set(&self) -> impl Iterator<Item = u32> {
        self.bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).flat_map(|(at, &byte)| {
            (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| at as u32 * 8 + bit)
        })
    }

    /// Whether some piece is set here and clear in `other`.
    pub fn has_more_than(&self, other: &Self) -> bool {
        self.bytes.iter().zip(&other.bytes).any(|(ours, theirs)| ours & !theirs != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_round_trips_and_refuses_wrong_lengths() {
        for len in [0, 1, 7, 8, 9, 1_313] {
            let full = Bitfield::full(len);
            assert_eq!((full.count(), full.is_full()), (len, true));
            assert_eq!(Bitfield::from_wire(full.as_bytes(), len), Ok(full));
        }
        assert_eq!(Bitfield::from_wire(&[0x01], 7), Err(BitfieldError::SpareBits));
        assert_eq!(Bitfield::from_wire(&[0; 2], 8), Err(BitfieldError::Length { expected: 1, actual: 2 }));
    }

    #[test]
    fn a_field_of_unknown_length_is_fitted_when_it_is_known() {
        let came = Bitfield::from_wire(&[0xff, 0xe0], 16).unwrap();
        assert_eq!(came.clone().fitted(11), Ok(Bitfield::full(11)));
        assert_eq!(came.clone().fitted(16), Ok(came.clone()));
        assert_eq!(came.clone().fitted(10), Err(BitfieldError::SpareBits));
        for wrong in [8, 17] {
            assert!(matches!(came.clone().fitted(wrong), Err(BitfieldError::Length { actual: 2, .. })));
        }
    }

    #[test]
    fn sets_clears_and_counts() {
        let mut field = Bitfield::new(20);
        assert!(field.set(19) && !field.set(19) && !field.set(20));
        assert!(field.set(0) && field.clear(0) && !field.clear(0));
        assert_eq!(field.iter_set().collect::<Vec<_>>(), [19]);
        let mut other = Bitfield::new(20);
        other.set(3);
        other.set_all(&field);
        assert_eq!((other.count(), other.iter_set().collect::<Vec<_>>()), (2, vec![3, 19]));
        assert!(field.has_more_than(&Bitfield::new(20)) && !field.has_more_than(&Bitfield::full(20)));
    }
}
