//! Connections that wait for their turn, each at most once, first come first served.

use std::collections::{BTreeSet, VecDeque};

use super::event::ConnId;

/// A queue without duplicates.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    order: VecDeque<ConnId>,
    members: BTreeSet<ConnId>,
}

impl RoundRobin {
    /// Queues at the end, unless queued already.
    pub(super) fn push(&mut self, conn: ConnId) {
        if self.members.insert(conn) {
            self.order.push_back(conn);
        }
    }

    /// Queues at the front: its turn was cut short.
    pub(super) fn push_front(&mut self, conn: ConnId) {
        if self.members.insert(conn) {
            self.order.push_front(conn);
        }
    }

    /// Whose turn it is.
    pub(super) fn pop(&mut self) -> Option<ConnId> {
        let conn = self.order.pop_front()?;
        self.members.remove(&conn);
        Some(conn)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}
