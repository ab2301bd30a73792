//! How a torrent begins: its files are opened and held against its journal, what nobody vouches for is hashed,
//! and if something is missing all is made ready for writing.
//!
//! While pieces are hashed the torrent has no machine for them yet: peers are turned away, those that gave the
//! description wait unread, the user's wishes are kept for later.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::fault::fault_of;
use super::report::Report;
use super::{Leaving, Plan, Wishes};
use crate::engine::add::Existing;
use crate::engine::context::Context;
use crate::engine::handle::{Event, Stage};
use crate::engine::mailbox::Mailbox;
use crate::engine::task;
use crate::proto::bitfield::Bitfield;
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::Info;
use crate::proto::torrent::event::StorageFault;
use crate::storage::content::{Content, StorageError};
use crate::storage::disk::{DiskContent, Done, Job};
use crate::storage::fs::RealFs;
use crate::storage::journal::{Journal, Owner};
use crate::storage::persistence::STORAGE_RETRY;
use crate::storage::pieces::PartialPiece;
use crate::storage::resume::{self, Verdict};
use crate::storage::store::Store;

/// Least time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// A seed that ends has the content for as long as it writes its journal: who is to write the content waits for it. A
/// download that has it will not be done so soon. So often it is tried again, a second later each time.
const BUSY_TRIES: u32 = 3;

/// How the beginning ended.
pub(super) enum Started {
    /// Ready to swarm.
    Ready {
        /// What is there.
        found: Found,
        /// What the user said meanwhile.
        wishes: Wishes,
    },
    /// The user changed their mind.
    Stopped(Leaving),
    /// The files cannot be read, in words.
    Failed(String),
}

/// What is there of the content.
pub(super) struct Found {
    /// Pieces that are verified.
    pub(super) have: Bitfield,
    /// Blocks of others.
    pub(super) partial: Vec<PartialPiece>,
}

/// How far a beginning is.
#[derive(Debug)]
enum Step {
    /// Pieces known or hashed, and of these, good.
    Checking(u32, u32),
    /// The disk cannot take what is missing.
    Waiting(StorageFault),
}

/// The torrent's files below its folder, which is made if missing. An existing one need not be writable: what
/// is complete can be seeded from anywhere. It may wait for a disk.
pub(super) fn open(
    context: &Context,
    dir: &Path,
    info: Info,
    selected: Vec<bool>,
) -> Result<DiskContent, StorageError> {
    let files = open_folder(context, dir)?;
    Ok(Arc::new(Store::new(Content::new(info, selected, files))))
}

fn open_folder(context: &Context, dir: &Path) -> Result<RealFs, StorageError> {
    if dir.is_dir() { RealFs::open(dir, &context.handles) } else { RealFs::create(dir, &context.handles) }
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
    if plan.existing == Existing::Assumed {
        return Started::Ready { found: Found { have: Bitfield::full(total), partial: Vec::new() }, wishes };
    }
    let (sender, mut steps) = watch::channel(Step::Checking(0, 0));
    let checking = find(context, plan, content, sender);
    tokio::pin!(checking);
    let mut is_waiting = false;
    loop {
        tokio::select! {
            found = &mut checking => return match found {
                Ok(found) => {
                    if is_waiting {
                        report.event(Event::Storage(None));
                    }
                    report.event(Event::Checked { good: found.have.count(), total });
                    Started::Ready { found, wishes }
                }
                Err(error) => Started::Failed(error),
            },
            () = later(&mut steps) => match &*steps.borrow_and_update() {
                Step::Checking(checked, good) => {
                    report.stage(Stage::Checking { checked: *checked, good: *good });
                }
                Step::Waiting(fault) => {
                    is_waiting = true;
                    report.event(Event::Storage(Some(fault.clone())));
                    report.stage(Stage::Waiting(fault.clone()));
                }
            },
            leaving = wishes.until_told(control) => return Started::Stopped(leaving),
        }
    }
}

/// Waits for progress, and not less than a moment: hashing tells of each piece, people need not see each.
async fn later(steps: &mut watch::Receiver<Step>) {
    tokio::time::sleep(PROGRESS_INTERVAL).await;
    if steps.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What is there, in a folder that can take what is not.
async fn find(
    context: &Arc<Context>,
    plan: &Plan,
    content: &DiskContent,
    steps: watch::Sender<Step>,
) -> Result<Found, String> {
    let verdict = match (begin(context, plan, content, &steps).await?, plan.existing) {
        (_, Existing::Hashed(began_at)) => resume::hashed(content.content(), began_at),
        (verdict, Existing::Unknown | Existing::Assumed) => verdict,
    };
    let have = hash(context, content, verdict, &steps).await?;
    if !content.content().wanted().has_more_than(&have) {
        return Ok(Found { have, partial: Vec::new() });
    }
    require_writable(context, plan.dir.clone()).await?;
    let have = prepare(context, plan, content, &have, &steps).await?;
    let known = have.clone();
    let partial =
        context.disk.slow(content, move |store| store.partial_pieces(&known)).await.ok_or(STOPPED)?;
    Ok(Found { have, partial })
}

/// What the journal knows of the files as they are.
async fn begin(
    context: &Arc<Context>,
    plan: &Plan,
    content: &DiskContent,
    steps: &watch::Sender<Step>,
) -> Result<Verdict, String> {
    let mut patience = Patience::new(content, steps);
    let nothing = Bitfield::new(content.info().geometry.piece_count());
    loop {
        let (journals, dir) = (context.journals.clone(), plan.dir.clone());
        let begun = context.disk.slow(content, move |store| {
            let journal = journals.map(|journals| open_journal(journals, store.info(), &dir));
            store.begin(journal.transpose()?)
        });
        match begun.await.ok_or(STOPPED)? {
            Ok(verdict) => return Ok(verdict),
            Err(error) => patience.wait(&error, &nothing).await?,
        }
    }
}

/// The journal of this torrent in this folder.
fn open_journal(journals: Arc<RealFs>, info: &Info, dir: &Path) -> Result<Journal<RealFs>, StorageError> {
    let owner =
        Owner { infohash: info.infohash, geometry: info.geometry, file_count: info.files.len() as u32 };
    Journal::open(journals, vec![journal_name(info.infohash, dir)], owner)
}

/// One file a torrent and folder, whatever way leads to the folder.
fn journal_name(infohash: InfoHash, dir: &Path) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let place = InfoHash::of(dir.as_os_str().as_bytes()).to_string();
    format!("{infohash}-{}.journal", &place[..16])
}

/// The pieces that are there; hashing stops when this is dropped.
async fn hash(
    context: &Context,
    content: &DiskContent,
    verdict: Verdict,
    steps: &watch::Sender<Step>,
) -> Result<Bitfield, String> {
    let Verdict { vouched: mut have, doubtful: pieces, in_parts: _ } = verdict;
    if pieces.count() == 0 {
        return Ok(have);
    }
    let known = content.info().geometry.piece_count() - pieces.count();
    let vouched = have.count();
    let mut patience = Patience::new(content, steps);
    loop {
        let (pieces, steps) = (pieces.clone(), steps.clone());
        let progress = Box::new(move |checked, good| {
            steps.send_replace(Step::Checking(known + checked, vouched + good));
            !steps.is_closed()
        });
        match context.disk.run(content, Job::Check { pieces, progress }).await {
            Some(Done::Check(Ok(found))) => {
                have.set_all(&found);
                return Ok(have);
            }
            // Nothing is known of the content by that.
            Some(Done::Check(Err(error))) if error.is_out_of_descriptors() => {
                patience.wait(&error, &have).await?;
            }
            Some(Done::Check(Err(error))) => return Err(error.to_string()),
            Some(Done::Store(..) | Done::Spill(..) | Done::Read { .. }) | None => {
                return Err(STOPPED.to_owned());
            }
        }
    }
}

/// Something is missing, so the folder has to be writable: known now rather than with the first piece.
async fn require_writable(context: &Arc<Context>, dir: PathBuf) -> Result<(), String> {
    let context = context.clone();
    match task::blocking(move || RealFs::create(&dir, &context.handles)).await {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err(STOPPED.to_owned()),
    }
}

/// Makes ready for writing, however long the disk needs to have room for that; the pieces that are there.
async fn prepare(
    context: &Context,
    plan: &Plan,
    content: &DiskContent,
    known: &Bitfield,
    steps: &watch::Sender<Step>,
) -> Result<Bitfield, String> {
    let mut patience = Patience::new(content, steps);
    loop {
        let (have, preallocate) = (known.clone(), plan.preallocate);
        let prepared = context.disk.slow(content, move |store| {
            if preallocate {
                store.preallocate()?;
            }
            store.prepare(&have)
        });
        match prepared.await.ok_or(STOPPED)? {
            Ok(have) => return Ok(have),
            Err(error) => patience.wait(&error, known).await?,
        }
    }
}

/// Waits for what may pass.
struct Patience<'a> {
    content: &'a DiskContent,
    steps: &'a watch::Sender<Step>,
    busy_count: u32,
}

impl<'a> Patience<'a> {
    fn new(content: &'a DiskContent, steps: &'a watch::Sender<Step>) -> Self {
        Self { content, steps, busy_count: 0 }
    }

    /// Until it may be tried again, with `known` pieces there; in words what will not pass.
    async fn wait(&mut self, error: &StorageError, known: &Bitfield) -> Result<(), String> {
        if error.may_pass() {
            let fault = fault_of(error, self.content, known);
            self.steps.send_if_modified(|step| {
                let is_news = !matches!(step, Step::Waiting(last) if last.is_like(&fault));
                *step = Step::Waiting(fault);
                is_news
            });
        } else if error.source.kind() == io::ErrorKind::ResourceBusy && self.busy_count < BUSY_TRIES {
            self.busy_count += 1;
        } else {
            return Err(error.to_string());
        }
        tokio::time::sleep(STORAGE_RETRY).await;
        Ok(())
    }
}

/// The engine ends.
const STOPPED: &str = "stopped";
