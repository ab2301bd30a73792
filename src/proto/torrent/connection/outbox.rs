//! The torrent's decisions in order, until the shell takes them; counts what availability costs.

use std::collections::VecDeque;

use crate::proto::block::Block;
use crate::proto::peer::Peer;
use crate::proto::time::Instant;
use crate::proto::torrent::event::{DisconnectReason, Event, Output};
use crate::proto::wire::message::Message;

/// Outputs that wait for the shell.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Output>,
    /// Bytes of availability messages to all peers ever.
    pub(crate) availability_sent: u64,
}

impl Outbox {
    /// Says something to a peer.
    pub(crate) fn send(&mut self, now: Instant, peer: &mut Peer, message: Message) {
        peer.traffic.sent_at = now;
        self.push(Output::Send(peer.conn, message));
    }

    /// Tells a peer which pieces we have: what that costs is counted.
    pub(crate) fn send_availability(&mut self, now: Instant, peer: &mut Peer, message: Message) {
        let len = message.encoded_len() as u64;
        peer.traffic.availability_sent += len;
        self.availability_sent += len;
        self.send(now, peer, message);
    }

    /// Sends a block to a peer.
    pub(crate) fn send_block(&mut self, now: Instant, peer: &mut Peer, block: Block) {
        peer.traffic.sent_at = now;
        self.push(Output::SendBlock(peer.conn, block));
    }

    /// Sends a piece of the metadata to a peer.
    pub(crate) fn send_metadata(&mut self, now: Instant, peer: &mut Peer, message: Message) {
        peer.traffic.sent_at = now;
        self.push(Output::SendMetadata(peer.conn, message));
    }

    /// Closes a connection that is taken off the books already.
    pub(crate) fn disconnect(&mut self, peer: &Peer, reason: DisconnectReason) {
        self.push(Output::Disconnect(peer.conn, reason));
    }

    /// Tells people.
    pub(crate) fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }

    /// Any other decision.
    pub(crate) fn push(&mut self, output: Output) {
        self.queue.push_back(output);
    }

    /// The oldest decision.
    pub(crate) fn pop(&mut self) -> Option<Output> {
        self.queue.pop_front()
    }
}
