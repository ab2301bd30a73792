//! One file of a simulated disk: what programs see, what survives, and which sectors may differ.

use std::collections::BTreeSet;

use super::{Model, SECTOR_LEN};
use crate::proto::rng::Rng;
use crate::storage::fs::Stamp;

#[derive(Clone, Debug, Default)]
pub(super) struct Inode {
    pub(super) seen: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors that the next sync writes.
    dirty: BTreeSet<u64>,
    /// Sectors that take room.
    allocated: BTreeSet<u64>,
    pub(super) modified: i64,
}

impl Inode {
    pub(super) fn new(modified: i64) -> Self {
        Self { modified, ..Self::default() }
    }

    pub(super) fn stamp(&self, number: u64) -> Stamp {
        let Self { seen, modified, .. } = self;
        Stamp { len: seen.len() as u64, modified: *modified, changed: *modified, inode: number }
    }

    /// Sectors that take room.
    pub(super) fn allocated_count(&self) -> u64 {
        self.allocated.len() as u64
    }

    /// Of so many bytes from `offset`, those that need no more than `sector_max` further sectors.
    pub(super) fn fitting_len(&self, offset: u64, len: usize, sector_max: u64) -> usize {
        let end = offset + len as u64;
        let fresh = |sector: &u64| !self.allocated.contains(sector);
        let first_too_many = sectors(offset, end).filter(fresh).nth(sector_max as usize);
        first_too_many.map_or(len, |sector| (sector * SECTOR_LEN).saturating_sub(offset) as usize)
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        let end = offset as usize + bytes.len();
        if self.seen.len() < end {
            self.seen.resize(end, 0);
        }
        self.seen[offset as usize..end].copy_from_slice(bytes);
        self.dirty.extend(sectors(offset, end as u64));
        self.allocated.extend(sectors(offset, end as u64));
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let old = self.seen.len() as u64;
        self.seen.resize(len as usize, 0);
        self.dirty.extend(sectors(old.min(len), old.max(len)));
        self.allocated.retain(|sector| sector * SECTOR_LEN < len);
    }

    /// Takes room for all of it.
    pub(super) fn allocate(&mut self) {
        self.allocated.extend(sectors(0, self.seen.len() as u64));
    }

    pub(super) fn sync(&mut self) {
        self.durable.resize(self.seen.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            self.write_back(sector);
        }
    }

    /// A sync fails: some sectors were written, and none will be by the next one.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng, forgets: bool) {
        self.durable.resize(self.seen.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            if rng.below(2) == 0 {
                self.write_back(sector);
            }
        }
        if forgets {
            self.seen.clone_from(&self.durable);
        }
    }

    fn write_back(&mut self, sector: u64) {
        let start = (sector * SECTOR_LEN) as usize;
        let end = (start + SECTOR_LEN as usize).min(self.seen.len());
        if start < end {
            self.durable[start..end].copy_from_slice(&self.seen[start..end]);
        }
    }

    /// What is seen is what survives.
    pub(super) fn settle(&mut self) {
        self.durable.clone_from(&self.seen);
        self.dirty.clear();
    }

    /// The power was out.
    pub(super) fn lose_bytes(&mut self, model: Model, rng: &mut Rng) {
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

fn sectors(start: u64, end: u64) -> std::ops::Range<u64> {
    if start < end { start / SECTOR_LEN..end.div_ceil(SECTOR_LEN) } else { 0..0 }
}
