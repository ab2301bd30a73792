//! BEP 47: pad files and attributes.

use super::bep_0003_metainfo::torrent_of;
use sprat::proto::metainfo::files::Attributes;
use sprat::proto::metainfo::{MetainfoError, SYMLINK_LEFT_OUT};

fn file(attr: &str, len: u32, path: &str) -> String {
    format!("d4:attr{}:{attr}6:lengthi{len}e4:pathl{}:{path}ee", attr.len(), path.len())
}

fn files(files: &[String]) -> Result<sprat::proto::metainfo::Metainfo, MetainfoError> {
    torrent_of(&format!("5:filesl{}e", files.concat()), 1)
}

#[test]
fn attributes_are_read_and_unknown_ones_ignored() {
    let torrent =
        files(&[file("x", 1, "a"), file("hz", 1, "b"), file("p", 100, "pad"), file("", 1, "c")]).unwrap();
    let attributes: Vec<_> = torrent.info.files.iter().map(|file| file.attributes).collect();
    let none = Attributes::default();
    let expected = [
        Attributes { executable: true, ..none },
        Attributes { hidden: true, ..none },
        Attributes { pad: true, ..none },
        none,
    ];
    assert_eq!(attributes, expected);
    assert_eq!(torrent.info.files[3].offset, 102, "pad files count");
    let single = torrent_of("4:attr1:x6:lengthi1e", 1).unwrap();
    assert!(single.info.files[0].attributes.executable);
}

#[test]
fn pad_files_may_share_a_path_as_they_are_never_on_disk() {
    let renamed =
        |attr| files(&[file(attr, 1, "9"), file("", 1, "a"), file(attr, 1, "9")]).unwrap().info.renamed;
    assert!(renamed("p").is_empty());
    assert_eq!(renamed("x"), [("9".to_owned(), "9.1".to_owned())]);
}

#[test]
fn paths_of_pad_files_are_not_looked_at() {
    let nameless = "d4:attr1:p6:lengthi7ee".to_owned();
    let torrent = files(&[file("p", 5, ".."), nameless, file("", 1, "a")]).unwrap();
    let paths: Vec<_> = torrent.info.files.iter().map(|file| file.path.join("/")).collect();
    assert_eq!(paths, ["n/.pad/5", "n/.pad/7", "n/a"]);
    assert!(torrent.info.renamed.is_empty());
}

#[test]
fn symbolic_links_are_left_out_and_told() {
    let link = "d4:attr1:l6:lengthi0e4:pathl4:linke12:symlink pathl2:..3:etcee".to_owned();
    let torrent = files(&[file("", 1, "a"), link]).unwrap();
    assert_eq!(torrent.info.files.len(), 1);
    assert_eq!(torrent.info.renamed, [("n/link".to_owned(), SYMLINK_LEFT_OUT.to_owned())]);
}
