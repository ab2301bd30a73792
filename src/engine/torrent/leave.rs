//! How a torrent ends: `stopped` to its trackers, written pieces made durable, all within a grace.

use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::{Ended, Inputs, Leaving, TorrentTask};
use crate::engine::context::Input;
use crate::engine::handle::{Event, Stage};
use crate::engine::task;
use crate::proto::torrent::event::Command;

/// Time for good-byes that nobody waits for.
const GRACE: Duration = Duration::from_secs(5);
/// Time for peers to take what is on its way to them, and to hang up.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

impl TorrentTask {
    /// Closes everything, says good-bye, and reports the end. Who asked for it meanwhile is told with it.
    pub(super) async fn leave(mut self, leaving: Leaving, inputs: Inputs) {
        let Inputs { mut control, mut inbox, lease: _ } = inputs;
        let (grace, stage, reply) = match leaving {
            Leaving::Told(grace, reply) => (grace, Stage::Stopped, reply),
            Leaving::GoalReached => (GRACE, Stage::Stopped, None),
            Leaving::Failed(error) => (GRACE, Stage::Failed(error), None),
        };
        let now = self.context.clock.now();
        self.report.hurry();
        self.publish(now);
        let connections = self.connections.finish();
        self.tasks.spawn("last words", async move {
            // Those who do not hang up in time are hung up on.
            let _ = timeout(LAST_WORDS_TIMEOUT, connections).await;
            Ended::HungUp
        });
        // A paused machine takes its connections for closed and dials nobody.
        self.machine.handle_command(now, Command::Pause);
        self.drain(now);
        let progress = self.progress(now);
        self.trackers.announcer(progress).handle_stopped(now);
        if timeout(grace, self.say_goodbye(&mut inbox)).await.is_err() {
            tracing::warn!(infohash = %self.content.info().infohash, "left without every good-bye");
        }
        self.report.hurry();
        self.publish(self.context.clock.now());
        self.report.stage(stage);
        self.report.event(Event::Stopped);
        control.close();
        while let Ok(told) = control.try_recv() {
            drop(told);
        }
        drop(reply);
    }

    /// Until the peers have what was on its way, every `stopped` is answered or given up and what was written
    /// is durable.
    async fn say_goodbye(&mut self, inbox: &mut mpsc::Receiver<Input>) {
        let (mut is_synced, mut is_hung_up) = (false, false);
        let mut is_syncing = false;
        loop {
            self.drain(self.context.clock.now());
            if !is_syncing && !self.pieces.is_storing() {
                is_syncing = true;
                self.sync();
            }
            if is_synced && is_hung_up && self.trackers.is_done() {
                return;
            }
            let deadline = self.trackers.poll_timeout();
            let timer = self.context.clock.timer(deadline.unwrap_or_default());
            tokio::select! {
                ended = self.tasks.next() => {
                    is_synced |= matches!(ended, Ended::Synced);
                    is_hung_up |= matches!(ended, Ended::HungUp);
                    self.handle_last(ended);
                }
                // What peers still say does not matter; that it is taken lets them end.
                Some(_) = inbox.recv() => {}
                () = tokio::time::sleep_until(timer), if deadline.is_some() => {
                    let now = self.context.clock.now();
                    let progress = self.progress(now);
                    self.trackers.announcer(progress).handle_timeout(now);
                }
            }
        }
    }

    fn sync(&mut self) {
        let content = self.content.clone();
        self.tasks.spawn("sync", async move {
            if let Some(Err(error)) = task::blocking(move || content.sync()).await {
                tracing::warn!(%error, "not everything is durable");
            }
            Ended::Synced
        });
    }

    /// What ends now counts only for what is durable and for the trackers.
    fn handle_last(&mut self, ended: Ended) {
        match ended {
            Ended::Dialled(..) | Ended::Synced | Ended::HungUp | Ended::Finished(_) => {}
            ended @ (Ended::Stored(..) | Ended::Announced(_)) => self.handle_ended(ended),
        }
    }
}
