//! Files: where content lies on disk, how it is read, written and checked. Knows no peers and no
//! tokio.
//!
//! Core, thread-free over [`fs::FileSystem`]: `span` (content to files), `content` (one torrent's
//! files), `report` (what is wrong with which file), `foreign` (which of them are not ours to
//! write), `journal` and `resume` (what need not be hashed at a start), `store` (content and
//! journal together), `lifecycle` (the machine that decides what is done with them and when),
//! `pieces` (bytes on their way to the disk), `durability` (when they are made durable), `hash`
//! (SHA-1 of many pieces at once), `file_progress`
//! (for people). Shell: `fs::RealFs` with its bounded `handles` and shared
//! `folder`s, `disk` (own threads, bounded queue), `make` (content to torrent), `state_file` and
//! `kept_metadata` (small files of a state folder).

pub mod content;
pub mod disk;
pub mod durability;
pub mod fault;
pub mod file_progress;
mod folder;
pub mod foreign;
pub mod fs;
pub mod handles;
pub mod hash;
pub mod journal;
pub mod journals;
pub mod kept_metadata;
pub mod lifecycle;
pub mod make;
pub mod open;
pub mod pieces;
pub mod report;
pub mod resume;
pub mod span;
pub mod state_file;
pub mod store;
pub mod sweep;
#[cfg(test)]
mod testing;
