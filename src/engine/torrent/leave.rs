//! How a torrent ends: `stopped` to its trackers, written pieces made durable, all within a grace.

use tokio::sync::oneshot;
use tokio::time::{Duration, sleep_until, timeout};

use super::connections::Inbox;
use super::report::Report;
use super::transfer::TorrentTask;
use super::{Inputs, Leaving};
use crate::engine::api::event::Stage;
use crate::engine::mailbox::Mailbox;

/// Time for good-byes that nobody waits for.
pub(super) const GRACE: Duration = Duration::from_secs(5);

impl Leaving {
    /// How long it may take, what is shown at the end, and who is told by dropping it.
    fn terms(self) -> (Duration, Stage, Option<oneshot::Sender<()>>) {
        match self {
            Self::Told(grace, reply) => (grace, Stage::Stopped, reply),
            Self::GoalReached => (GRACE, Stage::Stopped, None),
            Self::Refused(refusal) => (GRACE, Stage::Refused(refusal), None),
            Self::Failed(error) => (GRACE, Stage::Failed(error), None),
        }
    }

    /// The end of a torrent that has joined no swarm.
    pub(super) fn conclude(self, inputs: Inputs, report: Report) {
        let (_, stage, reply) = self.terms();
        report.end(stage);
        close(inputs.control, reply);
    }
}

/// Who asked for the end meanwhile is told with it.
fn close(mut control: Mailbox, reply: Option<oneshot::Sender<()>>) {
    control.close();
    while let Some(told) = control.try_recv() {
        drop(told);
    }
    drop(reply);
}

impl TorrentTask {
    /// Closes everything, says good-bye, and reports the end.
    pub(super) async fn leave(mut self: Box<Self>, leaving: Leaving, inputs: Inputs) {
        let Inputs { control, mut inbox, lease: _ } = inputs;
        let (grace, stage, reply) = leaving.terms();
        let now = self.membership.now();
        self.membership.report.hurry();
        self.publish(now);
        // What is queued for the connections is still sent: the machine does not reach them any
        // more.
        self.membership.part();
        self.machine.handle_leave(now);
        self.drain(now);
        if timeout(grace, self.say_goodbye(&mut inbox)).await.is_err() {
            tracing::warn!(infohash = %self.membership.infohash, "left without every good-bye");
        }
        self.membership.report.hurry();
        self.publish(self.membership.now());
        self.membership.report.end(stage);
        close(control, reply);
    }

    /// Until the peers have what was on its way, every `stopped` is answered or given up and what
    /// was written is durable.
    async fn say_goodbye(&mut self, inbox: &mut Inbox) {
        loop {
            self.drain(self.membership.now());
            if self.machine.has_left() && self.membership.has_parted() {
                return;
            }
            let deadline = self.machine.poll_timeout();
            let timer = self.membership.context.clock.timer(deadline.unwrap_or_default());
            tokio::select! {
                ended = self.part.next() => self.handle_ended(ended),
                answered = self.membership.parting(inbox) => {
                    answered.into_iter().for_each(|answered| self.handle_answered(answered));
                }
                () = sleep_until(timer), if deadline.is_some() => self.handle_timeout(),
            }
        }
    }
}
