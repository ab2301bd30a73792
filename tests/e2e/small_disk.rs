//! Disks of a few MiB in memory, for tests that fill them up or take the right to write away.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One, taken down when dropped.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Makes the folder `at`, with a disk in its place; None: mounting is not for us, which is
    /// said, and with `SPRAT_INTEROP=require` is a failure.
    pub(crate) fn mount(at: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "sprat-test"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at.to_owned()));
        }
        let what = format!("mounting a small disk ({options}) is not possible: not tried");
        assert_ne!(std::env::var("SPRAT_INTEROP").as_deref(), Ok("require"), "{what}");
        eprintln!("{what}");
        None
    }

    /// Fills all but `free_len` bytes with a file.
    pub(crate) fn fill_but(&self, free_len: u64) {
        let free = || {
            let shown = Command::new("stat").args(["-f", "-c", "%a %S"]).arg(&self.0).output().unwrap();
            let text = String::from_utf8(shown.stdout).unwrap();
            text.split_whitespace().map(|number| number.parse::<u64>().unwrap()).product::<u64>()
        };
        fs::write(self.ballast(), vec![0; (free() - free_len) as usize]).unwrap();
        assert!(free() <= free_len, "a file takes its whole length");
    }

    /// Takes that file away.
    pub(crate) fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }

    /// Gives it another size; false: there is more on it than that.
    pub(crate) fn resize(&self, mib: u32) -> bool {
        let size = format!("remount,size={mib}m");
        let resized = Command::new("mount").args(["-o", &size]).arg(&self.0).output();
        resized.is_ok_and(|output| output.status.success())
    }

    /// Takes the right to write away.
    pub(crate) fn make_read_only(&self) {
        let made = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status();
        assert!(made.unwrap().success());
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Bytes on disk that belong to a file.
pub(crate) fn allocated_len(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}
