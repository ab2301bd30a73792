//! BEP 42: ids that follow from addresses, with the BEP's test vectors, and the address that
//! answers tell.

use std::net::IpAddr;

use sprat::proto::dht::krpc::{Answer, decode, encode_answer, encode_error};
use sprat::proto::dht::node_id::NodeId;
use sprat::proto::rng::Rng;

const VECTORS: &str = include_str!("../../fixtures/vectors/bep_vectors.json");

/// Address, last byte of the id, id.
fn vectors() -> Vec<(IpAddr, u8, NodeId)> {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let rows = vectors["bep42"]["vectors"].as_array().unwrap();
    let rows = rows.iter().map(|row| {
        let id = data_encoding::HEXLOWER.decode(row[2].as_str().unwrap().as_bytes()).unwrap();
        let ip = row[0].as_str().unwrap().parse().unwrap();
        (ip, row[1].as_u64().unwrap() as u8, NodeId(id.try_into().unwrap()))
    });
    rows.collect()
}

#[test]
fn the_ids_of_the_bep_fit_their_addresses_alone() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 5);
    for (ip, last, id) in &vectors {
        assert_eq!(id.0[19], *last);
        for (other_ip, ..) in &vectors {
            assert_eq!(id.fits(*other_ip), ip == other_ip, "{id} at {other_ip}");
        }
        // 21 bits count, the next ones are free.
        let changed = |bit: usize| {
            let mut id = *id;
            id.0[bit / 8] ^= 0x80 >> (bit % 8);
            id.fits(*ip)
        };
        assert!((0..21).all(|bit| !changed(bit)) && (21..157).all(changed));
    }
}

#[test]
fn ids_that_we_take_begin_as_those_of_the_bep() {
    let mut rng = Rng::from_number(1);
    for (ip, last, id) in vectors() {
        let same_kind = |own: &NodeId| own.0[19] & 7 == last & 7;
        let own = std::iter::repeat_with(|| NodeId::for_ip(ip, &mut rng)).find(same_kind).unwrap();
        assert!(own.shared_bits(id) >= 21, "{own} like {id}");
    }
}

#[test]
fn answers_and_errors_tell_the_asker_s_address() {
    for (text, key) in [("1.2.3.4:258", "d2:ip6:"), ("[2001:db8::1]:258", "d2:ip18:")] {
        let to = text.parse().unwrap();
        let answer = encode_answer(b"t", NodeId([1; 20]), to, &Answer::default());
        assert!(answer.starts_with(key.as_bytes()));
        assert_eq!(decode(&answer).unwrap().external, Some(to));
        assert_eq!(decode(&encode_error(b"t", to, 203, "no")).unwrap().external, Some(to));
    }
    let mapped =
        encode_answer(b"t", NodeId([1; 20]), "[::ffff:1.2.3.4]:5".parse().unwrap(), &Answer::default());
    assert_eq!(decode(&mapped).unwrap().external, "1.2.3.4:5".parse().ok());
}

#[test]
fn an_address_where_nobody_is_counts_as_none() {
    for ip in ["6:\0\0\0\0\0\u{1}", "6:abcd\0\0", "4:abcd", "i5e"] {
        let bytes = format!("d2:ip{ip}1:rd2:id20:abcdefghij0123456789e1:t1:t1:y1:re");
        assert_eq!(decode(bytes.as_bytes()).unwrap().external, None, "{ip}");
    }
}
