//! The simulated tracker: the production service behind the production HTTP codec.

use std::net::SocketAddr;

use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use crate::proto::tracker::service::Service;
use crate::proto::tracker::{Announce, AnnounceReply, TrackerError, http};

/// Where everybody announces.
pub(super) const URL: &str = "http://tracker.example/announce";
const ORIGIN_LEN: usize = "http://tracker.example".len();

/// A tracker without a socket.
#[derive(Debug)]
pub(super) struct Tracker {
    service: Service,
    body: Vec<u8>,
}

impl Tracker {
    pub(super) fn new(rng: Rng, now: Instant) -> Self {
        Self { service: Service::new(rng, now), body: Vec::new() }
    }

    /// The query of an announce goes in as text, the body comes out as bytes.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        announce: &Announce,
    ) -> Result<AnnounceReply, TrackerError> {
        if self.service.poll_timeout().is_some_and(|due_at| due_at <= now) {
            self.service.handle_timeout(now);
        }
        let url = http::announce_url(URL, announce);
        self.body.clear();
        let status = self.service.handle_http(now, from, &url[ORIGIN_LEN..], &mut self.body);
        assert_eq!(status, 200, "an announce of our own is understood");
        http::decode_reply(&self.body)
    }

    /// Answers a datagram (BEP 15), if it is one for a tracker.
    pub(super) fn answer_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        let mut answer = Vec::new();
        self.service.handle_datagram(now, from, bytes, &mut answer).then_some(answer)
    }
}
