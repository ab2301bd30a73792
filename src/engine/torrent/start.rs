//! How a torrent begins: its files are opened, and what is there already is checked.
//!
//! While pieces are hashed the torrent has no machine for them yet: peers are turned away, those that gave the
//! description wait unread, the user's wishes are kept for later.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::report::Report;
use super::{Plan, Wishes};
use crate::engine::context::{Context, Control};
use crate::engine::handle::{Event, Stage};
use crate::engine::mailbox::Mailbox;
use crate::engine::task;
use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::Info;
use crate::storage::content::{Content, StorageError};
use crate::storage::disk::{DiskContent, Done, Job};
use crate::storage::fs::RealFs;

/// How the beginning ended.
pub(super) enum Started {
    /// Ready to swarm.
    Ready {
        /// Pieces that are verified.
        have: Bitfield,
        /// What the user said meanwhile.
        wishes: Wishes,
    },
    /// The user changed their mind; to be dropped when all is closed.
    Stopped(Option<oneshot::Sender<()>>),
    /// The files cannot be read, in words.
    Failed(String),
}

/// The torrent's files below its folder, which is made if missing. An existing one need not be writable: what
/// is complete can be seeded from anywhere.
pub(super) fn open(
    context: &Context,
    dir: &Path,
    info: Info,
    selected: Vec<bool>,
) -> Result<DiskContent, StorageError> {
    let files = open_folder(context, dir)?;
    Ok(Arc::new(Content::new(info, selected, files)))
}

fn open_folder(context: &Context, dir: &Path) -> Result<RealFs, StorageError> {
    if dir.is_dir() { RealFs::open(dir, &context.handles) } else { RealFs::create(dir, &context.handles) }
}

/// Something is missing, so the folder has to be writable: known now rather than with the first piece.
async fn require_writable(context: Arc<Context>, dir: PathBuf) -> Result<(), String> {
    let created = task::blocking(move || RealFs::create(&dir, &context.handles)).await;
    match created {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("stopped".to_owned()),
    }
}

/// Finds out which pieces are there, with progress in `report`; what the user wants meanwhile is added to
/// `wishes`.
pub(super) async fn check(
    context: &Arc<Context>,
    plan: &Plan,
    content: &DiskContent,
    control: &mut Mailbox,
    report: &mut Report,
    mut wishes: Wishes,
) -> Started {
    let total = content.info().geometry.piece_count();
    if plan.assume_complete {
        return Started::Ready { have: Bitfield::full(total), wishes };
    }
    let (sender, mut progress) = watch::channel((0, 0));
    let checking = find(context, &plan.dir, content, sender);
    tokio::pin!(checking);
    loop {
        tokio::select! {
            have = &mut checking => return match have {
                Ok(have) => {
                    report.event(Event::Checked { good: have.count(), total });
                    Started::Ready { have, wishes }
                }
                Err(error) => Started::Failed(error),
            },
            () = later(&mut progress) => {
                let (checked, good) = *progress.borrow_and_update();
                report.stage(Stage::Checking { checked, good });
            }
            told = control.recv() => match told {
                Some(Control::Command(command, reply)) => {
                    wishes.commands.push(command);
                    // Who does not wait any more needs no answer.
                    let _ = reply.send(());
                }
                Some(Control::Peers(_, peers)) => wishes.peers.extend(peers),
                Some(Control::Accepted(turned_away)) => drop(turned_away),
                Some(Control::Stop(_, reply)) => return Started::Stopped(Some(reply)),
                None => return Started::Stopped(None),
            },
        }
    }
}

/// Waits for progress, and not less than a moment: hashing tells of each piece, people need not see each.
async fn later(progress: &mut watch::Receiver<(u32, u32)>) {
    tokio::time::sleep(PROGRESS_INTERVAL).await;
    if progress.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Least time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The pieces that are there, in a folder that can take those that are not.
async fn find(
    context: &Arc<Context>,
    dir: &Path,
    content: &DiskContent,
    progress: watch::Sender<(u32, u32)>,
) -> Result<Bitfield, String> {
    let have = hash(context, content, progress).await?;
    if content.wanted().has_more_than(&have) {
        require_writable(context.clone(), dir.to_owned()).await?;
    }
    Ok(have)
}

/// The pieces that are there; hashing stops when this is dropped.
async fn hash(
    context: &Context,
    content: &DiskContent,
    progress: watch::Sender<(u32, u32)>,
) -> Result<Bitfield, String> {
    let existing = content.clone();
    let exists = context.disk.look(move || existing.exists()).await;
    match exists {
        Some(Ok(true)) => {}
        Some(Ok(false)) => return Ok(Bitfield::new(content.info().geometry.piece_count())),
        Some(Err(error)) => return Err(error.to_string()),
        None => return Err("stopped".to_owned()),
    }
    let progress = Box::new(move |checked, good| {
        progress.send_replace((checked, good));
        !progress.is_closed()
    });
    match context.disk.run(content, Job::Check { progress }).await {
        Some(Done::Check(have)) => have.map_err(|error| error.to_string()),
        Some(Done::StorePiece { .. } | Done::Read { .. } | Done::Finish(_)) | None => {
            Err("stopped".to_owned())
        }
    }
}
