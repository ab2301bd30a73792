//! A borrowing, lazy reader of scanned bytes: copies nothing, and only steps over values that are
//! not read.
//!
//! It returns the exact span of `info`, reads millions of piece hashes without a copy, and leaves
//! the treatment of a key of the wrong kind to the caller. Only [`Value::read`] makes a value,
//! after a scan, so the walk below meets well-formed bytes; on anything else it ends early.

use super::{BencodeError, Limits, scan};

/// A value and the bytes that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value<'a> {
    span: &'a [u8],
}

/// A value by its kind.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// `i..e`
    Integer(i64),
    /// `n:...`
    Bytes(&'a [u8]),
    /// `l..e`
    List(List<'a>),
    /// `d..e`
    Dict(Dict<'a>),
}

/// The elements of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct List<'a> {
    rest: &'a [u8],
}

/// The entries of a dictionary, in the order of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dict<'a> {
    rest: &'a [u8],
}

impl<'a> Value<'a> {
    /// Returns the root value, after a scan.
    ///
    /// # Errors
    /// Those of [`scan`].
    pub fn read(bytes: &'a [u8], limits: &Limits) -> Result<Self, BencodeError> {
        let len = scan(bytes, limits)?;
        Ok(Self { span: &bytes[..len] })
    }

    /// Returns the bytes of this value, exactly as received.
    pub fn span(&self) -> &'a [u8] {
        self.span
    }

    /// Returns the value by its kind.
    pub fn kind(&self) -> Kind<'a> {
        match self.span.first() {
            Some(b'i') => Kind::Integer(integer(self.span)),
            Some(b'l') => Kind::List(List { rest: &self.span[1..] }),
            Some(b'd') => Kind::Dict(Dict { rest: &self.span[1..] }),
            _ => Kind::Bytes(split_string(self.span).map_or(&[], |(string, _)| string)),
        }
    }

    /// Returns the integer; `None` for another kind.
    pub fn integer(&self) -> Option<i64> {
        match self.kind() {
            Kind::Integer(integer) => Some(integer),
            Kind::Bytes(_) | Kind::List(_) | Kind::Dict(_) => None,
        }
    }

    /// Returns the byte string; `None` for another kind.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self.kind() {
            Kind::Bytes(bytes) => Some(bytes),
            Kind::Integer(_) | Kind::List(_) | Kind::Dict(_) => None,
        }
    }

    /// Returns the byte string as text; `None` for another kind or invalid UTF-8.
    pub fn text(&self) -> Option<&'a str> {
        self.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Returns the list; `None` for another kind.
    pub fn list(&self) -> Option<List<'a>> {
        match self.kind() {
            Kind::List(list) => Some(list),
            Kind::Integer(_) | Kind::Bytes(_) | Kind::Dict(_) => None,
        }
    }

    /// Returns the dictionary; `None` for another kind.
    pub fn dict(&self) -> Option<Dict<'a>> {
        match self.kind() {
            Kind::Dict(dict) => Some(dict),
            Kind::Integer(_) | Kind::Bytes(_) | Kind::List(_) => None,
        }
    }
}

impl<'a> Dict<'a> {
    /// Returns the value of the last entry with this key. Steps over the whole dictionary: iterate
    /// to read many keys of a large one.
    pub fn get(&self, key: &[u8]) -> Option<Value<'a>> {
        (*self).filter(|&(own, _)| own == key).last().map(|(_, value)| value)
    }
}

impl<'a> Iterator for List<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let (value, rest) = split_value(self.rest)?;
        self.rest = rest;
        Some(value)
    }
}

impl<'a> Iterator for Dict<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, rest) = split_string(self.rest)?;
        let (value, rest) = split_value(rest)?;
        self.rest = rest;
        Some((key, value))
    }
}

/// Returns the first value and the bytes after it; `None` at the `e` of a list or dictionary.
fn split_value(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let mut rest = bytes;
    let mut depth = 0_usize;
    loop {
        match rest.first()? {
            b'i' => {
                let end = rest.iter().position(|&byte| byte == b'e')?;
                rest = &rest[end + 1..];
            }
            b'l' | b'd' => {
                depth += 1;
                rest = &rest[1..];
                continue;
            }
            b'e' => {
                depth = depth.checked_sub(1)?;
                rest = &rest[1..];
            }
            _ => rest = split_string(rest)?.1,
        }
        if depth == 0 {
            let (span, rest) = bytes.split_at(bytes.len() - rest.len());
            return Some((Value { span }, rest));
        }
    }
}

/// Returns the first string and the bytes after it; `None` if no string begins here.
fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len = 0_usize;
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'0'..=b'9' => len = len.checked_mul(10)?.checked_add(usize::from(byte - b'0'))?,
            b':' => return bytes[at + 1..].split_at_checked(len),
            _ => return None,
        }
    }
    None
}

fn integer(span: &[u8]) -> i64 {
    let negative = span.get(1) == Some(&b'-');
    let digits = span.iter().filter(|byte| byte.is_ascii_digit());
    // Downwards, because there is one more negative number than positive ones. Beyond 64 bits: the
    // nearest that fits.
    let number =
        digits.fold(0_i64, |number, digit| number.saturating_mul(10).saturating_sub(i64::from(digit - b'0')));
    if negative { number } else { number.saturating_neg() }
}

#[cfg(test)]
mod tests {
    use super::super::Keys;
    use super::*;

    fn read(bytes: &[u8]) -> Value<'_> {
        Value::read(bytes, &Limits { keys: Keys::LastWins, ..Limits::METAINFO }).unwrap()
    }

    #[test]
    fn values_are_found_by_key_with_their_exact_span() {
        let root = read(b"d1:ali1ed1:x3:abcee4:infod1:zle1:yi-7ee1:m1:?e");
        let info = root.dict().unwrap().get(b"info").unwrap();
        assert_eq!(info.span(), b"d1:zle1:yi-7ee");
        assert_eq!(info.dict().unwrap().get(b"y").unwrap().integer(), Some(-7));
        assert!(info.dict().unwrap().get(b"q").is_none());
        let list: Vec<_> =
            root.dict().unwrap().get(b"a").unwrap().list().unwrap().map(|value| value.span()).collect();
        assert_eq!(list, [&b"i1e"[..], b"d1:x3:abce"]);
        let twice = read(b"d1:ai1e1:ai2ee");
        assert_eq!(twice.dict().unwrap().get(b"a").unwrap().integer(), Some(2));
    }

    #[test]
    fn a_value_of_another_kind_is_none() {
        let text = read(b"2:\xc3\xa4");
        assert_eq!((text.text(), text.integer()), (Some("\u{e4}"), None));
        assert!(text.list().is_none() && text.dict().is_none());
        assert_eq!(read(b"1:\xff").text(), None);
    }

    #[test]
    fn integers_reach_both_ends() {
        for number in [i64::MIN, -10, 0, 7, i64::MAX] {
            assert_eq!(read(format!("i{number}e").as_bytes()).integer(), Some(number));
        }
        let odd = [("-0", 0), ("007", 7), ("-01", -1), ("18446744073709551617", i64::MAX)];
        for (text, number) in odd {
            assert_eq!(read(format!("i{text}e").as_bytes()).integer(), Some(number));
        }
        assert_eq!(read(b"i-99999999999999999999e").integer(), Some(i64::MIN));
        assert_eq!(read(b"003:abc").bytes(), Some(&b"abc"[..]));
    }

    #[test]
    fn the_walk_is_total_on_bytes_that_were_never_scanned() {
        for bytes in [&b"l3:abi"[..], b"d1:a", b"i", b"99999999999999999999:", b"e", b"", b"l\xff"] {
            assert!(split_value(bytes).is_none(), "{bytes:?}");
        }
    }
}
