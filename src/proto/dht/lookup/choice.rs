//! Whom to ask next, of candidates that are offered closest first, as indices.

/// The closest that may be asked, and the closest of those whose namers are not being tried
/// already.
#[derive(Default)]
pub(super) struct Choice {
    /// The closest.
    pub(super) any: Option<usize>,
    /// The closest whose namer is not.
    pub(super) preferred: Option<usize>,
}

impl Choice {
    /// The next candidate, farther than all before.
    pub(super) fn offer(&mut self, at: usize, is_preferred: impl Fn() -> bool) {
        if self.preferred.is_none() && is_preferred() {
            self.preferred = Some(at);
        }
        self.any = self.any.or(Some(at));
    }
}
