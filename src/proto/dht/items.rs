//! Items stored for other nodes (BEP 44), within limits: 1,024, each for two hours after its last
//! put.
//!
//! While the store is more than half full, one network may have 64 items in it. When it is full, a
//! new item replaces the one farthest from our own id if it is closer, otherwise it is refused.
//! Memory follows the number of items, and expired ones are found without a scan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::defence::prefix::Prefix;
use super::defence::quota::PrefixQuota;
use super::item::{Item, Mutable};
use super::node_id::NodeId;
use crate::proto::time::{Duration, Instant};

/// Most items: some 1.5 MB of the longest ones. When hit, the farthest from our id is replaced, or
/// the new one is refused.
pub const ITEM_COUNT_MAX: usize = 1_024;
/// Items that one /24 or /48 may be the first to put while the store is more than half full, so
/// that one network cannot fill it; local addresses are exempt. When hit, its further ones are
/// refused.
pub const PREFIX_ITEM_COUNT_MAX: u32 = 64;
/// Time after its last put when an item expires (BEP 44: two hours).
pub const ITEM_AGE_MAX: Duration = Duration::from_secs(2 * 3_600);

/// The store.
#[derive(Debug, Default)]
pub struct ItemStore {
    items: BTreeMap<NodeId, Kept>,
    /// The targets of all items, in order of expiry.
    expiries: BTreeSet<(Instant, NodeId)>,
    quota: PrefixQuota,
}

#[derive(Debug)]
struct Kept {
    item: Item,
    /// The prefix of the node that put it first.
    founder: Prefix,
    expires_at: Instant,
}

/// Why a put was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// 301
    #[error("the sequence number there is another")]
    Cas,
    /// 302
    #[error("a newer one is there")]
    Seq,
    /// 201
    #[error("no room")]
    Full,
}

impl PutError {
    /// Its code in a KRPC error.
    pub fn code(self) -> i64 {
        match self {
            Self::Cas => 301,
            Self::Seq => 302,
            Self::Full => 201,
        }
    }
}

impl ItemStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the item at a target.
    pub fn find(&self, target: NodeId) -> Option<&Item> {
        self.items.get(&target).map(|kept| &kept.item)
    }

    /// Stores an item that `from` put. The same sequence number with the same value only prolongs
    /// it; with another value it is refused.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn insert(
        &mut self,
        now: Instant,
        own: NodeId,
        from: IpAddr,
        item: Item,
        cas: Option<i64>,
    ) -> Result<(), PutError> {
        self.expire(now);
        let target = item.target();
        let expires_at = now + ITEM_AGE_MAX;
        if let Some(kept) = self.items.get_mut(&target) {
            if may_replace(&kept.item, &item, cas)? {
                kept.item = item;
            }
            self.expiries.remove(&(kept.expires_at, target));
            kept.expires_at = expires_at;
        } else {
            if !self.quota.may_found(from, self.items.len(), ITEM_COUNT_MAX, PREFIX_ITEM_COUNT_MAX) {
                return Err(PutError::Full);
            }
            if self.items.len() >= ITEM_COUNT_MAX {
                self.make_room(own, target)?;
            }
            let founder = self.quota.add(from);
            self.items.insert(target, Kept { item, founder, expires_at });
        }
        self.expiries.insert((expires_at, target));
        Ok(())
    }

    /// Drops the item farthest from our id, if it is farther than this target. Scans all items, but
    /// only when full, and for a put with a valid token and signature, which cost ten times as much
    /// to check.
    fn make_room(&mut self, own: NodeId, target: NodeId) -> Result<(), PutError> {
        let farthest = self.items.keys().copied().max_by_key(|&kept| own.distance(kept));
        let farther = |kept: &NodeId| own.distance(*kept) > own.distance(target);
        let farthest = farthest.filter(farther).ok_or(PutError::Full)?;
        if let Some(kept) = self.items.remove(&farthest) {
            self.expiries.remove(&(kept.expires_at, farthest));
            self.quota.remove(kept.founder);
        }
        Ok(())
    }

    /// Drops expired items.
    pub fn expire(&mut self, now: Instant) {
        while let Some(&(expires_at, target)) = self.expiries.first()
            && expires_at <= now
        {
            self.expiries.pop_first();
            if let Some(kept) = self.items.remove(&target) {
                self.quota.remove(kept.founder);
            }
        }
    }

    /// Returns when [`ItemStore::expire`] has something to do.
    pub fn expires_at(&self) -> Option<Instant> {
        self.expiries.first().map(|&(expires_at, _)| expires_at)
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether the store is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether the new item replaces the stored one of the same target (true), or only prolongs it
/// (false).
fn may_replace(kept: &Item, new: &Item, cas: Option<i64>) -> Result<bool, PutError> {
    // Both have the same target, so both are immutable and equal, or both are mutable.
    let (Some(Mutable { seq: kept_seq, .. }), Some(Mutable { seq, .. })) = (kept.mutable(), new.mutable())
    else {
        return Ok(false);
    };
    if cas.is_some_and(|cas| cas != *kept_seq) {
        return Err(PutError::Cas);
    }
    if seq < kept_seq || (seq == kept_seq && new.value() != kept.value()) {
        return Err(PutError::Seq);
    }
    Ok(seq > kept_seq)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::item::SecretKey;
    use super::*;

    const OWN: NodeId = NodeId([0; 20]);
    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::new(8, 8, 8, 8));

    /// Each in a network of its own.
    fn host(number: usize) -> IpAddr {
        Ipv4Addr::from_bits(0x0800_0000 + ((number as u32) << 8)).into()
    }

    fn at(secs: u64) -> Instant {
        Instant::from_micros(1_000_000 * secs)
    }

    fn immutable(number: usize) -> Item {
        Item::immutable(format!("i{number}e").into()).unwrap()
    }

    fn mutable(seq: i64, value: &'static str) -> Item {
        SecretKey::from_bytes([1; 32]).sign("salt".into(), seq, value.into()).unwrap()
    }

    fn value(store: &ItemStore, item: &Item) -> Option<String> {
        store.find(item.target()).map(|item| String::from_utf8(item.value().to_vec()).unwrap())
    }

    #[test]
    fn only_newer_items_take_the_place_of_older_ones() {
        let mut store = ItemStore::new();
        let mut put = |item: Item, cas| {
            let result = store.insert(at(0), OWN, HOST, item.clone(), cas);
            (result, value(&store, &item).unwrap())
        };
        assert_eq!(put(mutable(5, "1:a"), Some(7)), (Ok(()), "1:a".into()), "nothing there to compare with");
        assert_eq!(put(mutable(4, "1:b"), None), (Err(PutError::Seq), "1:a".into()));
        assert_eq!(put(mutable(5, "1:b"), None), (Err(PutError::Seq), "1:a".into()));
        assert_eq!(put(mutable(5, "1:a"), None), (Ok(()), "1:a".into()));
        assert_eq!(put(mutable(6, "1:c"), Some(4)), (Err(PutError::Cas), "1:a".into()));
        assert_eq!(put(mutable(6, "1:c"), Some(5)), (Ok(()), "1:c".into()));
        assert_eq!(put(mutable(i64::MAX, "1:d"), None), (Ok(()), "1:d".into()));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn items_expire_two_hours_after_their_last_put() {
        let mut store = ItemStore::new();
        assert_eq!(store.expires_at(), None);
        store.insert(at(0), OWN, HOST, immutable(1), None).unwrap();
        store.insert(at(10), OWN, HOST, mutable(1, "1:a"), None).unwrap();
        store.insert(at(7_000), OWN, HOST, immutable(1), None).unwrap();
        assert_eq!(store.expires_at(), Some(at(7_210)));
        store.expire(at(7_209));
        assert_eq!(store.len(), 2);
        store.expire(at(7_210));
        assert!(store.find(immutable(1).target()).is_some() && store.len() == 1);
        store.expire(store.expires_at().unwrap());
        assert!(store.is_empty() && store.expires_at().is_none());
    }

    #[test]
    fn one_network_cannot_fill_the_store() {
        let mut store = ItemStore::new();
        let mut put = |from: usize, host: &dyn Fn(usize) -> IpAddr| {
            let items = (from..from + ITEM_COUNT_MAX).map(|number| (immutable(number), host(number)));
            items.filter(|(item, host)| store.insert(at(0), OWN, *host, item.clone(), None).is_ok()).count()
        };
        assert_eq!(put(0, &|_| HOST), ITEM_COUNT_MAX / 2, "there is room enough");
        assert_eq!(put(10_000, &|_| HOST), 0);
        let site = |number: usize| IpAddr::from([0x2001, 0xdb8, 0, number as u16, 0, 0, 0, 1]);
        assert_eq!(put(20_000, &site), PREFIX_ITEM_COUNT_MAX as usize);
        assert!(put(30_000, &host) > ITEM_COUNT_MAX / 4, "others still find room");
        store.expire(at(7_200));
        assert_eq!(store.insert(at(7_200), OWN, HOST, immutable(1), None), Ok(()));
    }

    #[test]
    fn a_full_store_keeps_what_is_closest() {
        let mut store = ItemStore::new();
        let mut refused = 0;
        for number in 0..2 * ITEM_COUNT_MAX {
            match store.insert(at(number as u64), OWN, host(number), immutable(number), None) {
                Ok(()) => (),
                Err(error) => {
                    assert_eq!(error, PutError::Full);
                    refused += 1;
                }
            }
            assert!(store.len() <= ITEM_COUNT_MAX && store.len() == store.expiries.len());
        }
        let mut targets: Vec<_> = (0..2 * ITEM_COUNT_MAX).map(|number| immutable(number).target()).collect();
        targets.sort();
        let (closest, farthest) = targets.split_at(ITEM_COUNT_MAX);
        assert!(closest.iter().all(|&target| store.find(target).is_some()));
        assert!(farthest.iter().all(|&target| store.find(target).is_none()));
        assert!(refused > 100 && refused < ITEM_COUNT_MAX, "{refused}");
    }
}
