//! What users of the engine see: what they add and set, the handle of a torrent and its events, and
//! the errors.

pub mod add;
pub mod address;
pub mod config;
pub mod error;
pub mod event;
pub mod fetch;
pub mod handle;
pub mod verify;
pub(crate) mod view;
