//! Disks that stand still or are slow when a test says so: an image on a loop device with a file
//! system of its own. Writes are held up by freezing the file system, reads by a limit on what a
//! group of processes may read from the device (cgroups of both versions), so that other processes,
//! the test among them, are not held up by it.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where the groups of processes are that have limits on block devices, by version.
const GROUPS: [(Version, &str); 2] =
    [(Version::One, "/sys/fs/cgroup/blkio"), (Version::Two, "/sys/fs/cgroup")];

/// One, taken down when dropped.
pub(crate) struct SlowDisk {
    at: PathBuf,
    device: String,
    /// Its number, as `major:minor`.
    number: String,
    is_frozen: Cell<bool>,
    group: Group,
}

/// Processes that are slow together; taken apart when dropped.
struct Group {
    version: Version,
    path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl SlowDisk {
    /// Makes the folder `at`, with a disk of `mib` MiB in its place, which is kept in the file
    /// `image`; None: this is not for us, which is said, and with `SPRAT_INTEROP=require` is a
    /// failure.
    pub(crate) fn mount(image: &Path, at: &Path, mib: u32) -> Option<Self> {
        let disk = Group::make().and_then(|group| Self::try_mount(image, at, mib, group));
        if disk.is_none() {
            let what = "a disk that can be slowed down is not possible here: not tried";
            assert_ne!(std::env::var("SPRAT_INTEROP").as_deref(), Ok("require"), "{what}");
            eprintln!("{what}");
        }
        disk
    }

    fn try_mount(image: &Path, at: &Path, mib: u32, group: Group) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        fs::File::create(image).unwrap().set_len(u64::from(mib) << 20).unwrap();
        let (image, place) = (image.to_str()?, at.to_str()?);
        said("mkfs.ext4", &["-q", "-F", image])?;
        let device = said("losetup", &["-f", "--show", image])?.trim().to_owned();
        let number = said("lsblk", &["-n", "-o", "MAJ:MIN", &device])?.trim().to_owned();
        let disk = Self { at: at.to_owned(), device, number, is_frozen: Cell::new(false), group };
        said("mount", &[&disk.device, place])?;
        fs::remove_dir(at.join("lost+found")).unwrap();
        Some(disk)
    }

    /// Takes everything of it out of memory, where its files lie too.
    pub(crate) fn remount(&self) {
        let place = self.at.to_str().unwrap();
        said("umount", &[place]).expect("nobody uses it");
        said("mount", &[&self.device, place]).expect("it was mounted before");
    }

    /// From now on nothing can be written; what is read is there as before.
    pub(crate) fn freeze(&self) {
        self.is_frozen.set(true);
        said("fsfreeze", &["-f", self.at.to_str().unwrap()]).expect("it can be frozen");
    }

    /// Takes writes again.
    pub(crate) fn thaw(&self) {
        if self.is_frozen.take() {
            let _ = said("fsfreeze", &["-u", self.at.to_str().unwrap()]);
        }
    }

    /// The process reads from it no faster than is said by [`SlowDisk::slow_down`].
    pub(crate) fn hold(&self, process: u32) {
        fs::write(self.group.path.join("cgroup.procs"), process.to_string()).unwrap();
    }

    /// Held processes read so many bytes a second; None: as many as they like.
    pub(crate) fn slow_down(&self, rate: Option<u64>) {
        let (file, limit) = match self.group.version {
            // No limit is 0 here.
            Version::One => ("blkio.throttle.read_bps_device", rate.unwrap_or(0).to_string()),
            Version::Two => {
                ("io.max", format!("rbps={}", rate.map_or("max".to_owned(), |rate| rate.to_string())))
            }
        };
        fs::write(self.group.path.join(file), format!("{} {limit}", self.number)).unwrap();
    }

    /// Nothing that a held process has to read from it comes, for longer than any test lives.
    pub(crate) fn stop_reads(&self) {
        self.slow_down(Some(1));
    }

    /// Takes a file's bytes out of memory.
    pub(crate) fn cool(&self, path: &Path) {
        assert!(path.starts_with(&self.at));
        cool(path);
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        self.thaw();
        self.slow_down(None);
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
        let _ = Command::new("losetup").args(["-d", &self.device]).status();
    }
}

impl Group {
    fn make() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sprat-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let make = |(version, root): (Version, &str)| {
            let control = Path::new(root).join("cgroup.subtree_control");
            if version == Version::Two {
                fs::write(control, "+io").ok()?;
            }
            let path = Path::new(root).join(&name);
            let is_there = Path::new(root).join("cgroup.procs").exists() && fs::create_dir(&path).is_ok();
            is_there.then_some(Self { version, path })
        };
        GROUPS.into_iter().find_map(make)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let procs = "cgroup.procs";
        for process in fs::read_to_string(self.path.join(procs)).unwrap_or_default().lines() {
            let _ = fs::write(self.path.with_file_name(procs), process);
        }
        let _ = fs::remove_dir(&self.path);
    }
}

/// Takes a file's bytes out of memory.
pub(crate) fn cool(path: &Path) {
    let path = path.to_str().unwrap();
    // What is not on the disk yet cannot be given up.
    said("sync", &[path]).expect("a file");
    said("dd", &[&format!("if={path}"), "iflag=nocache", "count=0", "status=none"]).expect("a file");
    let there = said("fincore", &["-b", "-n", "-o", "RES", path]).expect("a file");
    assert_eq!(there.trim(), "0", "bytes of {path} that are still in memory");
}

/// What a program says; None: it is not there or fails.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}
