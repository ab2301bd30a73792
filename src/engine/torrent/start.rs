//! How a torrent starts: runs the jobs of its [`Lifecycle`] until the content is ready, and shows
//! its progress.
//!
//! While pieces are hashed the torrent has no machine for them yet: peers are turned away, those
//! that gave the metadata wait unread, the user's wishes are kept for later.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::jobs::{DISK_GONE, Ended, Jobs};
use super::report::Report;
use super::{Leaving, Plan, Wishes};
use crate::engine::api::event::{Event, Refusal, Stage};
use crate::engine::context::Context;
use crate::engine::mailbox::Mailbox;
use crate::engine::network::pool::BlockBuf;
use crate::storage::disk::{Done, Job, SharedStore};
use crate::storage::journal::Trouble;
use crate::storage::lifecycle::{self, Existing, Lifecycle, Output};

/// Least time between two reports of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How a start ended.
pub(super) enum Started {
    /// Ready to swarm, and what the user said meanwhile.
    Ready(Box<Ready>, Wishes),
    /// The user changed their mind.
    Stopped(Leaving),
    /// What is on the disk is in the way, or is not enough.
    Refused(Refusal),
    /// The files cannot be used, in words.
    Failed(String),
}

/// Content that is ready to swarm.
pub(super) struct Ready {
    pub(super) content: SharedStore,
    pub(super) storage: Lifecycle<BlockBuf>,
    pub(super) jobs: Jobs,
    /// What is present.
    pub(super) found: lifecycle::Started,
}

/// Pieces hashed by a check, and of these the good ones.
type Checked = (u32, u32);

/// Finds out which pieces are present, with progress in `report`; what the user wants meanwhile is
/// added to `wishes`.
pub(super) async fn start(
    context: &Arc<Context>,
    plan: &Plan,
    content: &SharedStore,
    control: &mut Mailbox,
    report: &mut Report,
    mut wishes: Wishes,
) -> Started {
    let mut jobs = Jobs::new(context.clone(), content.clone(), plan.dir.clone());
    let mut storage = Lifecycle::new(content, plan.storage, context.clock.now());
    let (sender, mut checked) = watch::channel((0, 0));
    loop {
        while let Some(output) = storage.poll_output() {
            match output {
                Output::Job(lifecycle::Job::Run(step)) => jobs.run(step),
                Output::Job(lifecycle::Job::Check(pieces)) => {
                    jobs.submit(Job::Check { pieces, progress: progress(sender.clone()) });
                }
                Output::Event(lifecycle::Event::Storage(fault)) => {
                    report.event(Event::Storage(fault.clone()));
                    if let Some(fault) = fault {
                        report.waiting(fault, storage.wanted_lens());
                    }
                }
                Output::Event(lifecycle::Event::Started(found)) => {
                    tell_found(plan, content, &found, report);
                    let content = content.clone();
                    return Started::Ready(Box::new(Ready { content, storage, jobs, found }), wishes);
                }
                Output::Event(lifecycle::Event::Refused(refusal)) => {
                    tell_journal(content, report);
                    return Started::Refused(refusal);
                }
                Output::Event(lifecycle::Event::Failed(error)) => {
                    tell_journal(content, report);
                    return Started::Failed(error);
                }
                // Of content that is ready.
                Output::Job(lifecycle::Job::Store(_) | lifecycle::Job::Spill(_))
                | Output::Event(
                    lifecycle::Event::Piece(..)
                    | lifecycle::Event::Lost { .. }
                    | lifecycle::Event::LossNoted(_)
                    | lifecycle::Event::Completed
                    | lifecycle::Event::Ignored(_)
                    | lifecycle::Event::Closed(_),
                ) => {}
            }
        }
        let deadline = storage.poll_timeout();
        let timer = context.clock.timer(deadline.unwrap_or_default());
        tokio::select! {
            ended = jobs.next() => match ended {
                Ended::Ran(Some(done)) => storage.handle_step(context.clock.now(), done),
                Ended::Done(Some(Done::Check(found))) => storage.handle_checked(context.clock.now(), found),
                Ended::Done(Some(Done::Store(..) | Done::Spill(..) | Done::Read { .. }) | None)
                | Ended::Ran(None) => return Started::Failed(DISK_GONE.to_owned()),
                // Of a fetch of metadata, which is over.
                Ended::Reserved(_) => {}
            },
            () = later(&mut checked) => {
                let (checked_count, good_count) = *checked.borrow_and_update();
                // What a check told last may come when it has ended.
                if let Some((checked, good)) = storage.progress(checked_count, good_count) {
                    report.stage(Stage::Checking { checked, good });
                }
            }
            () = sleep_until(timer), if deadline.is_some() => storage.handle_timeout(context.clock.now()),
            leaving = wishes.until_told(control) => return Started::Stopped(leaving),
        }
    }
}

/// Tells the progress of a check, which stops when no torrent waits for it.
fn progress(sender: watch::Sender<Checked>) -> Box<dyn FnMut(u32, u32) -> bool + Send> {
    Box::new(move |checked, good| {
        sender.send_replace((checked, good));
        !sender.is_closed()
    })
}

/// Waits for progress, and at least a moment: hashing tells of each piece, people need not see
/// each.
async fn later(checked: &mut watch::Receiver<Checked>) {
    tokio::time::sleep(PROGRESS_INTERVAL).await;
    if checked.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn tell_found(plan: &Plan, content: &SharedStore, found: &lifecycle::Started, report: &Report) {
    // Files that lie under other names than in the torrent.
    let own = |number: usize| content.info().files[number].path.join("/");
    let names: Vec<_> =
        content.content().other_names().map(|(number, used)| (own(number), used.join("/"))).collect();
    if !names.is_empty() {
        report.event(Event::OtherNames(names));
    }
    if plan.storage.existing == Existing::Assumed {
        return;
    }
    if !found.longer.is_empty() {
        report.event(Event::Longer(found.longer.clone()));
    }
    let total = content.info().geometry.piece_count();
    report.event(Event::Checked { good: found.have.count(), total });
}

/// Tells what is wrong with the journal of a torrent that does not start: the files that the
/// journal would name count as the user's.
fn tell_journal(content: &SharedStore, report: &Report) {
    match content.take_journal_trouble() {
        Some(Trouble::Unusable(error, _)) => report.event(Event::JournalUnusable(error.to_string())),
        Some(trouble @ (Trouble::SetAside(..) | Trouble::Lapsed(_))) => report.journal(trouble),
        None => {}
    }
}
