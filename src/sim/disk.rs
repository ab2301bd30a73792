//! A simulated disk: what was not made durable may be gone after a power cut, any call may fail or
//! take its time, and space may run out.
//!
//! Every file is two things: what programs see, and what survives. A sync makes the first the
//! second. A power cut keeps of what was not synced any subset of 4 KiB sectors, tears the write
//! that it interrupts, and loses names that no synced folder holds, as far as the [`Model`] of file
//! system allows. A sync that fails leaves things as real systems do, which is worse than not to
//! have asked ([`Failure::Unsynced`]). Everything follows from one seed and the order of calls.

mod faults;
mod inode;
mod power;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

pub use self::faults::{Failure, Faults, When};
use self::inode::Inode;
use self::power::{Power, power_is_out};
use crate::proto::rng::Rng;
use crate::storage::fs::{FileSystem, Stamp};

/// What a disk writes whole or not at all, bytes.
const SECTOR_LEN: u64 = 4096;
/// Time that each call takes by the file system's clock, nanoseconds.
const CALL_TIME: i64 = 1_000;
/// When a disk is new, by its clock, nanoseconds since 1970.
const BEGINNING: i64 = 1_700_000_000_000_000_000;

/// What a file system promises beyond what was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// No more than POSIX: a name survives if its folder was synced, a byte if its file was.
    Posix,
    /// Like ext4 with ordered data: changes of names survive in order up to some moment, and
    /// syncing a file takes its name along; a file is never longer than the data that was written
    /// to it.
    Ordered,
    /// Like file systems that delay allocation: names survive in order, but a length may survive
    /// without the data, which then reads as zeros.
    Delayed,
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
    /// Starts of the machine so far.
    boot_count: u64,
    clock: i64,
    /// When what was called lately ends, by the clock.
    busy_until: i64,
    inodes: BTreeMap<u64, Inode>,
    inode_count: u64,
    names: BTreeMap<Vec<String>, u64>,
    durable_names: BTreeMap<Vec<String>, u64>,
    /// Changes of names that are not durable, in order.
    changes: Vec<Change>,
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
            boot_count: 0,
            clock: BEGINNING,
            busy_until: BEGINNING,
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

    /// It is so long after the beginning, if it is not later yet.
    pub fn set_time(&self, micros: u64) {
        let mut state = self.state();
        state.clock = state.clock.max(BEGINNING + (micros * 1_000) as i64);
    }

    /// Whether both are the same disk.
    pub fn is_same_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// How long what was called until now still takes.
    pub fn delay(&self) -> Duration {
        let state = self.state();
        Duration::from_nanos((state.busy_until - state.clock).max(0) as u64)
    }

    /// The wall clock so long after the beginning, as [`FileSystem::now`] has it.
    pub fn time_after(micros: u64) -> u64 {
        BEGINNING as u64 / 1_000 + micros
    }

    /// The power was out: what survives is all there is.
    pub fn power_cycle(&self) {
        let mut state = self.state();
        state.lose_names();
        let State { inodes, rng, model, .. } = &mut *state;
        inodes.values_mut().for_each(|inode| inode.lose_bytes(*model, rng));
        state.boot_count += 1;
        state.restart();
    }

    /// The program was killed, not the machine: everything is as it was seen.
    pub fn revive(&self) {
        self.state().restart();
    }

    /// Somebody else writes a file, past everything that is to go wrong.
    pub fn tamper(&self, path: &[String], change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        state.clock += CALL_TIME;
        let clock = state.clock;
        if let Some(inode) = state.names.get(path).copied().and_then(|inode| state.inodes.get_mut(&inode)) {
            change(&mut inode.seen);
            inode.settle();
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

    /// A name comes to mean something else, if the power lasts.
    fn change_names(&self, changes: &[(&[String], Option<u64>)]) -> io::Result<()> {
        let mut state = self.state();
        let power = state.call()?;
        if power == Power::On || state.rng.below(2) == 0 {
            changes.iter().for_each(|(path, inode)| state.rename_to(path, *inode));
        }
        power.outcome()
    }

    /// Makes durable what `sync` does, unless that fails in the way of `fail`.
    fn sync_with(
        &self,
        sync: impl FnOnce(&mut State) -> io::Result<()>,
        fail: impl FnOnce(&mut State, bool) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut state = self.state();
        state.call()?.outcome()?;
        if let Some(Failure::Unsynced { error, forgets }) = state.failure() {
            fail(&mut state, forgets)?;
            return Err(error.into());
        }
        sync(&mut state)
    }
}

impl State {
    fn restart(&mut self) {
        self.down = false;
        self.faults = Faults::default();
        self.busy_until = self.clock;
    }

    /// A call that changes nothing.
    fn look(&mut self) -> io::Result<()> {
        if self.down {
            return Err(power_is_out());
        }
        if let Some((When::Time(time), Failure::Stalled)) = &self.faults.failing
            && time.contains(&self.micros())
        {
            self.busy_until = self.busy_until.max(time.end as i64 * 1_000);
        }
        Ok(())
    }

    /// Counts a call that changes something.
    fn call(&mut self) -> io::Result<Power> {
        self.look()?;
        self.call_count += 1;
        self.clock += CALL_TIME;
        if let Some(Failure::Refused(error)) = self.failure() {
            return Err(error.into());
        }
        self.down = self.faults.cut_at == Some(self.call_count);
        Ok(if self.down { Power::GoesOut } else { Power::On })
    }

    fn micros(&self) -> u64 {
        (self.clock / 1_000) as u64
    }

    /// How calls fail just now.
    fn failure(&self) -> Option<Failure> {
        let (when, failure) = self.faults.failing.as_ref()?;
        when.is_now(self.call_count, self.micros()).then_some(*failure)
    }

    /// When what is called now takes effect.
    fn effect_at(&self) -> i64 {
        self.clock.max(self.busy_until)
    }

    /// Sectors that still fit; None: any number.
    fn free_count(&self) -> Option<u64> {
        let (len, when) = self.faults.space.as_ref()?;
        let inodes = self.names.values().filter_map(|inode| self.inodes.get(inode));
        let used = inodes.map(Inode::allocated_count).sum();
        when.is_now(self.call_count, self.micros()).then(|| (len / SECTOR_LEN).saturating_sub(used))
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

impl FileSystem for Disk {
    type File = OpenFile;
    type Lock = ();

    fn full_path(&self, path: &[String]) -> PathBuf {
        path.iter().collect()
    }

    fn open_read(&self, path: &[String]) -> io::Result<Self::File> {
        let mut state = self.state();
        state.look()?;
        state.names.get(path).map(|&inode| OpenFile(inode)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open_write(&self, path: &[String]) -> io::Result<Self::File> {
        match self.open_read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        let mut state = self.state();
        state.inode_count += 1;
        let (number, at) = (state.inode_count, state.effect_at());
        state.inodes.insert(number, Inode::new(at));
        drop(state);
        self.change_names(&[(path, Some(number))])?;
        Ok(OpenFile(number))
    }

    fn open_again(&self, path: &[String]) -> io::Result<Self::File> {
        self.open_read(path)
    }

    fn read_exact_at(&self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        state.look()?;
        if let Some(Failure::Unread(error)) = state.failure() {
            return Err(error.into());
        }
        let inode = state.find(*file)?;
        let end = offset as usize + buffer.len();
        let bytes = inode.seen.get(offset as usize..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_all_at(&self, file: &Self::File, parts: &[&[u8]], offset: u64) -> io::Result<()> {
        let mut bytes = parts.concat();
        let mut state = self.state();
        let mut outcome = state.call()?.outcome();
        if let Some(Failure::Short(error)) = state.failure() {
            outcome = outcome.and(Err(error.into()));
        }
        if outcome.is_err() {
            let some = state.rng.below(bytes.len() + 1);
            bytes.truncate(some);
        }
        let (free, at) = (state.free_count(), state.effect_at());
        let inode = state.find(*file)?;
        let fitting = free.map_or(bytes.len(), |free| inode.fitting_len(offset, bytes.len(), free));
        if fitting < bytes.len() {
            bytes.truncate(fitting);
            outcome = outcome.and(Err(Errno::NOSPC.into()));
        }
        inode.write(&bytes, offset);
        inode.modified = at;
        outcome
    }

    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()> {
        let mut state = self.state();
        // Sparse: only what is written takes space, so a length by itself always fits.
        let power = state.call()?;
        let at = state.effect_at();
        let inode = state.find(*file)?;
        inode.set_len(len);
        inode.modified = at;
        power.outcome()
    }

    fn stamp(&self, path: &[String]) -> io::Result<Option<Stamp>> {
        let mut state = self.state();
        state.look()?;
        let Some(&number) = state.names.get(path) else { return Ok(None) };
        Ok(state.inodes.get(&number).map(|inode| inode.stamp(number)))
    }

    fn stamp_of(&self, file: &Self::File) -> io::Result<Stamp> {
        let mut state = self.state();
        state.look()?;
        Ok(state.find(*file)?.stamp(file.0))
    }

    fn folder_device(&self) -> u64 {
        0
    }

    fn boot(&self) -> u64 {
        self.state().boot_count
    }

    fn now(&self) -> u64 {
        self.state().micros()
    }

    fn free_len(&self) -> Option<u64> {
        self.state().free_count().map(|count| count * SECTOR_LEN)
    }

    fn lock(&self, path: &[String]) -> io::Result<Option<Self::Lock>> {
        // There is one program on this machine.
        self.open_write(path).map(|_| Some(()))
    }

    fn allocate(&self, file: &Self::File, len: u64) -> io::Result<bool> {
        let free = self.state().free_count();
        let fitting =
            free.map(|free| self.state().find(*file).map(|inode| inode.fitting_len(0, len as usize, free)));
        if fitting.transpose()?.is_some_and(|fitting| (fitting as u64) < len) {
            return Err(Errno::NOSPC.into());
        }
        self.set_len(file, len)?;
        self.state().find(*file)?.allocate();
        Ok(true)
    }

    fn rename(&self, from: &[String], to: &[String]) -> io::Result<()> {
        let inode = self.open_read(from)?.0;
        self.change_names(&[(from, None), (to, Some(inode))])
    }

    fn sync(&self, file: &Self::File) -> io::Result<()> {
        let sync = |state: &mut State| {
            state.find(*file)?.sync();
            if state.model != Model::Posix {
                state.keep_names(|change| change.inode == Some(file.0));
            }
            Ok(())
        };
        let fail = |state: &mut State, forgets| {
            let State { inodes, rng, .. } = state;
            inodes.get_mut(&file.0).ok_or(io::ErrorKind::NotFound)?.fail_sync(rng, forgets);
            Ok(())
        };
        self.sync_with(sync, fail)
    }

    fn sync_folder(&self, folder: &[String]) -> io::Result<()> {
        let sync = |state: &mut State| {
            state.keep_names(|change| change.path.starts_with(folder));
            Ok(())
        };
        self.sync_with(sync, |_, _| Ok(()))
    }

    fn sync_all(&self) -> io::Result<()> {
        let sync = |state: &mut State| {
            state.inodes.values_mut().for_each(Inode::sync);
            state.keep_names(|_| true);
            Ok(())
        };
        let fail = |state: &mut State, forgets| {
            let State { inodes, rng, .. } = state;
            inodes.values_mut().for_each(|inode| inode.fail_sync(rng, forgets));
            Ok(())
        };
        self.sync_with(sync, fail)
    }

    fn remove(&self, path: &[String]) -> io::Result<()> {
        match self.open_read(path) {
            Ok(_) => self.change_names(&[(path, None)]),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn set_executable(&self, _path: &[String]) -> io::Result<bool> {
        Ok(false)
    }

    fn close(&self) {}
}
