//! The candidate to query next, as an index; candidates are offered closest first.

/// The closest candidate, and the closest one whose source has no query pending.
#[derive(Default)]
pub(super) struct Choice {
    /// The closest candidate.
    pub(super) any: Option<usize>,
    /// The closest candidate of a preferred source.
    pub(super) preferred: Option<usize>,
}

impl Choice {
    /// Offers the next candidate, which is farther than all before.
    pub(super) fn offer(&mut self, at: usize, is_preferred: impl Fn() -> bool) {
        if self.preferred.is_none() && is_preferred() {
            self.preferred = Some(at);
        }
        self.any = self.any.or(Some(at));
    }
}
