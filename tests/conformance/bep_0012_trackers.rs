//! BEP 12: several trackers in tiers.

use sprat::proto::metainfo::{HINT_COUNT_MAX, Metainfo};

fn trackers(entries: &str) -> Vec<Vec<String>> {
    let info = "4:infod6:lengthi0e4:name1:n12:piece lengthi1e6:pieces0:e";
    Metainfo::decode(format!("d{entries}{info}e").as_bytes()).unwrap().trackers
}

#[test]
fn a_lone_announce_is_one_tier() {
    assert_eq!(trackers("8:announce10:udp://t:80"), [["udp://t:80"]]);
    assert!(trackers("").is_empty());
}

#[test]
fn the_list_replaces_announce_and_keeps_its_order() {
    let list = "13:announce-listll10:udp://b:8010:udp://a:80elel10:udp://c:80ee";
    let tiers = trackers(&format!("8:announce10:udp://t:80{list}"));
    assert_eq!(tiers, [vec!["udp://b:80", "udp://a:80"], vec!["udp://c:80"]]);
}

#[test]
fn what_is_no_absolute_url_is_left_out() {
    let tier = "l3:fooi1e10:udp://c:8010:udp://c:803:a/b7:udp:///e";
    assert_eq!(trackers(&format!("13:announce-listl{tier}le3:fooe")), [["udp://c:80"]]);
    let lone = "8:announce10:udp://t:80";
    assert_eq!(
        trackers(&format!("{lone}13:announce-listle")),
        [["udp://t:80"]],
        "an empty list says nothing"
    );
}

#[test]
fn a_flood_of_trackers_is_cut_off() {
    let tier: String = (0..600).map(|number| format!("11:udp://t:{number:03}")).collect();
    let other = tier.replace("//t", "//u");
    let tiers = trackers(&format!("13:announce-listll{tier}el{other}ee"));
    assert_eq!(tiers.iter().map(Vec::len).collect::<Vec<_>>(), [600, HINT_COUNT_MAX - 600]);
}
