//! An index of positions in a dense list, by keyed hash.
//!
//! A table of positions only: five bytes a bucket (the position and a byte of its hash) and at most
//! seven eighths full, so 6 to 11 bytes an entry. The owner provides hashes and comparisons.
//! Invariant: each position of the owner's list is in the index once.

use hashbrown::HashTable;

/// The table is shrunk when less than this share of it is used.
const USED_SHARE_MIN: usize = 8;

/// Positions by hash.
#[derive(Debug, Default)]
pub(super) struct Index(HashTable<u32>);

impl Index {
    /// Returns the position whose entry `is_it`, among those of that hash.
    pub(super) fn find(&self, hash: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.0.find(hash, |&position| is_it(position)).copied()
    }

    /// Adds a position that is not indexed yet; `hash_of` gives the hash of any indexed position.
    pub(super) fn insert(&mut self, hash: u64, position: u32, hash_of: impl Fn(u32) -> u64) {
        self.0.insert_unique(hash, position, |&position| hash_of(position));
    }

    /// Records that the entry at `from` has moved to `to`.
    pub(super) fn relocate(&mut self, hash: u64, from: u32, to: u32) {
        let position = self.0.find_mut(hash, |&position| position == from);
        *position.expect("every position of the list is indexed") = to;
    }

    /// Removes a position; `hash_of` gives the hash of every other indexed position.
    pub(super) fn remove(&mut self, hash: u64, position: u32, hash_of: impl Fn(u32) -> u64) {
        let entry = self.0.find_entry(hash, |&indexed| indexed == position);
        entry.expect("every position of the list is indexed").remove();
        if self.0.len() < self.0.capacity() / USED_SHARE_MIN {
            self.0.shrink_to(2 * self.0.len(), |&position| hash_of(position));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rng::Rng;
    use std::collections::BTreeMap;

    #[test]
    fn finds_the_same_positions_as_a_map() {
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
        assert_eq!(index.0.len(), model.len());
    }
}
