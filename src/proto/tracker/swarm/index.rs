//! An index of positions in a dense list, by keyed hash: open addressing with linear probing.
//!
//! Four bytes a slot and at most three quarters full, so 5 to 11 bytes an entry. It knows neither keys nor
//! entries: the owner gives hashes and compares. Invariant: each position of the owner's list is in it once.

/// Marks a slot without entry.
const EMPTY: u32 = u32::MAX;
/// Fewest slots.
const SLOT_MIN: usize = 16;

/// Positions by hash.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// A power of two, or none.
    slots: Vec<u32>,
    len: usize,
}

impl Index {
    /// The position whose entry `is_it`, among those of that hash.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        if self.slots.is_empty() {
            return None;
        }
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            match self.slots[slot] {
                EMPTY => return None,
                position if is_it(position) => return Some(position),
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// Adds a position that is not in it yet; `hash_of` gives the hash of any position already in it.
    pub(super) fn insert(&mut self, hash: u64, position: u32, hash_of: impl Fn(u32) -> u64) {
        if (self.len + 1) * 4 > self.slots.len() * 3 {
            self.resize((self.slots.len() * 2).max(SLOT_MIN), hash_of);
        }
        self.put(hash, position);
        self.len += 1;
    }

    /// The entry at `from` has moved to `to`.
    pub(super) fn relocate(&mut self, hash: u64, from: u32, to: u32) {
        let slot = self.slot_of(hash, from);
        self.slots[slot] = to;
    }

    /// Takes a position out; `hash_of` gives the hash of every other position in it.
    pub(super) fn remove(&mut self, hash: u64, position: u32, hash_of: impl Fn(u32) -> u64) {
        let mask = self.slots.len() - 1;
        let mut hole = self.slot_of(hash, position);
        let mut slot = hole;
        // Whatever was pushed past the hole moves back, so that no marks of the dead are needed.
        loop {
            slot = (slot + 1) & mask;
            let moved = self.slots[slot];
            if moved == EMPTY {
                break;
            }
            let home = hash_of(moved) as usize & mask;
            if (slot.wrapping_sub(home) & mask) >= (slot.wrapping_sub(hole) & mask) {
                self.slots[hole] = moved;
                hole = slot;
            }
        }
        self.slots[hole] = EMPTY;
        self.len -= 1;
        if self.slots.len() > SLOT_MIN && self.len * 8 < self.slots.len() {
            self.resize(self.slots.len() / 4, hash_of);
        }
    }

    fn slot_of(&self, hash: u64, position: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != position {
            assert!(self.slots[slot] != EMPTY, "a position is indexed");
            slot = (slot + 1) & mask;
        }
        slot
    }

    fn put(&mut self, hash: u64, position: u32) {
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        while self.slots[slot] != EMPTY {
            slot = (slot + 1) & mask;
        }
        self.slots[slot] = position;
    }

    fn resize(&mut self, slot_count: usize, hash_of: impl Fn(u32) -> u64) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slot_count.max(SLOT_MIN)]);
        for position in old.into_iter().filter(|&position| position != EMPTY) {
            self.put(hash_of(position), position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rng::Rng;
    use std::collections::BTreeMap;

    #[test]
    fn it_finds_what_a_map_finds() {
        let mut rng = Rng::from_number(5);
        let mut index = Index::default();
        let mut keys: Vec<u64> = Vec::new();
        let mut model = BTreeMap::new();
        // Few distinct hashes, so that runs are long and wrap around.
        let hash = |key: u64| key % 61;
        for step in 0..20_000 {
            let key = rng.below(400) as u64;
            let growing = step % 4000 < 2000;
            let found = index.find(hash(key), |at| keys[at as usize] == key);
            assert_eq!(found, model.get(&key).copied());
            if let Some(at) = found.filter(|_| !growing || step % 3 == 0) {
                index.remove(hash(key), at, |at| hash(keys[at as usize]));
                model.remove(&key);
                let last = keys.len() as u32 - 1;
                keys.swap_remove(at as usize);
                if at != last {
                    let moved = keys[at as usize];
                    index.relocate(hash(moved), last, at);
                    model.insert(moved, at);
                }
            } else if found.is_none() && growing {
                index.insert(hash(key), keys.len() as u32, |at| hash(keys[at as usize]));
                model.insert(key, keys.len() as u32);
                keys.push(key);
            }
        }
        assert_eq!(index.len, model.len());
    }
}
