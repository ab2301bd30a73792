//! A seed of some files and what was downloaded of it before: for tests of files that were there.

use crate::process::{Ended, Sprat, content, sprat, tree};

/// A folder with the content `set`, its torrent, a seed of it, and empty state.
pub(crate) struct Scene {
    pub(crate) dir: tempfile::TempDir,
    _seed: Sprat,
    pub(crate) port: u16,
}

/// Bytes of `set/large.bin`.
pub(crate) const LARGE_LEN: usize = 200_000;

impl Scene {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        content(
            &dir.path().join("set"),
            &[("large.bin", LARGE_LEN), ("notes.txt", 12), ("other.bin", 100_000)],
        );
        let made = sprat(dir.path(), &["create", "set", "-o", "set.torrent", "--piece-size", "32768"]);
        assert_eq!(made.code, Some(0), "{made:?}");
        let mut seed = Sprat::start(dir.path(), &["seed", "set.torrent", "--port", "0", "--json"]);
        let port = seed.event("seeding")["port"].as_u64().unwrap().try_into().unwrap();
        std::fs::create_dir(dir.path().join("to")).unwrap();
        Self { dir, _seed: seed, port }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path("to/set").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub(crate) fn download(&self, more: &[&str]) -> Ended {
        self.download_to("to", more)
    }

    pub(crate) fn download_to(&self, to: &str, more: &[&str]) -> Ended {
        let peer = format!("127.0.0.1:{}", self.port);
        let args = ["download", "set.torrent", "-d", to, "--port", "0", "--peer", &peer];
        let state = self.path("state");
        let variables = [("XDG_STATE_HOME", state.to_str().unwrap())];
        Sprat::start_with(self.dir.path(), &[&args[..], more].concat(), &variables).end()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        let state = self.path("state");
        let variables = [("XDG_STATE_HOME", state.to_str().unwrap())];
        Sprat::start_with(self.dir.path(), args, &variables).end()
    }

    pub(crate) fn assert_same(&self) {
        assert!(tree(&self.path("set")) == tree(&self.path("to/set")), "it differs");
    }
}
