//! The corpora of the fuzz targets, replayed: what once led somewhere new, or was a fault, holds
//! without libFuzzer too.

use std::path::PathBuf;

#[expect(unreachable_pub, dead_code, reason = "elsewhere it is a crate of its own")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

#[test]
fn the_corpora_of_the_fuzz_targets_hold() {
    for (name, target) in targets::TARGETS {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let entries = std::fs::read_dir(&folder).expect("every target has a corpus");
        let paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a corpus is read").path()).collect();
        assert!(!paths.is_empty(), "{}: empty", folder.display());
        for path in paths {
            let bytes = std::fs::read(&path).expect("a corpus is read");
            assert!(std::panic::catch_unwind(|| target(&bytes)).is_ok(), "fails: {}", path.display());
        }
    }
}
