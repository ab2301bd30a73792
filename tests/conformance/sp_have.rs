//! `sp_have`, sprat's extension for the news of an interval: its bytes, its cost, and what is
//! refused.

use sprat::proto::bitfield::Bitfield;
use sprat::proto::rng::Rng;
use sprat::proto::wire::message::Message;
use sprat::proto::wire::sp_have::{BadSpHave, SpHave, decode, encode, encode_lost};

fn holding(len: u32, pieces: &[u32]) -> Bitfield {
    let mut have = Bitfield::new(len);
    pieces.iter().for_each(|piece| assert!(have.set(*piece)));
    have
}

#[test]
fn the_example_of_the_documentation() {
    let gained = [3, 4, 305];
    let payload = encode(&gained, &holding(2_000, &gained));
    assert_eq!(&payload[..], [0x01, 0x03, 0x00, 0xac, 0x02]);
    assert_eq!(decode(&payload, 2_000), Ok(SpHave::Delta(gained.to_vec())));
    let payload = encode_lost(&gained, &Bitfield::new(2_000));
    assert_eq!(&payload[..], [0x02, 0x03, 0x00, 0xac, 0x02]);
    assert_eq!(decode(&payload, 2_000), Ok(SpHave::Lost(gained.to_vec())));
}

#[test]
fn whatever_is_sent_comes_back_and_is_never_longer_than_the_bitfield() {
    let mut rng = Rng::from_number(3);
    for piece_count in [0, 1, 7, 8, 9, 128, 129, 2_000, 16_385, 300_000, 4_194_304] {
        for share in [0, 1, 2, 9, 100, 1_000_000_000] {
            let have =
                holding(piece_count, &(0..piece_count).filter(|_| rng.below(2) == 0).collect::<Vec<_>>());
            let gained: Vec<u32> = have.iter_set().filter(|_| rng.below(share) == 0).collect();
            let payload = encode(&gained, &have);
            assert!(payload.len() <= 1 + Bitfield::byte_len(piece_count));
            match decode(&payload, piece_count) {
                Ok(SpHave::Full(all)) => assert_eq!(all, have),
                Ok(SpHave::Delta(some)) => assert_eq!(some, gained),
                other => panic!("{other:?}"),
            }
            let mut left = have;
            gained.iter().for_each(|&piece| assert!(left.clear(piece)));
            let payload = encode_lost(&gained, &left);
            assert!(payload.len() <= 1 + Bitfield::byte_len(piece_count));
            match decode(&payload, piece_count) {
                Ok(SpHave::Full(all)) => assert_eq!(all, left),
                Ok(SpHave::Lost(some)) => assert_eq!(some, gained),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn costs_at_most_what_haves_cost_and_far_less_for_many() {
    let mut rng = Rng::from_number(4);
    let have_len = Message::Have(0).encoded_len();
    for (gained_count, most) in [(1, 9), (10, 27), (200, 257), (1_000, 257)] {
        let mut pieces: Vec<u32> = (0..2_000).collect();
        rng.shuffle(&mut pieces);
        pieces.truncate(gained_count);
        pieces.sort_unstable();
        let payload = encode(&pieces, &holding(2_000, &pieces));
        let message_len = Message::Extended { id: 1, payload }.encoded_len();
        assert!(
            message_len <= most && message_len <= gained_count * have_len,
            "{gained_count}: {message_len}"
        );
    }
}

#[test]
fn a_loss_costs_no_more_than_lt_donthave() {
    for (piece, most) in [(0, 8), (127, 8), (16_383, 9), (2_097_151, 10)] {
        let payload = encode_lost(&[piece], &Bitfield::new(4_194_304));
        assert!(Message::Extended { id: 1, payload }.encoded_len() <= most, "piece {piece}");
    }
}

#[test]
fn a_dense_gain_goes_as_a_bitfield() {
    let payload = encode(&(0..2_000).collect::<Vec<_>>(), &Bitfield::full(2_000));
    assert_eq!(decode(&payload, 2_000), Ok(SpHave::Full(Bitfield::full(2_000))));
}

#[test]
fn what_is_no_availability_of_this_torrent_is_refused() {
    let bad: [&[u8]; 13] = [
        b"",
        b"\x03",
        b"\xff\x00",
        // Bitfields: short, long, with a spare bit set.
        b"\x00\x00",
        b"\x00\x00\x00\x00",
        b"\x00\x00\x01",
        // Beyond the end: at once, in the second step.
        b"\x01\x0f",
        b"\x01\x0e\x00",
        // Cut off; longer than it need be; longer than any.
        b"\x01\x80",
        b"\x01\x01\x83",
        b"\x01\x83\x00",
        b"\x01\x80\x80\x80\x80\x01",
        b"\x01\xff\xff\xff\xff\xff\xff",
    ];
    for payload in bad {
        assert_eq!(decode(payload, 15), Err(BadSpHave), "{payload:?}");
    }
    assert_eq!(decode(b"\x01\x0e", 15), Ok(SpHave::Delta(vec![14])));
    assert_eq!(decode(b"\x01", 15), Ok(SpHave::Delta(vec![])));
    assert_eq!(decode(b"\x02\x0f", 15), Err(BadSpHave));
    assert_eq!(decode(b"\x01\x00", 0), Err(BadSpHave));
    // No piece count, however absurd, makes the sum of the gaps wrap.
    let far = [&[1][..], &[0xff, 0xff, 0xff, 0x7f].repeat(20)].concat();
    assert_eq!(decode(&far, u32::MAX), Err(BadSpHave));
}
