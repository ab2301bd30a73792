//! A simulated disk: what was not made durable may be gone after a power cut, any call may fail, and space may
//! run out.
//!
//! Every file is two things: what programs see, and what survives. A sync makes the first the second. A power
//! cut keeps of what was not synced any subset of 4 KiB sectors, tears the write that it interrupts, and loses
//! names that no synced folder holds, as far as the [`Model`] of file system allows. Everything follows from one
//! seed and the order of calls.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::proto::rng::Rng;
use crate::storage::fs::{FileSystem, Stamp};

/// What a disk writes whole or not at all, bytes.
const SECTOR_LEN: u64 = 4096;
/// Time that each call takes by the file system's clock, nanoseconds.
const CALL_TIME: i64 = 1_000;

/// What a file system promises beyond what was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// No more than POSIX: a name survives if its folder was synced, a byte if its file was.
    Posix,
    /// Like ext4 with ordered data: changes of names survive in order up to some moment, and syncing a file takes
    /// its name along; a file is never longer than the data that was written to it.
    Ordered,
    /// Like file systems that delay allocation: names survive in order, but a length may survive without the
    /// data, which then reads as zeros.
    Delayed,
}

/// Which calls fail, and how.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The machine goes down in the middle of this call, counted from 1.
    pub cut_at: Option<u64>,
    /// Bytes that all files together may have; more is `StorageFull`.
    pub space: Option<u64>,
    /// From this call on to that one every call that changes anything fails like this.
    pub failing: Option<(std::ops::Range<u64>, io::ErrorKind)>,
}

/// The disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

/// An open file.
#[derive(Clone, Copy, Debug)]
pub struct OpenFile(u64);

#[derive(Debug)]
struct State {
    model: Model,
    rng: Rng,
    faults: Faults,
    /// Calls so far that change something.
    call_count: u64,
    down: bool,
    clock: i64,
    inodes: BTreeMap<u64, Inode>,
    inode_count: u64,
    names: BTreeMap<Vec<String>, u64>,
    durable_names: BTreeMap<Vec<String>, u64>,
    /// Changes of names that are not durable, in order.
    changes: Vec<Change>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors in which `seen` may differ from `durable`.
    dirty: BTreeSet<u64>,
    modified: i64,
}

/// A name came to mean this inode, or nothing any more.
#[derive(Clone, Debug)]
struct Change {
    path: Vec<String>,
    inode: Option<u64>,
}

impl Disk {
    /// Empty.
    pub fn new(model: Model, seed: u64) -> Self {
        let state = State {
            model,
            rng: Rng::from_number(seed),
            faults: Faults::default(),
            call_count: 0,
            down: false,
            clock: 1_700_000_000_000_000_000,
            inodes: BTreeMap::new(),
            inode_count: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// What is to go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// Calls so far that change something.
    pub fn call_count(&self) -> u64 {
        self.state().call_count
    }

    /// Whether the power is out.
    pub fn is_down(&self) -> bool {
        self.state().down
    }

    /// Time passes.
    pub fn wait(&self, micros: u64) {
        self.state().clock += (micros * 1_000) as i64;
    }

    /// The power was out: what survives is all there is.
    pub fn power_cycle(&self) {
        let mut state = self.state();
        state.lose_names();
        let State { inodes, rng, model, .. } = &mut *state;
        inodes.values_mut().for_each(|inode| inode.lose_bytes(*model, rng));
        state.down = false;
        state.faults = Faults::default();
    }

    /// The program was killed, not the machine: everything is as it was seen.
    pub fn revive(&self) {
        let mut state = self.state();
        state.down = false;
        state.faults = Faults::default();
    }

    /// Somebody else writes a file, past everything that is to go wrong.
    pub fn tamper(&self, path: &[String], change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        state.clock += CALL_TIME;
        let clock = state.clock;
        if let Some(inode) = state.names.get(path).copied().and_then(|inode| state.inodes.get_mut(&inode)) {
            change(&mut inode.seen);
            inode.durable.clone_from(&inode.seen);
            inode.dirty.clear();
            inode.modified = clock;
        }
    }

    /// The bytes of a file as programs see them.
    pub fn bytes(&self, path: &[String]) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).and_then(|inode| state.inodes.get(inode)).map(|inode| inode.seen.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts a call that changes something. `Ok(true)`: the power goes out in the middle of it.
    fn call(&mut self) -> io::Result<bool> {
        if self.down {
            return Err(io::Error::other("the power is out"));
        }
        self.call_count += 1;
        self.clock += CALL_TIME;
        if let Some((calls, kind)) = &self.faults.failing
            && calls.contains(&self.call_count)
        {
            return Err((*kind).into());
        }
        self.down = self.faults.cut_at == Some(self.call_count);
        Ok(self.down)
    }

    fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|inode| inode.seen.len() as u64)
            .sum()
    }

    /// Refuses what does not fit.
    fn require_space(&self, more: u64) -> io::Result<()> {
        match self.faults.space {
            Some(space) if self.used() + more > space => Err(io::ErrorKind::StorageFull.into()),
            Some(_) | None => Ok(()),
        }
    }

    fn find(&mut self, file: OpenFile) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&file.0).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn rename_to(&mut self, path: &[String], inode: Option<u64>) {
        match inode {
            Some(inode) => self.names.insert(path.to_vec(), inode),
            None => self.names.remove(path),
        };
        self.changes.push(Change { path: path.to_vec(), inode });
    }

    /// Makes those changes of names durable that `which` picks.
    fn keep_names(&mut self, which: impl Fn(&Change) -> bool) {
        let (kept, left): (Vec<_>, Vec<_>) = std::mem::take(&mut self.changes).into_iter().partition(which);
        self.changes = left;
        kept.into_iter().for_each(|change| self.apply(change));
    }

    fn apply(&mut self, change: Change) {
        match change.inode {
            Some(inode) => self.durable_names.insert(change.path, inode),
            None => self.durable_names.remove(&change.path),
        };
    }

    fn lose_names(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        let until = self.rng.below(changes.len() + 1);
        for (at, change) in changes.into_iter().enumerate() {
            let survives = match self.model {
                Model::Posix => self.rng.below(2) == 0,
                Model::Ordered | Model::Delayed => at < until,
            };
            if survives {
                self.apply(change);
            }
        }
        self.names.clone_from(&self.durable_names);
    }
}

impl Inode {
    fn stamp(&self, number: u64) -> Stamp {
        let Self { seen, modified, .. } = self;
        Stamp { len: seen.len() as u64, modified: *modified, changed: *modified, inode: number }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset as usize + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset as usize..end].copy_from_slice(bytes);
        self.mark(offset, end as u64);
    }

    fn mark(&mut self, start: u64, end: u64) {
        self.dirty.extend(start / SECTOR_LEN..end.div_ceil(SECTOR_LEN));
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.seen);
        self.dirty.clear();
    }

    fn lose_bytes(&mut self, model: Model, rng: &mut Rng) {
        let mut after = self.durable.clone();
        // A length may survive by itself; data beyond it does not.
        if rng.below(2) == 0 {
            after.resize(self.seen.len(), 0);
        }
        for &sector in &self.dirty {
            if rng.below(2) == 0 {
                continue;
            }
            let start = (sector * SECTOR_LEN) as usize;
            let end = (start + SECTOR_LEN as usize).min(self.seen.len());
            if model == Model::Ordered && after.len() < end {
                after.resize(end, 0);
            }
            let end = end.min(after.len());
            if start < end {
                after[start..end].copy_from_slice(&self.seen[start..end]);
            }
        }
        self.seen.clone_from(&after);
        self.durable = after;
        self.dirty.clear();
    }
}

impl FileSystem for Disk {
    type File = OpenFile;
    type Lock = ();

    fn full_path(&self, path: &[String]) -> PathBuf {
        path.iter().collect()
    }

    fn open_read(&self, path: &[String]) -> io::Result<Self::File> {
        let state = self.state();
        if state.down {
            return Err(io::Error::other("the power is out"));
        }
        state.names.get(path).map(|&inode| OpenFile(inode)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open_write(&self, path: &[String]) -> io::Result<Self::File> {
        if let Ok(open) = self.open_read(path) {
            return Ok(open);
        }
        let mut state = self.state();
        state.call()?;
        state.inode_count += 1;
        let (number, modified) = (state.inode_count, state.clock);
        state.inodes.insert(number, Inode { modified, ..Inode::default() });
        state.rename_to(path, Some(number));
        Ok(OpenFile(number))
    }

    fn read_exact_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.find(*file)?;
        let end = offset as usize + buffer.len();
        let bytes = inode.seen.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, file: &Self::File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut bytes = parts.concat();
        let mut state = self.state();
        let grows = (offset + bytes.len() as u64).saturating_sub(state.find(*file)?.seen.len() as u64);
        let cut = state.call()?;
        let room = state.require_space(grows);
        if cut || room.is_err() {
            let some = state.rng.below(bytes.len() + 1);
            // A full disk takes what there is room for.
            bytes.truncate(if cut { some } else { 0 });
        }
        let clock = state.clock;
        let inode = state.find(*file)?;
        inode.write(&bytes, offset);
        inode.modified = clock;
        room.and(if cut { Err(io::Error::other("the power went out")) } else { Ok(()) })
    }

    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()> {
        let mut state = self.state();
        // Sparse: only what is written takes space, so a length by itself always fits.
        state.call()?;
        let clock = state.clock;
        let inode = state.find(*file)?;
        let (old, new) = (inode.seen.len() as u64, len);
        inode.seen.resize(len as usize, 0);
        inode.mark(old.min(new), old.max(new));
        inode.modified = clock;
        Ok(())
    }

    fn stamp(&self, path: &[String]) -> io::Result<Option<Stamp>> {
        let state = self.state();
        let Some(&number) = state.names.get(path) else { return Ok(None) };
        Ok(state.inodes.get(&number).map(|inode| inode.stamp(number)))
    }

    fn stamp_of(&self, file: &Self::File) -> io::Result<Stamp> {
        let mut state = self.state();
        Ok(state.find(*file)?.stamp(file.0))
    }

    fn now(&self) -> u64 {
        (self.state().clock / 1_000) as u64
    }

    fn free_len(&self) -> Option<u64> {
        let state = self.state();
        state.faults.space.map(|space| space.saturating_sub(state.used()))
    }

    fn lock(&self, path: &[String]) -> io::Result<Option<Self::Lock>> {
        // There is one program on this machine.
        self.open_write(path).map(|_| Some(()))
    }

    fn allocate(&self, file: &Self::File, len: u64) -> io::Result<()> {
        self.set_len(file, len)
    }

    fn rename(&self, from: &[String], to: &[String]) -> io::Result<()> {
        let mut state = self.state();
        let inode = state.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        if !state.call()? {
            state.rename_to(from, None);
            state.rename_to(to, Some(inode));
        }
        Ok(())
    }

    fn sync(&self, file: &Self::File) -> io::Result<()> {
        let mut state = self.state();
        if state.call()? {
            return Err(io::Error::other("the power went out"));
        }
        state.find(*file)?.sync();
        if state.model != Model::Posix {
            let number = file.0;
            state.keep_names(|change| change.inode == Some(number));
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &[String]) -> io::Result<()> {
        let mut state = self.state();
        if state.call()? {
            return Err(io::Error::other("the power went out"));
        }
        state.keep_names(|change| change.path.starts_with(folder));
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.call()? {
            return Err(io::Error::other("the power went out"));
        }
        state.inodes.values_mut().for_each(Inode::sync);
        state.keep_names(|_| true);
        Ok(())
    }

    fn remove(&self, path: &[String]) -> io::Result<()> {
        let mut state = self.state();
        if state.names.contains_key(path) && !state.call()? {
            state.rename_to(path, None);
        }
        Ok(())
    }

    fn set_executable(&self, _path: &[String]) -> io::Result<()> {
        Ok(())
    }

    fn close(&self) {}
}
