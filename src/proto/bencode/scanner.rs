//! The scanner (BEP 3): checks that bytes are bencode within limits, and finds the length of the
//! root value.
//!
//! One pass, no recursion, a stack of fixed size. It allocates only the spans of the keys of open
//! dictionaries, if duplicates must be found among unordered keys: 8 bytes for each key of at least
//! 2 bytes and its value, so at most a small multiple of the input. They are found by a sort, O(n
//! log n).

use super::{BencodeError, DEPTH_MAX, Keys, Limits, Numbers, Trailing};

/// Checks the bytes and returns the length of the root value. Without recursion, and without
/// allocation except for the spans of keys where duplicates are refused.
///
/// # Errors
/// Truncated input, missing digits, keys that are no strings, and whatever `limits` refuse.
pub fn scan(bytes: &[u8], limits: &Limits) -> Result<usize, BencodeError> {
    let mut scanner = Scanner::new(bytes, limits);
    while !scanner.step()? {}
    let len = scanner.at;
    if limits.trailing == Trailing::Refused && len < bytes.len() {
        return scanner.fail("there are bytes after the end");
    }
    Ok(len)
}

/// An open list or dictionary.
#[derive(Clone, Copy)]
enum Open {
    List,
    Dict(OpenDict),
}

/// An open dictionary.
#[derive(Clone, Copy)]
struct OpenDict {
    /// Whether a key has come without its value.
    value_due: bool,
    /// Whether its keys so far do not ascend strictly.
    disordered: bool,
    /// Start and end of the previous key.
    last: Option<(u32, u32)>,
    /// Start of its keys in `Scanner::keys`.
    keys_from: usize,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    limits: &'a Limits,
    at: usize,
    tokens: usize,
    depth: usize,
    stack: [Open; DEPTH_MAX],
    /// Start and end of the keys of all open dictionaries, where duplicates are refused.
    keys: Vec<(u32, u32)>,
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], limits: &'a Limits) -> Self {
        // Offsets have 32 bits; no preset comes near the limit.
        let len_max = limits.len_max.min(u32::MAX as usize);
        Self {
            bytes: &bytes[..bytes.len().min(len_max)],
            limits,
            at: 0,
            tokens: 0,
            depth: 0,
            stack: [Open::List; DEPTH_MAX],
            keys: Vec::new(),
        }
    }

    fn fail<T>(&self, what: &'static str) -> Result<T, BencodeError> {
        Err(BencodeError { at: self.at, what })
    }

    fn peek(&self) -> Result<u8, BencodeError> {
        match self.bytes.get(self.at) {
            Some(&byte) => Ok(byte),
            None if self.bytes.len() >= self.limits.len_max => self.fail("longer than is allowed"),
            None => self.fail("ends too early"),
        }
    }

    /// Takes one token; returns whether the root value is complete.
    fn step(&mut self) -> Result<bool, BencodeError> {
        let byte = self.peek()?;
        if byte == b'e' && self.depth > 0 {
            return self.close();
        }
        self.tokens += 1;
        if self.tokens > self.limits.token_max {
            return self.fail("more values than are allowed");
        }
        if let Some(Open::Dict(dict)) = self.depth.checked_sub(1).map(|top| self.stack[top])
            && !dict.value_due
        {
            return self.key(dict).map(|()| false);
        }
        match byte {
            b'i' => self.integer()?,
            b'0'..=b'9' => {
                self.string()?;
            }
            b'l' => return self.open(Open::List),
            b'd' => {
                let keys_from = self.keys.len();
                return self.open(Open::Dict(OpenDict {
                    value_due: false,
                    disordered: false,
                    last: None,
                    keys_from,
                }));
            }
            _ => return self.fail("no value begins like this"),
        }
        Ok(self.value_ended())
    }

    fn open(&mut self, open: Open) -> Result<bool, BencodeError> {
        if self.depth >= self.limits.depth_max.min(DEPTH_MAX) {
            return self.fail("nested deeper than is allowed");
        }
        self.stack[self.depth] = open;
        self.depth += 1;
        self.at += 1;
        Ok(false)
    }

    fn close(&mut self) -> Result<bool, BencodeError> {
        if let Open::Dict(dict) = self.stack[self.depth - 1] {
            if dict.value_due {
                return self.fail("a dictionary key has no value");
            }
            if dict.disordered && self.limits.keys == Keys::Unique {
                self.refuse_duplicates(dict.keys_from)?;
            }
            self.keys.truncate(dict.keys_from);
        }
        self.depth -= 1;
        self.at += 1;
        Ok(self.value_ended())
    }

    /// A value has ended; returns whether it was the root.
    fn value_ended(&mut self) -> bool {
        match self.depth.checked_sub(1).map(|top| &mut self.stack[top]) {
            None => true,
            Some(Open::List) => false,
            Some(Open::Dict(dict)) => {
                dict.value_due = false;
                false
            }
        }
    }

    fn key(&mut self, mut dict: OpenDict) -> Result<(), BencodeError> {
        let key_at = self.at;
        if !self.peek()?.is_ascii_digit() {
            return self.fail("a dictionary key is not a string");
        }
        let key = self.string()?;
        let ascends = dict.last.is_none_or(|last| self.span(last) < self.span(key));
        if !ascends {
            if self.limits.keys == Keys::Ascending {
                let what = "dictionary keys are not in order";
                return Err(BencodeError { at: key_at, what });
            }
            dict.disordered = true;
        }
        if self.limits.keys == Keys::Unique {
            self.keys.push(key);
        }
        dict.last = Some(key);
        dict.value_due = true;
        self.stack[self.depth - 1] = Open::Dict(dict);
        Ok(())
    }

    fn span(&self, (from, to): (u32, u32)) -> &'a [u8] {
        &self.bytes[from as usize..to as usize]
    }

    fn refuse_duplicates(&mut self, keys_from: usize) -> Result<(), BencodeError> {
        let bytes = self.bytes;
        let text = |&(from, to): &(u32, u32)| &bytes[from as usize..to as usize];
        let keys = &mut self.keys[keys_from..];
        keys.sort_by_key(text);
        match keys.windows(2).find(|pair| text(&pair[0]) == text(&pair[1])) {
            Some(pair) => Err(BencodeError { at: pair[1].0 as usize, what: "a dictionary key comes twice" }),
            None => Ok(()),
        }
    }

    fn integer(&mut self) -> Result<(), BencodeError> {
        self.at += 1;
        let negative = self.peek()? == b'-';
        if negative {
            self.at += 1;
        }
        let digits_at = self.at;
        let magnitude = self.digits(b'e')?;
        if self.limits.numbers == Numbers::AnySpelling {
            return Ok(());
        }
        let most = i64::MAX as u64 + u64::from(negative);
        let what = match magnitude {
            0 if negative => "an integer is minus zero",
            magnitude if magnitude > most => "an integer does not fit in 64 bits",
            _ => return Ok(()),
        };
        Err(BencodeError { at: digits_at, what })
    }

    /// Takes a string; returns start and end of its bytes.
    fn string(&mut self) -> Result<(u32, u32), BencodeError> {
        let from_digits = self.at;
        let len = self.digits(b':')?;
        let left = self.bytes.len() - self.at;
        match usize::try_from(len) {
            Ok(len) if len <= left => {
                let from = self.at;
                self.at += len;
                Ok((from as u32, self.at as u32))
            }
            _ => Err(BencodeError { at: from_digits, what: "a string is longer than what is left" }),
        }
    }

    /// Takes digits and the `end` after them. A number that does not fit is an error or, where any
    /// spelling is accepted, `u64::MAX`.
    fn digits(&mut self, end: u8) -> Result<u64, BencodeError> {
        let from = self.at;
        let mut number = 0_u64;
        loop {
            let byte = self.peek()?;
            if byte.is_ascii_digit() {
                let is_canonical = self.limits.numbers == Numbers::Canonical;
                if is_canonical && self.at == from + 1 && self.bytes[from] == b'0' {
                    return self.fail("a number has a leading zero");
                }
                let next = number.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(byte - b'0')));
                match next {
                    Some(next) => number = next,
                    None if is_canonical => return self.fail("an integer does not fit in 64 bits"),
                    None => number = u64::MAX,
                }
            } else if byte == end && self.at > from {
                self.at += 1;
                return Ok(number);
            } else {
                return self.fail("a digit is missing");
            }
            self.at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(bytes: &[u8]) -> &'static str {
        scan(bytes, &Limits::METAINFO_CANONICAL).unwrap_err().what
    }

    #[test]
    fn sound_values_have_their_length() {
        for sound in ["i0e", "i-1e", "0:", "3:abc", "le", "de", "li1e0:ledee", "d0:0:1:ad1:bleee"] {
            assert_eq!(scan(sound.as_bytes(), &Limits::METAINFO_CANONICAL), Ok(sound.len()), "{sound}");
        }
        let edge = format!("li{}ei{}ee", i64::MIN, i64::MAX);
        assert_eq!(scan(edge.as_bytes(), &Limits::METAINFO_CANONICAL), Ok(edge.len()));
    }

    #[test]
    fn any_spelling_of_a_number_is_accepted_where_it_does_not_matter() {
        let long_zero = format!("i{}1e", "0".repeat(1_000));
        let huge = format!("i-{}e", "9".repeat(1_000));
        for odd in
            ["i-0e", "i03e", "i-03e", "i00e", "03:abc", "00:", "i9223372036854775808e", &long_zero, &huge]
        {
            assert_eq!(scan(odd.as_bytes(), &Limits::METAINFO), Ok(odd.len()), "{odd}");
        }
        for broken in ["ie", "i-e", "i--1e", "i+1e", "i1.5e", "i 1e", "004:abc", "99999999999999999999999:a"]
        {
            assert!(scan(broken.as_bytes(), &Limits::METAINFO).is_err(), "{broken}");
        }
    }

    #[test]
    fn numbers_have_one_spelling() {
        assert_eq!(what(b"i-0e"), "an integer is minus zero");
        assert_eq!(what(b"i03e"), "a number has a leading zero");
        assert_eq!(what(b"i-03e"), "a number has a leading zero");
        assert_eq!(what(b"i00e"), "a number has a leading zero");
        assert_eq!(what(b"03:abc"), "a number has a leading zero");
        assert_eq!(what(b"i9223372036854775808e"), "an integer does not fit in 64 bits");
        assert_eq!(what(b"i-9223372036854775809e"), "an integer does not fit in 64 bits");
        assert_eq!(what(b"i99999999999999999999e"), "an integer does not fit in 64 bits");
        for missing in [&b"ie"[..], b"i-e", b"i--1e", b"i+1e", b"i1 e", b"i 1e", b"1a:", b"i1.5e", b"i1:"] {
            assert_eq!(what(missing), "a digit is missing", "{missing:?}");
        }
    }

    #[test]
    fn structure_is_checked() {
        assert_eq!(what(b"e"), "no value begins like this");
        assert_eq!(what(b"-1:a"), "no value begins like this");
        assert_eq!(what(b"di1ei2ee"), "a dictionary key is not a string");
        assert_eq!(what(b"dlelee"), "a dictionary key is not a string");
        assert_eq!(what(b"d1:ae"), "a dictionary key has no value");
        assert_eq!(what(b"5:abcd"), "a string is longer than what is left");
        assert_eq!(what(b"18446744073709551615:a"), "a string is longer than what is left");
        assert_eq!(
            scan(b"lei1e", &Limits::INFO).unwrap_err(),
            BencodeError { at: 2, what: "there are bytes after the end" }
        );
        assert_eq!(scan(b"lei1e", &Limits::METAINFO), Ok(2));
        assert_eq!(scan(b"lei1e", &Limits::EXTENSION), Ok(2));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = b"d1:ai-12e1:bl3:abcdee2:cci0ee";
        assert_eq!(scan(whole, &Limits::METAINFO), Ok(whole.len()));
        for len in 0..whole.len() {
            assert!(scan(&whole[..len], &Limits::EXTENSION).is_err(), "{len}");
        }
    }

    #[test]
    fn keys_follow_the_policy() {
        let with =
            |bytes: &[u8], keys| scan(bytes, &Limits { keys, ..Limits::METAINFO }).map_err(|error| error.at);
        let unordered = b"d1:bd1:zle1:ylee1:alee";
        assert_eq!(with(unordered, Keys::Unique), Ok(unordered.len()));
        assert_eq!(with(unordered, Keys::Ascending), Err(10));
        let twice = b"d1:ble1:ale1:blee";
        assert_eq!(with(twice, Keys::LastWins), Ok(twice.len()));
        assert_eq!(with(twice, Keys::Unique), Err(13));
        assert_eq!(with(b"d1:ale1:alee", Keys::Ascending), Err(6));
        let apart = b"d1:bd1:alee1:ad1:bleee";
        assert_eq!(with(apart, Keys::Unique), Ok(apart.len()), "equal keys of different dictionaries");
    }

    #[test]
    fn limits_hold() {
        let tight = Limits { len_max: 10, depth_max: 2, token_max: 3, ..Limits::METAINFO };
        let what = |bytes: &[u8]| scan(bytes, &tight).map_err(|error| error.what);
        assert_eq!(what(b"llee"), Ok(4));
        assert_eq!(what(b"llleee"), Err("nested deeper than is allowed"));
        assert_eq!(what(b"l0:0:0:e"), Err("more values than are allowed"));
        assert_eq!(what(b"8:abcdefgh"), Ok(10));
        assert_eq!(what(b"l0:i111111111e"), Err("longer than is allowed"));
    }

    #[test]
    fn a_bomb_of_nested_lists_needs_no_stack() {
        let bomb = [b'l'; 100_000];
        let endless = Limits { depth_max: usize::MAX, ..Limits::METAINFO };
        assert_eq!(
            scan(&bomb, &endless).unwrap_err(),
            BencodeError { at: DEPTH_MAX, what: "nested deeper than is allowed" }
        );
    }
}
