//! Decides at a start which pieces are trusted and which must be hashed.
//!
//! The journal records which pieces were durable and the stamps of the files at that time. A file
//! with the same stamp, or one that only this program has written since, keeps its pieces; all
//! pieces of any other file are hashed. Pieces that were intended when the last run ended are
//! hashed in any case. Only stamps are read here.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::content::{Content, StorageError, pieces_of};
use super::fs::{FileSystem, Stamp};
use super::journal::Record;
use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::Info;

/// Longest time from intending to write a piece until its write changes the file, microseconds. If
/// a disk stalls for longer, the file looks changed by another program, which costs hashing it.
const WRITE_TIME_MAX: u64 = 10_000_000;

/// Most by which the clock of a file system lags behind the wall clock: twice the tick of the
/// slowest common kernels.
const CLOCK_LAG_MAX: Duration = Duration::from_millis(20);

/// What a start knows before it hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Pieces that are present.
    pub trusted: Bitfield,
    /// Of these, those with bytes of unselected files in the parts file.
    pub in_parts: Bitfield,
    /// Pieces that may be present and must be hashed.
    pub to_hash: Bitfield,
    /// Files that exist and that this program may write, by number, because the journal says that
    /// it began them.
    pub ours: Bitfield,
    /// Whether the folder is on another device than the journal says, and has none of its files.
    pub is_folder_gone: bool,
}

impl Verdict {
    fn nothing(info: &Info) -> Self {
        let none = Bitfield::new(info.geometry.piece_count());
        let ours = Bitfield::new(info.files.len() as u32);
        Self { trusted: none.clone(), in_parts: none.clone(), to_hash: none, ours, is_folder_gone: false }
    }
}

/// The state of a file compared with its recorded stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// As this program left it.
    Ours,
    /// Present, and possibly written by another program.
    Changed,
    /// Missing.
    Gone,
}

/// Compares the journal with the files. Takes the stamps of all files of the torrent and reads
/// none.
///
/// # Errors
/// The stamp of an existing file cannot be taken.
pub fn judge<F: FileSystem>(content: &Content<F>, record: &Record) -> Result<Verdict, StorageError> {
    let info = content.info();
    let piece_count = info.geometry.piece_count();
    let written_at = last_writes(content, record);
    let mut conditions = Vec::with_capacity(info.files.len() + 1);
    let mut verdict = Verdict::nothing(info);
    for number in 0..=info.files.len() {
        let (stamp, written_at) = (content.look(number)?, written_at.get(&number).copied());
        conditions.push(condition(record, number as u32, stamp, written_at));
        if number < info.files.len() && is_ours(content, record, number as u32, stamp, written_at) {
            verdict.ours.set(number as u32);
        }
    }
    verdict.is_folder_gone = is_folder_gone(content, record, &conditions);
    let has_parts = conditions[info.files.len()] != Condition::Gone;
    // With another selection, the parts file holds the bytes of different files.
    let is_same_selection = record.selected.as_ref() == Some(&content.selection());
    for piece in 0..piece_count {
        let (is_kept, in_parts) = (record.kept.get(piece), record.in_parts.get(piece));
        let places = content.places(content.whole(piece), in_parts);
        let (mut all_ours, mut any_changed, mut any_there) = (true, false, false);
        for number in places {
            all_ours &= conditions[number] == Condition::Ours;
            any_changed |= conditions[number] == Condition::Changed;
            any_there |= conditions[number] != Condition::Gone;
        }
        let may_be_begun = !record.whole || record.intended.contains_key(&piece);
        if is_kept && all_ours && (is_same_selection || !in_parts) {
            verdict.trusted.set(piece);
            if in_parts {
                verdict.in_parts.set(piece);
            }
        } else if any_changed || (any_there && may_be_begun) || (is_kept && in_parts && has_parts) {
            verdict.to_hash.set(piece);
        }
    }
    Ok(verdict)
}

/// Returns the verdict on content that was completely hashed, beginning at `began_at`: trusts the
/// pieces of files whose stamps, as first taken, show no later change.
pub fn hashed<F: FileSystem>(content: &Content<F>, began_at: SystemTime) -> Verdict {
    let began_at = began_at.checked_sub(CLOCK_LAG_MAX).unwrap_or(UNIX_EPOCH);
    let began_at = began_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let began_at = i64::try_from(began_at.as_nanos()).unwrap_or(i64::MAX);
    let geometry = content.info().geometry;
    let mut verdict =
        Verdict { trusted: Bitfield::full(geometry.piece_count()), ..Verdict::nothing(content.info()) };
    for (number, file) in content.selected_files() {
        let looked = content.last_look(number).ok().flatten();
        if looked.is_none_or(|stamp| stamp.changed >= began_at) {
            for piece in pieces_of(file, geometry.piece_len()) {
                verdict.trusted.clear(piece);
                verdict.to_hash.set(piece);
            }
        }
    }
    verdict
}

/// The last time at which this program intended to write to each file, microseconds since 1970.
fn last_writes<F: FileSystem>(content: &Content<F>, record: &Record) -> BTreeMap<usize, u64> {
    let mut written_at = BTreeMap::new();
    for (&piece, &at) in &record.intended {
        // Of the two places for the bytes of unselected files, only the parts file is written.
        for number in content.places(content.whole(piece), true) {
            let last = written_at.entry(number).or_insert(at);
            *last = at.max(*last);
        }
    }
    written_at
}

fn condition(record: &Record, number: u32, stamp: Option<Stamp>, written_at: Option<u64>) -> Condition {
    let Some(now) = stamp else { return Condition::Gone };
    let Some(&then) = record.stamps.get(&number) else {
        // Never stamped: ours if this program began to write it, which proves none of its pieces.
        return if written_at.is_some() && record.whole { Condition::Ours } else { Condition::Changed };
    };
    if record.clean {
        return if now == then { Condition::Ours } else { Condition::Changed };
    }
    let latest = written_at.map_or(i64::MIN, |at| nanoseconds(at.saturating_add(WRITE_TIME_MAX)));
    let by_us = now.inode == then.inode && now.len >= then.len && now.changed <= then.changed.max(latest);
    if by_us { Condition::Ours } else { Condition::Changed }
}

/// Whether the journal says that this program began the file, and the file has not been replaced.
fn is_ours<F: FileSystem>(
    content: &Content<F>,
    record: &Record,
    number: u32,
    stamp: Option<Stamp>,
    written_at: Option<u64>,
) -> bool {
    let Some((now, owned)) = stamp.zip(record.owned.as_ref()) else { return false };
    let is_same = match record.stamps.get(&number) {
        Some(then) => now.inode == then.inode,
        // Missing when the journal was last rewritten. The record of a write that created it can be
        // lost only if the system went down.
        None => written_at.is_some() || owned.boot != content.fs().boot(),
    };
    owned.files.get(number) && is_same
}

/// Whether this program's content was on another device than the folder is now, and the folder has
/// none of it: then the disk is not mounted. On the same device the user has deleted it.
fn is_folder_gone<F: FileSystem>(content: &Content<F>, record: &Record, conditions: &[Condition]) -> bool {
    let Some(owned) = &record.owned else { return false };
    owned.device != content.fs().folder_device()
        && record.kept.count() > 0
        && owned.files.iter_set().all(|number| conditions[number as usize] == Condition::Gone)
}

fn nanoseconds(micros: u64) -> i64 {
    i64::try_from(micros).unwrap_or(i64::MAX).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::testing::sample;

    #[test]
    fn only_files_that_changed_after_hashing_are_hashed_again() {
        let folder = tempfile::tempdir().unwrap();
        let sample = sample(&[("a", 100), ("b", 60)], 32);
        let content = sample.content(folder.path(), &[]);
        sample.pieces().for_each(|piece| sample.write(&content, piece).unwrap());
        let changed = content.look(1).unwrap().unwrap().changed;
        let changed = UNIX_EPOCH + Duration::from_nanos(changed.unsigned_abs());
        let to_hash = |began_at| hashed(&content, began_at).to_hash.iter_set().collect::<Vec<_>>();
        assert!(to_hash(changed + Duration::from_secs(1)).is_empty());
        assert_eq!(to_hash(changed - Duration::from_secs(1)), [0, 1, 2, 3, 4]);
        std::fs::remove_file(folder.path().join("b")).unwrap();
        content.look(1).unwrap();
        assert_eq!(to_hash(changed + Duration::from_secs(1)), [3, 4]);
        assert!(!hashed(&content, changed + Duration::from_secs(1)).trusted.get(3));
    }
}
