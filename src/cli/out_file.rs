//! Writing a file that the user named, such as with `-o`.
//!
//! A regular file, or one that does not exist yet, is written beside its place and renamed, so that
//! it is whole at every moment; it keeps its mode, and its owner where that is allowed. Devices,
//! pipes and links are written to as they are, and so is a file with several names. `-` is standard
//! output.
//!
//! A pipe is waited for until a process reads it: once a command has caught signals it writes by
//! [`save`], which they end.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::interrupt::Interrupts;
use super::output::{self, Stream};
use super::report::Report;
use super::runtime;
use super::source::STANDARD;

/// Names that are tried for the file beside; each that exists already belongs to another run, or
/// was planted.
const BESIDE_TRIES: u32 = 16;

/// Whether it stands for standard output.
pub(crate) fn is_standard(target: &Path) -> bool {
    target == Path::new(STANDARD)
}

/// The voice of a command that writes to `target`: where that is standard output, the rest is told
/// on standard error.
///
/// # Errors
/// Standard output would have to take JSON too.
pub(crate) fn report(target: Option<&Path>, report: &Report) -> Result<Report, Failure> {
    match target {
        Some(target) if is_standard(target) && report.is_json() => Err(Failure::Usage(
            "--json prints to standard output, so the torrent cannot go there: name a file instead of `-`"
                .to_owned(),
        )),
        Some(target) if is_standard(target) => Ok(report.aside()),
        Some(_) | None => Ok(report.clone()),
    }
}

/// Writes all of it, for a command that signals end by themselves; `option` is how the user named
/// the target.
///
/// # Errors
/// The place cannot be written to; what was there before is there still, if it is a file with one
/// name.
pub(crate) fn write(target: &Path, bytes: &[u8], option: &str) -> Result<(), Failure> {
    if is_standard(target) {
        // In turn with what else is printed; an error is told at the end.
        output::text_to(Stream::Out, bytes.to_vec());
        return Ok(());
    }
    let hint = format!("; choose another place with {option}");
    write_file(target, bytes).map_err(|error| Failure::io(target, &error, &hint))
}

/// The same for a command that has caught signals.
///
/// # Errors
/// As [`write`]; or a signal came before all was written.
pub(crate) async fn save(
    target: &Path,
    bytes: Vec<u8>,
    option: &'static str,
    interrupts: &mut Interrupts,
) -> Result<(), Failure> {
    let target = target.to_owned();
    tokio::select! {
        signal = interrupts.next() => Err(Failure::Interrupted(signal)),
        written = runtime::on_a_thread(move || write(&target, &bytes, option)) => written,
    }
}

fn write_file(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let existing = match target.symlink_metadata() {
        Ok(existing) => Some(existing),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    match &existing {
        Some(existing) if existing.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Some(existing) if !existing.is_file() || existing.nlink() > 1 => write_to(target, bytes),
        Some(_) | None => match replace(target, existing.as_ref(), bytes) {
            // A file that may be written to in a folder that may not.
            Err(error) if existing.is_some() && error.kind() == ErrorKind::PermissionDenied => {
                write_to(target, bytes)
            }
            written => written,
        },
    }
}

/// Writes into the existing file, device or pipe, through links; makes the file that a dangling
/// link leads to.
fn write_to(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(target)?;
    file.write_all(bytes)
}

/// Beside the target, then in its place.
fn replace(target: &Path, existing: Option<&Metadata>, bytes: &[u8]) -> io::Result<()> {
    let (beside, file) = create_beside(target, existing)?;
    let written = fill(file, existing, bytes).and_then(|()| std::fs::rename(&beside, target));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

/// Makes a new file beside the target: an existing file is not opened, and no link is followed.
/// Until the file has the target's mode, only its owner may read it, if there is a target.
fn create_beside(target: &Path, existing: Option<&Metadata>) -> io::Result<(PathBuf, File)> {
    let name = target.file_name().ok_or(ErrorKind::InvalidInput)?;
    let mode = if existing.is_some() { 0o600 } else { 0o666 };
    for number in 0..BESIDE_TRIES {
        let beside = target.with_file_name(beside_name(name, number));
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside) {
            Ok(file) => return Ok((beside, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Returns a short name: the target's own may have the greatest length already.
fn beside_name(target: &OsStr, number: u32) -> String {
    let start: String =
        target.to_string_lossy().chars().filter(char::is_ascii_alphanumeric).take(32).collect();
    format!(".{start}.{}.{number}.part", std::process::id())
}

fn fill(mut file: File, existing: Option<&Metadata>, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    if let Some(existing) = existing {
        let present = file.metadata()?;
        if (present.uid(), present.gid()) != (existing.uid(), existing.gid()) {
            // Only root may give files away; for others it becomes theirs.
            let _ = fchown(&file, Some(existing.uid()), Some(existing.gid()));
        }
        file.set_permissions(existing.permissions())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    fn write(target: &Path, bytes: &[u8]) -> Result<(), Failure> {
        super::write(target, bytes, "-o")
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn files_are_replaced_and_keep_their_mode() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x");
        write(&target, b"first").unwrap();
        for bits in [0o600, 0o640, 0o666] {
            std::fs::set_permissions(&target, Permissions::from_mode(bits)).unwrap();
            let before = target.metadata().unwrap().ino();
            write(&target, b"second").unwrap();
            assert_eq!((std::fs::read(&target).unwrap(), mode(&target)), (b"second".to_vec(), bits));
            assert_ne!(target.metadata().unwrap().ino(), before, "whole at every moment");
        }
        let long = dir.path().join("\u{e4}".repeat(127));
        write(&long, b"x").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside");
    }

    #[test]
    fn links_and_devices_are_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("file"), "long before").unwrap();
        symlink("file", at("link")).unwrap();
        write(&at("link"), b"new").unwrap();
        assert!(at("link").symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(at("file")).unwrap(), b"new");
        symlink("later", at("dangling")).unwrap();
        write(&at("dangling"), b"new").unwrap();
        assert_eq!(std::fs::read(at("later")).unwrap(), b"new");
        std::fs::hard_link(at("file"), at("other name")).unwrap();
        write(&at("file"), b"both").unwrap();
        assert_eq!(std::fs::read(at("other name")).unwrap(), b"both");
        symlink("/dev/null", at("null")).unwrap();
        for null in [Path::new("/dev/null"), &at("null")] {
            write(null, b"gone").unwrap();
        }
        assert!(Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());
        assert!(matches!(write(dir.path(), b"x"), Err(Failure::Failed(_))));
        assert!(matches!(write(&at("none/x"), b"x"), Err(Failure::Failed(_))));
    }

    #[test]
    fn what_was_planted_beside_is_neither_followed_nor_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (target, victim) = (dir.path().join("x"), dir.path().join("victim"));
        std::fs::write(&victim, "mine").unwrap();
        for number in 0..3 {
            symlink(&victim, dir.path().join(beside_name("x".as_ref(), number))).unwrap();
        }
        write(&target, b"new").unwrap();
        assert_eq!(
            (std::fs::read(&victim).unwrap(), std::fs::read(&target).unwrap()),
            (b"mine".to_vec(), b"new".to_vec())
        );
    }
}
