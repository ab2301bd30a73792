//! Starting, resting, and coming back.
