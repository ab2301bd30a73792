//! The bytes that libFuzzer makes up, taken as numbers and strings. What is missing at the end
//! reads as zeros, so that every prefix of an input means something.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is left of an input.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        byte
    }

    pub fn is_set(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// A number below `bound`, which is at most 256; 0 if it is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound.max(1)
    }

    /// One of them, by the next byte.
    pub fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let at = self.below(all.len());
        all.get(at).cloned()
    }

    /// A number over many orders of magnitude: a byte, shifted by up to 63 bits.
    pub fn magnitude(&mut self) -> u64 {
        let number = u64::from(self.byte());
        number << (self.byte() % 64)
    }

    /// A string with its length before it, up to 255 bytes or what is left.
    pub fn string(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (string, rest) = self.0.split_at(len);
        self.0 = rest;
        string
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// One of a few hundred addresses, of both families, of the internet and of local networks.
    pub fn addr(&mut self) -> SocketAddr {
        let (kind, host) = (self.byte(), self.byte());
        let ip: IpAddr = match kind % 5 {
            0 => Ipv4Addr::new(93, 184, 216, host).into(),
            1 => Ipv4Addr::new(10, 0, 0, host).into(),
            2 => Ipv4Addr::new(1, host, 3, 4).into(),
            3 => Ipv6Addr::new(0x2001, 0xdb8, 0, u16::from(host), 0, 0, 0, 1).into(),
            _ => Ipv4Addr::new(127, 0, 0, host).to_ipv6_mapped().into(),
        };
        SocketAddr::new(ip, if kind >= 250 { 0 } else { 6_881 + u16::from(kind / 64) })
    }
}
