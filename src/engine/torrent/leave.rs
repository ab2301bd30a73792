//! How a torrent ends: `stopped` to its trackers, written pieces made durable, all within a grace.

use tokio::sync::mpsc;
use tokio::time::{Duration, timeout};

use super::{Ended, Leaving, TorrentTask};
use crate::engine::context::Control;
use crate::engine::handle::{Event, Stage};
use crate::engine::task;
use crate::proto::torrent::event::Command;

/// Time for good-byes that nobody waits for.
const GRACE: Duration = Duration::from_secs(5);

impl TorrentTask {
    /// Closes everything, says good-bye, and reports the end. Who asked for it meanwhile is told with it.
    pub(super) async fn leave(mut self, leaving: Leaving, mut control: mpsc::Receiver<Control>) {
        let (grace, stage, reply) = match leaving {
            Leaving::Told(grace, reply) => (grace, Stage::Stopped, reply),
            Leaving::GoalReached => (GRACE, Stage::Stopped, None),
            Leaving::Failed(error) => (GRACE, Stage::Failed(error), None),
        };
        let now = self.context.clock.now();
        // A paused machine closes its connections and dials nobody.
        self.machine.handle_command(now, Command::Pause);
        self.drain(now);
        self.connections.close_all();
        let progress = self.progress(now);
        self.trackers.announcer(progress).handle_stopped(now);
        if timeout(grace, self.say_goodbye()).await.is_err() {
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

    /// Until every `stopped` is answered or given up and what was written is durable.
    async fn say_goodbye(&mut self) {
        let mut is_synced = false;
        let mut is_syncing = false;
        loop {
            self.drain(self.context.clock.now());
            if !is_syncing && !self.pieces.is_storing() {
                is_syncing = true;
                self.sync();
            }
            if is_synced && self.trackers.is_done() {
                return;
            }
            let deadline = self.trackers.poll_timeout();
            let timer = self.context.clock.timer(deadline.unwrap_or_default());
            tokio::select! {
                ended = self.tasks.next() => {
                    is_synced |= matches!(ended, Ended::Synced);
                    self.handle_last(ended);
                }
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
            Ended::Dialled(..) | Ended::Synced | Ended::Finished(_) => {}
            ended @ (Ended::Stored(..) | Ended::Announced(_)) => self.handle_ended(ended),
        }
    }
}
