//! BEP 46: torrents that are updated through mutable items; where their items are, with the BEP's
//! test vectors.

use sprat::proto::dht::item::ItemKey;

const VECTORS: &str = include_str!("../../fixtures/vectors/bep_vectors.json");

#[test]
fn key_and_salt_name_the_target() {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let vector = |name: &str| vectors["bep46"][name].as_str().unwrap();
    let hex = |name: &str| data_encoding::HEXLOWER.decode(vector(name).as_bytes()).unwrap();
    let public_key = hex("pk").try_into().unwrap();
    for (salt, target) in [(vec![], "target"), (hex("salt_hex"), "target_salted")] {
        let key = ItemKey::Mutable { public_key, salt: salt.into() };
        assert_eq!(key.target().to_string(), vector(target));
    }
}
