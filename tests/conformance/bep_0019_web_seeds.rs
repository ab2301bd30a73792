//! BEP 19: HTTP sources.

use sprat::proto::metainfo::Metainfo;

fn web_seeds(entries: &str) -> Vec<String> {
    let info = "4:infod6:lengthi0e4:name1:n12:piece lengthi1e6:pieces0:e";
    Metainfo::decode(format!("d{info}{entries}e").as_bytes()).unwrap().web_seeds
}

#[test]
fn one_or_several_are_read_and_junk_is_left_out() {
    assert_eq!(web_seeds("8:url-list9:http://a/"), ["http://a/"]);
    assert_eq!(web_seeds("8:url-listl9:http://a/10:https://b/e"), ["http://a/", "https://b/"]);
    assert_eq!(web_seeds("8:url-listl0:i1e4:junk9:http://a/e"), ["http://a/"]);
    assert!(web_seeds("8:url-list0:").is_empty() && web_seeds("8:url-listi1e").is_empty());
    let libtorrents = Metainfo::decode(super::bep_0003_metainfo::SINGLE).unwrap();
    assert_eq!(libtorrents.web_seeds, ["http://seed.example/single.bin"]);
}
