//! Tests of files that replaced ours: they are not ours after a clean end.

use super::*;

impl Place {
    /// The files that a start considers ours, by number.
    fn ours(&self) -> Vec<u32> {
        self.store().begin(Some(self.journal())).unwrap().ours.iter_set().collect()
    }
}

/// Another file replaced one of ours while it was seeded, or before.
#[test]
fn a_file_that_replaced_ours_is_not_ours_after_a_clean_end() {
    for is_before in [true, false] {
        let place = Place::new();
        place.complete();
        let replace = || {
            let longer = [place.sample.file(1), b"mine"].concat();
            fs::write(place.path("new"), longer).unwrap();
            fs::rename(place.path("new"), place.path("b")).unwrap();
        };
        if is_before {
            replace();
        }
        let mut seed = place.start();
        if !is_before {
            replace();
            assert_eq!(seed.send(&place, 4), NONE, "the piece is still good");
        }
        assert_eq!(seed.store.close(&seed.have).unwrap(), []);
        assert_eq!(place.ours(), [0], "is it replaced before: {is_before}");
        assert_eq!(place.start().to_hash.is_empty(), is_before, "what was not hashed again is");
    }
}

#[test]
fn a_file_replaced_while_its_download_seeds_it_is_not_ours_afterwards() {
    for is_removed in [false, true] {
        let place = Place::new();
        let mut download = place.download(&[0, 1, 2, 3, 4]);
        assert_eq!(download.finish(), NONE);
        if is_removed {
            fs::remove_file(place.path("b")).unwrap();
        } else {
            fs::write(place.path("new"), [place.sample.file(1), b"mine"].concat()).unwrap();
            fs::rename(place.path("new"), place.path("b")).unwrap();
        }
        download.send(&place, 4);
        assert_eq!(download.store.close(&download.have).unwrap(), []);
        assert_eq!(place.ours(), [0]);
    }
}

#[test]
fn a_file_that_we_recreated_stays_ours() {
    let place = Place::new();
    let mut download = place.download(&[0, 4]);
    fs::remove_file(place.path("b")).unwrap();
    download.store.content().fs().close();
    [1, 2].into_iter().for_each(|piece| download.write(&place, piece));
    assert_eq!(download.store.commit().unwrap(), []);
    download.write(&place, 3);
    download.repair(&place);
    assert_eq!(place.ours(), [0, 1]);
}
