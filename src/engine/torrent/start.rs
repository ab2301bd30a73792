//! How a torrent begins: its files are opened and held against its journal, what nobody vouches for is hashed,
//! and if something is missing all is made ready for writing.
//!
//! While pieces are hashed the torrent has no machine for them yet: peers are turned away, those that gave the
//! description wait unread, the user's wishes are kept for later.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::fault::{fault_of, missing};
use super::report::Report;
use super::{Leaving, Plan, Wishes};
use crate::engine::add::{Existing, Purpose};
use crate::engine::context::Context;
use crate::engine::handle::{Event, Refusal, Stage};
use crate::engine::mailbox::Mailbox;
use crate::engine::task;
use crate::proto::bitfield::Bitfield;
use crate::proto::metainfo::Info;
use crate::proto::torrent::event::StorageFault;
use crate::storage::content::{Content, StorageError};
use crate::storage::disk::{DiskContent, Done, Job};
use crate::storage::foreign::Misfit;
use crate::storage::fs::RealFs;
use crate::storage::journal::Trouble;
use crate::storage::journals;
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
    /// What is on the disk is in the way, or is not enough.
    Refused(Refusal),
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

/// Why a torrent does not begin.
enum Obstacle {
    /// What is on the disk.
    Refused(Refusal),
    /// An error, in words.
    Failed(String),
}

impl From<String> for Obstacle {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

impl From<Obstacle> for Started {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::Refused(refusal) => Self::Refused(refusal),
            Obstacle::Failed(error) => Self::Failed(error),
        }
    }
}

/// How far a beginning is.
#[derive(Debug)]
enum Step {
    /// Pieces known or hashed, and of these, good.
    Checking(u32, u32),
    /// The disk cannot take what is missing.
    Waiting(StorageFault),
}

/// The torrent's files below its folder, which is made if it is missing and shall be downloaded to. An existing one
/// need not be writable: what is complete can be seeded from anywhere. It may wait for a disk.
///
/// # Errors
/// The folder cannot be used, or it is gone with what the journal says was in it.
pub(super) fn open(
    context: &Context,
    dir: &Path,
    purpose: Purpose,
    follow_links: bool,
    info: Info,
    selected: Vec<bool>,
) -> Result<DiskContent, StorageError> {
    let files = match purpose {
        _ if dir.is_dir() => RealFs::open(dir, &context.handles)?,
        Purpose::Seed => RealFs::open(dir, &context.handles)?,
        Purpose::Download => {
            require_unwritten(context, dir, &info)?;
            RealFs::create(dir, &context.handles)?
        }
        Purpose::Overwrite => RealFs::create(dir, &context.handles)?,
    };
    let files = files.following_links(follow_links);
    Ok(Arc::new(Store::new(Content::new(info, selected, files))))
}

/// A folder that is not there may be made if nothing was downloaded to it, by the journal.
///
/// # Errors
/// Something was, or the journal cannot be used, so that nothing is known.
fn require_unwritten(context: &Context, dir: &Path, info: &Info) -> Result<(), StorageError> {
    let Some(journals) = context.journals.clone() else { return Ok(()) };
    let unknown = |error: &StorageError| {
        let why = format!(
            "this folder is gone, and whether it was downloaded to is unknown (journal {error}); mount its disk, \
             or give --overwrite to download to a new folder"
        );
        StorageError::new(dir, io::Error::new(io::ErrorKind::NotFound, why))
    };
    let mut journal = journals::open_journal(journals, info, dir).map_err(|error| unknown(&error))?;
    if let Some(Trouble::Unusable(error, _)) = journal.take_trouble() {
        return Err(unknown(&error));
    }
    let record = journal.record();
    if record.owned.is_some() && record.kept.count() > 0 { Err(folder_gone(dir)) } else { Ok(()) }
}

/// Content was downloaded to a folder that is not there: its disk may not be mounted, and must not be replaced by a
/// folder on another.
fn folder_gone(dir: &Path) -> StorageError {
    let why = "what was downloaded to this folder is gone with it; mount its disk, or give --overwrite to download it again";
    StorageError::new(dir, io::Error::new(io::ErrorKind::NotFound, why))
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
        // A single file with a plain name needs no lookup; several files are checked on a disk thread.
        if content.info().files.len() > 1 || content.content().has_delicate_names() {
            context.disk.slow(content, |store| store.content().find_names()).await;
            tell_names(content, report);
        }
        return Started::Ready { found: Found::only(Bitfield::full(total)), wishes };
    }
    let (sender, mut steps) = watch::channel(Step::Checking(0, 0));
    let checking = find(context, plan, content, sender);
    tokio::pin!(checking);
    let mut is_waiting = false;
    loop {
        tokio::select! {
            found = &mut checking => return match found {
                Ok((found, longer)) => {
                    if is_waiting {
                        report.event(Event::Storage(None));
                    }
                    tell_names(content, report);
                    if !longer.is_empty() {
                        report.event(Event::Longer(longer));
                    }
                    report.event(Event::Checked { good: found.have.count(), total });
                    Started::Ready { found, wishes }
                }
                Err(obstacle) => {
                    tell_journal(content, report);
                    obstacle.into()
                }
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

/// Tells what is wrong with the journal of a torrent that does not begin: the files that the journal would
/// name count as the user's.
fn tell_journal(content: &DiskContent, report: &Report) {
    match content.take_journal_trouble() {
        Some(Trouble::Unusable(error, _)) => report.event(Event::JournalUnusable(error.to_string())),
        Some(trouble @ (Trouble::SetAside(..) | Trouble::Lapsed(_))) => report.journal(trouble),
        None => {}
    }
}

/// Tells which files lie under other names than in the torrent.
fn tell_names(content: &DiskContent, report: &Report) {
    let own = |number: usize| content.info().files[number].path.join("/");
    let names: Vec<_> =
        content.content().other_names().map(|(number, used)| (own(number), used.join("/"))).collect();
    if !names.is_empty() {
        report.event(Event::OtherNames(names));
    }
}

/// Waits for progress, and not less than a moment: hashing tells of each piece, people need not see each.
async fn later(steps: &mut watch::Receiver<Step>) {
    tokio::time::sleep(PROGRESS_INTERVAL).await;
    if steps.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What is there, in a folder that can take what is not; and files to seed that are longer than they should be.
async fn find(
    context: &Arc<Context>,
    plan: &Plan,
    content: &DiskContent,
    steps: watch::Sender<Step>,
) -> Result<(Found, Vec<Misfit>), Obstacle> {
    let begun = begin(context, plan, content, &steps).await?;
    if begun.is_folder_gone && plan.purpose == Purpose::Download {
        return Err(Obstacle::Failed(folder_gone(&plan.dir).to_string()));
    }
    let verdict = match plan.existing {
        Existing::Hashed(began_at) => resume::hashed(content.content(), began_at),
        Existing::Unknown | Existing::Assumed => begun.clone(),
    };
    let have = hash(context, content, &verdict, &steps).await?;
    let misfits = misfits(context, content, begun, &have, &steps).await?;
    let mixed = content.content().mixed_pieces();
    let is_missing = content.content().wanted().has_more_than(&have);
    match plan.purpose {
        Purpose::Seed if is_missing || !mixed.is_empty() => {
            let mut have = have;
            mixed.into_iter().for_each(|piece| {
                have.clear(piece);
            });
            let missing_len = missing(content, &have);
            return Err(Obstacle::Refused(Refusal::Incomplete { missing_len, misfits }));
        }
        Purpose::Seed => return Ok((Found::only(have), misfits)),
        Purpose::Download if misfits.iter().any(|misfit| !misfit.is_ours) => {
            let foreign = misfits.into_iter().filter(|misfit| !misfit.is_ours).collect();
            return Err(Obstacle::Refused(Refusal::Foreign(foreign)));
        }
        Purpose::Download | Purpose::Overwrite => {}
    }
    if !is_missing && misfits.is_empty() && mixed.is_empty() {
        return Ok((Found::only(have), Vec::new()));
    }
    require_writable(context, plan.dir.clone()).await?;
    let have = prepare(context, plan, content, &have, misfits, &steps).await?;
    let known = have.clone();
    let partial = context.disk.slow(content, move |store| store.partial_pieces(&known)).await;
    let partial = partial.ok_or(STOPPED.to_owned())?;
    Ok((Found { have, partial }, Vec::new()))
}

impl Found {
    /// These pieces, and nothing of others.
    fn only(have: Bitfield) -> Self {
        Self { have, partial: Vec::new() }
    }
}

/// What the journal knows of the files as they are.
async fn begin(
    context: &Arc<Context>,
    plan: &Plan,
    content: &DiskContent,
    steps: &watch::Sender<Step>,
) -> Result<Verdict, String> {
    let (journals, dir) = (context.journals.clone(), plan.dir.clone());
    let nothing = Bitfield::new(content.info().geometry.piece_count());
    insist(context, content, &nothing, steps, move |store| {
        let journal = journals.clone().map(|journals| journals::open_journal(journals, store.info(), &dir));
        store.begin(journal.transpose()?)
    })
    .await
}

/// Files that do not fit the torrent when these pieces are good.
async fn misfits(
    context: &Context,
    content: &DiskContent,
    verdict: Verdict,
    have: &Bitfield,
    steps: &watch::Sender<Step>,
) -> Result<Vec<Misfit>, String> {
    let known = have.clone();
    insist(context, content, have, steps, move |store| store.content().misfits(&verdict, &known)).await
}

/// Runs a slow call, again while the disk fails in a way that may pass; `known` are the pieces that are there.
async fn insist<T: Send + 'static>(
    context: &Context,
    content: &DiskContent,
    known: &Bitfield,
    steps: &watch::Sender<Step>,
    call: impl Fn(&Store<RealFs>) -> Result<T, StorageError> + Clone + Send + 'static,
) -> Result<T, String> {
    let mut patience = Patience::new(content, steps);
    loop {
        match context.disk.slow(content, call.clone()).await.ok_or(STOPPED)? {
            Ok(value) => return Ok(value),
            Err(error) => patience.wait(&error, known).await?,
        }
    }
}

/// The pieces that are there; hashing stops when this is dropped.
async fn hash(
    context: &Context,
    content: &DiskContent,
    verdict: &Verdict,
    steps: &watch::Sender<Step>,
) -> Result<Bitfield, String> {
    let (mut have, pieces) = (verdict.vouched.clone(), verdict.doubtful.clone());
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
    misfits: Vec<Misfit>,
    steps: &watch::Sender<Step>,
) -> Result<Bitfield, String> {
    let (have, preallocate) = (known.clone(), plan.preallocate);
    insist(context, content, known, steps, move |store| {
        store.cut(&misfits)?;
        if preallocate {
            store.preallocate()?;
        }
        store.prepare(&have)
    })
    .await
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
