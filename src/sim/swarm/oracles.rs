//! What must hold whatever happens, and what is reported at the end.

use super::Swarm;
use crate::sim::host::Host;
use crate::sim::network::HostId;
use crate::sim::scenario::{HostReport, Report};

impl Swarm {
    /// Nothing is claimed that is not on the disk.
    pub(super) fn check_host(&self, id: HostId) {
        let host = &self.hosts[id];
        let claimed = host.machines.torrent.have();
        let false_claim =
            claimed.count() > host.disk.good().count() || claimed.has_more_than(host.disk.good());
        assert!(!false_claim, "seed {}: {} claims what it has not", self.scenario.seed, host.addr);
    }

    /// What concerns all hosts together.
    pub(super) fn audit(&self) {
        self.network.check_rates(self.now);
        let content = self.network.content();
        assert_eq!(
            content.sent,
            content.delivered + content.dropped + content.under_way,
            "seed {}: content bytes are conserved",
            self.scenario.seed
        );
    }

    pub(super) fn report(&self) -> Report {
        let host = |host: &Host| {
            let snapshot = host.machines.torrent.snapshot(self.now);
            HostReport {
                role: host.role,
                addr: host.addr,
                joined_at: host.life.joined_at,
                completed_at: host.life.completed_at,
                uploaded: snapshot.traffic.uploaded,
                downloaded: snapshot.traffic.downloaded,
                wasted: snapshot.traffic.wasted,
                availability_sent: snapshot.traffic.availability_sent,
                banned: host.banned.clone(),
            }
        };
        let hosts: Vec<HostReport> = self.hosts.iter().map(host).collect();
        let counted: u64 = hosts.iter().map(|host| host.downloaded + host.wasted).sum();
        assert_eq!(counted, self.network.content().delivered, "what was received was counted");
        let uploaded: u64 = hosts.iter().map(|host| host.uploaded).sum();
        assert!(uploaded <= self.network.content().sent, "nothing is counted that was not sent");
        Report {
            hosts,
            trace_digest: self.trace_digest,
            event_count: self.event_count,
            ended_at: self.now,
            bound: self.scenario.bound(),
        }
    }
}
