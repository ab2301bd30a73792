//! What must hold whatever happens, and what is reported at the end.

use super::Swarm;
use crate::sim::host::{Host, HostDisk};
use crate::sim::network::HostId;
use crate::sim::scenario::{HostReport, Report};

impl Swarm {
    /// Nothing is claimed that is not on the disk.
    pub(super) fn check_host(&self, id: HostId) {
        let host = &self.hosts[id];
        // What real disks have is looked at when they start.
        let HostDisk::Tags(disk) = &host.disk else { return };
        let claimed = host.machine.torrent.have();
        let false_claim = claimed.count() > disk.good().count() || claimed.has_more_than(disk.good());
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
            let traffic = host.traffic(self.now);
            HostReport {
                role: host.role,
                addr: host.addr,
                joined_at: host.life.joined_at,
                completed_at: host.life.completed_at,
                uploaded: traffic.uploaded,
                downloaded: traffic.downloaded,
                wasted: traffic.wasted,
                availability_sent: traffic.availability_sent,
                banned: host.banned.clone(),
                lost_count: host.life.lost_count,
                anew_count: host.life.anew_count,
                ends: host.life.ends.clone(),
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
