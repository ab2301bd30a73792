//! Files: where content lies on disk, how it is read, written and checked. Knows no peers and no tokio.
//!
//! Core, thread-free over [`fs::FileSystem`]: `span` (content to files), `content` (one torrent's files).
//! Shell: `disk`, its own threads, bounded queue.

pub mod content;
pub mod disk;
pub mod fs;
pub mod make;
