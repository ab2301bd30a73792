//! Outgoing data of the machine: queries with their transactions, answers, and the other outputs in
//! order.
//!
//! Sends nothing to port 0, to a multicast group, or to this node itself. Does not know why
//! something is sent.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::event::{Output, ReadOnly};
use super::krpc::{self, Method, Query, Want};
use super::node_id::NodeId;
use super::reach::Reach;
use super::transactions::{Purpose, Transactions};
use crate::proto::compact;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;

/// What all queries of an overlay have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    /// Our id in the overlay.
    pub(super) id: NodeId,
    /// The families of nodes that we want named.
    pub(super) want: Want,
}

/// The queue of outputs, with the pending transactions.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Pending queries.
    pub(super) transactions: Transactions,
    /// Whether other nodes reach this one: IPv4, IPv6.
    reach: [Reach; 2],
    /// Our own addresses, as far as known: IPv4, IPv6.
    pub(super) own: [Option<SocketAddr>; 2],
    /// Whether a lookup waits for a free transaction.
    pub(super) is_starved: bool,
    outputs: VecDeque<Output>,
    sent: (u64, u64),
}

impl Outgoing {
    /// Creates an empty queue.
    pub(super) fn new(read_only: ReadOnly, rng: Rng, now: Instant) -> Self {
        Self {
            transactions: Transactions::new(rng),
            reach: [Reach::new(read_only, now), Reach::new(read_only, now)],
            own: [None; 2],
            is_starved: false,
            outputs: VecDeque::new(),
            sent: (0, 0),
        }
    }

    /// Whether a datagram may be sent to this address.
    pub(super) fn may_send(&self, to: SocketAddr) -> bool {
        compact::is_dialable(to) && !self.own.contains(&Some(to))
    }

    /// Sends a query; false if the address is not allowed or too many queries are pending.
    pub(super) fn query(
        &mut self,
        now: Instant,
        to: SocketAddr,
        purpose: Purpose,
        identity: &Identity,
        method: Method,
    ) -> bool {
        if !self.may_send(to) || !self.transactions.has_room() {
            return false;
        }
        let transaction = self.transactions.open(now, to, purpose);
        let read_only = self.is_read_only(now, to.is_ipv6());
        let bytes = krpc::encode_query(transaction, &Query { id: identity.id, read_only, method });
        self.reach_mut(to).asked(now, to.ip());
        self.datagram(to, bytes);
        true
    }

    /// Queues an encoded datagram.
    pub(super) fn datagram(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        self.sent = (self.sent.0 + 1, self.sent.1 + bytes.len() as u64);
        self.outputs.push_back(Output::Send { to, bytes });
    }

    /// Returns the reachability of the family of this address.
    pub(super) fn reach_mut(&mut self, addr: SocketAddr) -> &mut Reach {
        &mut self.reach[usize::from(addr.is_ipv6())]
    }

    /// Whether queries carry `ro` in a family.
    pub(super) fn is_read_only(&self, now: Instant, is_v6: bool) -> bool {
        self.reach[usize::from(is_v6)].is_read_only(now)
    }

    /// Queues another output.
    pub(super) fn tell(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    /// Returns the next output.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns the datagrams and bytes sent.
    pub(super) fn sent(&self) -> (u64, u64) {
        self.sent
    }
}
