//! Items that others gave us to keep (BEP 44), within limits: 1,024, each for two hours after its last put.
//!
//! When full, the item farthest from our own id makes room for a closer one; else the new one is refused.

use super::item::Item;
use super::node_id::NodeId;
use crate::proto::time::Instant;

/// The store.
#[derive(Debug)]
pub struct ItemStore {
    _private: (),
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

impl ItemStore {
    /// Empty.
    pub fn new() -> Self {
        todo!()
    }

    /// The item at a target.
    pub fn find(&self, target: NodeId) -> Option<&Item> {
        let _ = target;
        todo!()
    }

    /// Keeps an item. The same sequence number with the same value only prolongs it; with another value it is
    /// refused.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn insert(
        &mut self,
        now: Instant,
        own: NodeId,
        item: Item,
        cas: Option<i64>,
    ) -> Result<(), PutError> {
        let _ = (now, own, item, cas);
        todo!()
    }

    /// Drops what has expired.
    pub fn expire(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// When [`ItemStore::expire`] has something to do.
    pub fn expires_at(&self) -> Option<Instant> {
        todo!()
    }

    /// Items kept.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
