//! HTTP trackers (BEP 3, 7, 23, 24, 31, 48): query strings and bencoded answers, both directions.

use super::{Announce, AnnounceReply, TrackerError};

/// Longest body of an answer that is read, after inflating.
pub const BODY_LEN_MAX: usize = 2 << 20;

/// The URL to fetch: the tracker's own query is kept.
pub fn announce_url(tracker: &str, announce: &Announce) -> String {
    let _ = (tracker, announce);
    todo!()
}

/// Reads the body of an answer, whatever the HTTP status was (410 is the shell's to report as `Gone`).
pub fn decode_reply(body: &[u8]) -> Result<AnnounceReply, TrackerError> {
    let _ = body;
    todo!()
}
