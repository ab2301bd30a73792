//! A machine, and the order in which it asks a seed for pieces.

use super::rules::{PEER, PIECES, Rig, connected, requests};
use super::swarm::{FAST, settings};
use crate::proto::bitfield::Bitfield;
use crate::proto::torrent::event::Settings;
use crate::proto::wire::message::Message;

#[test]
fn in_order_means_in_order_whatever_a_seed_suggests() {
    for sequential in [true, false] {
        let mut rig = Rig::with(Settings { sequential, ..settings(0) }, Bitfield::new(PIECES));
        let _ = rig.connect(PEER, connected(1, FAST));
        let _ = rig.say(Message::HaveAll);
        let _ = rig.say(Message::Suggest(70));
        let asked = requests(&rig.say(Message::Unchoke));
        let first = asked.first().map(|block| block.piece);
        assert_eq!(first, Some(if sequential { 0 } else { 70 }), "{asked:?}");
        assert_eq!(sequential, asked.is_sorted_by_key(|block| block.piece));
    }
}
