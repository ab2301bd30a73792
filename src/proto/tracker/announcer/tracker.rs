//! One tracker as its client sees it: what it has heard of us, and when it may be asked again (BEP
//! 3, 31).
//!
//! It knows nothing of tiers and other trackers.

use super::{BACKOFF_MAX, BACKOFF_MIN, RequestId};
use crate::proto::time::{Duration, Instant};
use crate::proto::tracker::{AnnounceEvent, INTERVAL_MAX, RetryIn, TrackerError, TrackerStatus};

/// A tracker of the torrent.
#[derive(Debug)]
pub(super) struct Tracker {
    pub(super) url: String,
    /// Its name for us, to be sent back.
    pub(super) tracker_id: Option<String>,
    /// Names the request under way.
    pub(super) request: Option<RequestId>,
    pub(super) seen: Seen,
    standing: Standing,
    failure_count: u32,
    /// Not asked before this.
    retry_at: Instant,
}

/// What people see of a tracker.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Complete peers it knows.
    pub(super) seeders: Option<u32>,
    /// Incomplete peers it knows.
    pub(super) leechers: Option<u32>,
    /// Why the last announce failed.
    pub(super) error: Option<TrackerError>,
}

/// What a tracker has answered to so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// `started` is still to be answered.
    Unknown,
    /// It knows us as incomplete, or as complete from the start.
    Known,
    /// `completed` is due.
    OwedCompleted,
    /// Never asked again.
    Dead,
}

impl Tracker {
    /// A tracker that has not been asked yet.
    pub(super) fn new(url: String, now: Instant) -> Self {
        Self {
            url,
            tracker_id: None,
            request: None,
            seen: Seen::default(),
            standing: Standing::Unknown,
            failure_count: 0,
            retry_at: now,
        }
    }

    /// Whether it can be asked at all.
    pub(super) fn is_spoken(&self) -> bool {
        let start = |len| self.url.get(..len);
        let is = |scheme: &str| start(scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
        is("http://") || is("https://") || is("udp://")
    }

    /// How things stand with it.
    pub(super) fn status(&self) -> TrackerStatus {
        let Seen { seeders, leechers, error } = &self.seen;
        let error = error.as_ref().map(TrackerError::to_string);
        TrackerStatus { url: self.url.clone(), seeders: *seeders, leechers: *leechers, error }
    }

    /// What the next announce says, unless it is `stopped`.
    pub(super) fn event(&self) -> AnnounceEvent {
        match self.standing {
            Standing::Unknown => AnnounceEvent::Started,
            Standing::Known | Standing::Dead => AnnounceEvent::None,
            Standing::OwedCompleted => AnnounceEvent::Completed,
        }
    }

    /// Whether `stopped` is due on leaving.
    pub(super) fn knows_us(&self) -> bool {
        matches!(self.standing, Standing::Known | Standing::OwedCompleted)
    }

    /// When it may be asked again; None: never.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        (self.standing != Standing::Dead).then_some(self.retry_at)
    }

    /// The last piece came. Who does not know us, and is not just hearing of us, shall not hear of
    /// the download.
    pub(super) fn handle_completed(&mut self) {
        let hearing = self.standing == Standing::Unknown && self.request.is_some();
        if self.standing == Standing::Known || hearing {
            self.standing = Standing::OwedCompleted;
        }
    }

    /// It answered an announce of this event.
    pub(super) fn handle_answer(&mut self, now: Instant, event: AnnounceEvent, tracker_id: Option<String>) {
        self.failure_count = 0;
        self.retry_at = now;
        self.standing = match (event, self.standing) {
            (AnnounceEvent::Stopped, _) | (_, Standing::Dead) => Standing::Dead,
            (AnnounceEvent::Completed, _) | (_, Standing::Unknown | Standing::Known) => Standing::Known,
            (_, Standing::OwedCompleted) => Standing::OwedCompleted,
        };
        if tracker_id.is_some() {
            self.tracker_id = tracker_id;
        }
    }

    /// It failed to answer an announce of this event; `jitter` is uniform below 1.
    pub(super) fn handle_failure(
        &mut self,
        now: Instant,
        event: AnnounceEvent,
        error: &TrackerError,
        jitter: f64,
    ) {
        if event == AnnounceEvent::Started && self.standing == Standing::OwedCompleted {
            // It never heard of the download, so it shall hear of a complete peer only.
            self.standing = Standing::Unknown;
        }
        let pause = if event == AnnounceEvent::Stopped { None } else { self.pause_after(error, jitter) };
        self.failure_count = self.failure_count.saturating_add(1);
        match pause {
            Some(pause) => self.retry_at = now + pause,
            None => self.standing = Standing::Dead,
        }
    }

    /// How long it is left alone after such a failure; None: for ever.
    fn pause_after(&self, error: &TrackerError, jitter: f64) -> Option<Duration> {
        match error {
            TrackerError::Gone => None,
            TrackerError::Refused { retry_in: Some(RetryIn::Never), .. } => None,
            TrackerError::Refused { retry_in: Some(RetryIn::After(pause)), .. } => {
                Some((*pause).clamp(BACKOFF_MIN, INTERVAL_MAX))
            }
            TrackerError::Refused { retry_in: None, .. }
            | TrackerError::Garbage(_)
            | TrackerError::Unreachable(_)
            | TrackerError::Timeout => {
                let pause = (BACKOFF_MIN * 2_u32.pow(self.failure_count.min(16))).min(BACKOFF_MAX);
                // Jitter, so that a swarm does not fall upon a tracker that comes back.
                Some(pause.mul_f64(0.75 + jitter / 4.0))
            }
        }
    }
}
