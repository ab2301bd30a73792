//! The torrents of one engine: who owns them, what share of the budgets each has, and what is kept
//! of their metadata from one start to the next.

pub(crate) mod input;
pub(crate) mod lease;
pub(crate) mod supervisor;
