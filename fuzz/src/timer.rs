//! Time as a machine's shell lets it pass.

use sprat::proto::time::{Duration, Instant};

use super::input::Input;

/// A machine that is woken this often at one instant does not come to rest.
pub const WAKE_COUNT_MAX: usize = 1_000;

/// The next instant: a while later, by the input, or exactly when the machine asked to be woken.
pub fn later(input: &mut Input<'_>, now: Instant, due_at: Option<Instant>) -> Instant {
    let by = input.byte();
    if by.is_multiple_of(2)
        && let Some(due_at) = due_at
    {
        return due_at.max(now);
    }
    // From a millisecond to two and a half hours.
    now + Duration::from_millis(u64::from(by / 2) << input.below(17))
}
