//! One host: a production node, or one that means harm, with its books and its alarm clock.

use std::net::SocketAddr;

use super::hostile::Hostile;
use super::network::PORT;
use super::traffic::Traffic;
use crate::proto::dht::Dht;
use crate::proto::dht::defence::Defence;
use crate::proto::dht::event::{Config, Output, ReadOnly};
use crate::proto::dht::node_id::Node;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;

/// What decides.
#[derive(Debug)]
pub(super) enum Mind {
    /// Nobody is here yet.
    Absent,
    /// A production node.
    Node(Box<Dht>),
    /// Means harm.
    Hostile(Box<Hostile>),
}

/// A host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) mind: Mind,
    /// Counts those who have been here.
    pub(super) generation: u32,
    pub(super) traffic: Traffic,
    /// The one alarm that counts; earlier ones that are still to ring are ignored.
    alarm_at: Option<Instant>,
}

impl Host {
    pub(super) fn new() -> Self {
        Self { mind: Mind::Absent, generation: 0, traffic: Traffic::default(), alarm_at: None }
    }

    /// A fresh node starts here, with the nodes it had saved if it has been somewhere before.
    pub(super) fn start(&mut self, now: Instant, saved: &[Node], defence: Defence, rng: Rng) {
        let config = Config { v4: true, v6: false, port: PORT, read_only: ReadOnly::Auto, external: None };
        let mut node = Box::new(Dht::with_defence(config, defence, rng, now));
        node.handle_saved(now, saved);
        node.handle_timeout(now);
        self.enter(Mind::Node(node));
    }

    /// Somebody is here from now on.
    pub(super) fn enter(&mut self, mind: Mind) {
        self.mind = mind;
        self.generation += 1;
        self.alarm_at = None;
    }

    /// The production node, if that is what is here.
    pub(super) fn node(&self) -> Option<&Dht> {
        match &self.mind {
            Mind::Node(node) => Some(node),
            Mind::Absent | Mind::Hostile(_) => None,
        }
    }

    /// The same, to act upon.
    pub(super) fn node_mut(&mut self) -> Option<&mut Dht> {
        match &mut self.mind {
            Mind::Node(node) => Some(node),
            Mind::Absent | Mind::Hostile(_) => None,
        }
    }

    /// A datagram came for it. None: its answer, if any, is among the outputs.
    pub(super) fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        self.traffic.receives(bytes.len());
        match &mut self.mind {
            Mind::Node(node) => {
                let _is_krpc = node.handle_datagram(now, from, bytes);
            }
            Mind::Hostile(hostile) => hostile.handle_datagram(from, bytes),
            Mind::Absent => {}
        }
    }

    /// The next thing it wants.
    pub(super) fn poll_output(&mut self) -> Option<Output> {
        match &mut self.mind {
            Mind::Node(node) => node.poll_output(),
            Mind::Hostile(hostile) => hostile.poll_output(),
            Mind::Absent => None,
        }
    }

    /// When an alarm has to be set that is not set yet. Alarms that turn out too early are set anew
    /// when they ring, so that not every input costs an entry of the queue.
    pub(super) fn next_alarm(&mut self) -> Option<Instant> {
        let wanted = match &self.mind {
            Mind::Node(node) => node.poll_timeout(),
            Mind::Hostile(hostile) => Some(hostile.wakes_at()),
            Mind::Absent => None,
        }?;
        if self.alarm_at.is_some_and(|at| at <= wanted) {
            return None;
        }
        self.alarm_at = Some(wanted);
        self.alarm_at
    }

    /// An alarm rings: whether it is the one that counts, and anything was due.
    pub(super) fn ring(&mut self, now: Instant) -> bool {
        if self.alarm_at != Some(now) {
            return false;
        }
        self.alarm_at = None;
        match &mut self.mind {
            Mind::Node(node) => {
                let is_due = node.poll_timeout().is_some_and(|at| at <= now);
                if is_due {
                    node.handle_timeout(now);
                }
            }
            Mind::Hostile(hostile) => hostile.handle_timeout(now),
            Mind::Absent => {}
        }
        true
    }
}
