//! BEP 53: files chosen in a magnet link.

use sprat::proto::metainfo::magnet::Magnet;

#[test]
fn the_example_of_the_bep_and_huge_ranges() {
    let select = |so: &str| {
        let link = format!("magnet:?xt=urn:btih:{}&so={so}", "0a".repeat(20));
        link.parse::<Magnet>().map(|magnet| (magnet.select.clone(), magnet.to_string() == link))
    };
    assert_eq!(select("0,2,4,6-8"), Ok((vec![(0, 0), (2, 2), (4, 4), (6, 8)], true)));
    assert_eq!(select("0-4294967295"), Ok((vec![(0, u32::MAX)], true)));
    assert_eq!(select("0-4294967296"), Ok((vec![], false)));
    assert_eq!(select("2,x"), Ok((vec![(2, 2)], false)));
}
