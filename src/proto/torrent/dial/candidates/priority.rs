//! Whom to dial first (BEP 40): a number that both ends of a connection come to.
//!
//! It takes two addresses and knows nothing of either.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::proto::crc32c::crc32c;

/// BEP 40: both ends of a connection compute the same number, so that a swarm of full peers does
/// not fall into cliques. None for addresses of different families.
pub(super) fn canonical_priority(ours: SocketAddr, theirs: SocketAddr) -> Option<u32> {
    let mut ends = match (ours.ip(), theirs.ip()) {
        (ours_ip, theirs_ip) if ours_ip == theirs_ip => {
            [ours.port().to_be_bytes().to_vec(), theirs.port().to_be_bytes().to_vec()]
        }
        (IpAddr::V4(ours), IpAddr::V4(theirs)) => masked_v4(ours, theirs),
        (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
            let (ours, theirs) = (ours.octets(), theirs.octets());
            let whole = match () {
                () if ours[..4] != theirs[..4] => 6,
                () if ours[..6] != theirs[..6] => 7,
                () => 8,
            };
            [masked(&ours, whole), masked(&theirs, whole)]
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    ends.sort_unstable();
    Some(crc32c(&ends.concat()))
}

fn masked_v4(ours: Ipv4Addr, theirs: Ipv4Addr) -> [Vec<u8>; 2] {
    let (ours, theirs) = (ours.octets(), theirs.octets());
    let whole = match () {
        () if ours[..2] != theirs[..2] => 2,
        () if ours[..3] != theirs[..3] => 3,
        () => 4,
    };
    [masked(&ours, whole), masked(&theirs, whole)]
}

/// The first `whole` bytes as they are, every second bit of the others.
fn masked(octets: &[u8], whole: usize) -> Vec<u8> {
    octets.iter().enumerate().map(|(at, octet)| if at < whole { *octet } else { octet & 0x55 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn canonical_priorities_are_those_of_bep_40() {
        let priority = |ours: &str, theirs: &str| canonical_priority(addr(ours), addr(theirs)).unwrap();
        assert_eq!(priority("123.213.32.10:1", "98.76.54.32:2"), 0xec2d_7224);
        assert_eq!(priority("123.213.32.10:1", "123.213.32.234:2"), 0x9956_8189);
        assert_eq!(priority("206.248.98.111:1", "142.147.89.224:2"), 0x2b41_d456);
        assert_eq!(priority("98.76.54.32:2", "123.213.32.10:1"), 0xec2d_7224);
        assert_eq!(priority("230.12.123.3:1234", "230.12.123.3:300"), crc32c(&[0x01, 0x2c, 0x04, 0xd2]));
        let inputs = |hex: &str| crc32c(&data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap());
        assert_eq!(priority("230.12.23.1:1", "230.12.123.3:1"), inputs("e60c1701e60c7b01"));
        assert_eq!(priority("230.120.23.1:1", "230.12.123.3:1"), inputs("e60c5101e6781501"));
        let ones = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:1";
        for (other, hex) in [
            ("ffff:0fff:ffff:ffff", "ffff0fffffff55555555555555555555ffffffffffff55555555555555555555"),
            ("ffff:ffff:ff0f:ffff", "ffffffffff0fff555555555555555555ffffffffffffff555555555555555555"),
            ("ffff:ffff:ffff:0fff", "ffffffffffff0fff5555555555555555ffffffffffffffff5555555555555555"),
        ] {
            let other = format!("[{other}:ffff:ffff:ffff:ffff]:1");
            assert_eq!(priority(ones, &other), inputs(hex), "{other}");
        }
    }
}
