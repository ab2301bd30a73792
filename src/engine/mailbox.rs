//! The control channel of a torrent: what users, the listener and the supervisor send it.
//!
//! Bounded, and takes memory only for what is in it: a channel of tokio allocates 1.5 KiB at once,
//! and most torrents of a hundred thousand never receive anything. Hardly a message a second comes
//! here, so a lock for each is nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::engine::channels::CONTROL;
use crate::engine::inputs::Control;
use crate::engine::watched::Watched;

/// Returns both ends.
pub(crate) fn mailbox() -> (Mail, Mailbox) {
    let queue = Queue { messages: VecDeque::new(), sender_count: 1 };
    let shared = Arc::new(Shared { queue: Watched::new(queue), room: Semaphore::new(CONTROL) });
    (Mail(Arc::clone(&shared)), Mailbox(shared))
}

/// The sender.
#[derive(Debug)]
pub(crate) struct Mail(Arc<Shared>);

/// The torrent's end; dropping it closes the channel.
#[derive(Debug)]
pub(crate) struct Mailbox(Arc<Shared>);

/// The torrent has ended, or, of [`Mail::try_send`], the channel is full.
#[derive(Debug)]
pub(crate) struct Undelivered;

#[derive(Debug)]
struct Shared {
    queue: Watched<Queue>,
    /// Closed, with the queue locked, when the torrent does not receive any more: a message pushed
    /// later would stay there for ever.
    room: Semaphore,
}

#[derive(Debug)]
struct Queue {
    messages: VecDeque<Control>,
    sender_count: usize,
}

impl Shared {
    fn push(&self, control: Control) -> Result<(), Undelivered> {
        self.queue.change(|queue| {
            let is_open = !self.room.is_closed();
            is_open.then(|| queue.messages.push_back(control)).ok_or(Undelivered)
        })
    }

    fn pop(&self, queue: &mut Queue) -> Option<Control> {
        let control = queue.messages.pop_front()?;
        if queue.messages.is_empty() {
            queue.messages = VecDeque::new();
        }
        self.room.add_permits(1);
        Some(control)
    }
}

impl Mail {
    /// Sends a message as soon as there is room.
    ///
    /// # Errors
    /// The torrent has ended.
    pub(crate) async fn send(&self, control: Control) -> Result<(), Undelivered> {
        self.0.room.acquire().await.map_err(|_| Undelivered)?.forget();
        self.0.push(control)
    }

    /// Sends a message now or not at all.
    ///
    /// # Errors
    /// There is no room, or the torrent has ended.
    pub(crate) fn try_send(&self, control: Control) -> Result<(), Undelivered> {
        self.0.room.try_acquire().map_err(|_| Undelivered)?.forget();
        self.0.push(control)
    }
}

impl Clone for Mail {
    fn clone(&self) -> Self {
        self.0.queue.lock().sender_count += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        self.0.queue.change(|queue| queue.sender_count -= 1);
    }
}

impl Mailbox {
    /// Waits for the next message; None: no sender is left. May be dropped and called again.
    pub(crate) fn recv(&mut self) -> impl Future<Output = Option<Control>> {
        let shared = &self.0;
        shared.queue.until(|queue| match shared.pop(queue) {
            None if queue.sender_count > 0 => None,
            message => Some(message),
        })
    }

    /// Returns the next message that is there already.
    pub(crate) fn try_recv(&mut self) -> Option<Control> {
        self.0.pop(&mut self.0.queue.lock())
    }

    /// Refuses further messages.
    pub(crate) fn close(&mut self) {
        let _locked = self.0.queue.lock();
        self.0.room.close();
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.close();
        while let Some(control) = self.try_recv() {
            drop(control);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use tokio::sync::oneshot;

    fn stop() -> (Control, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Control::Stop(Duration::ZERO, sender), receiver)
    }

    fn is_ready<T>(future: impl Future<Output = T>) -> bool {
        matches!(pin!(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
    }

    #[tokio::test]
    async fn a_sender_that_finds_it_full_waits() {
        let (mail, mut mailbox) = mailbox();
        (0..CONTROL).for_each(|_| mail.try_send(stop().0).unwrap());
        assert!(mail.try_send(stop().0).is_err() && !is_ready(mail.send(stop().0)));
        let (sent, received) = tokio::join!(mail.send(stop().0), mailbox.recv());
        assert!(sent.is_ok() && received.is_some());
        drop(mail);
        for _ in 0..CONTROL {
            assert!(mailbox.recv().await.is_some());
        }
        assert!(mailbox.recv().await.is_none(), "no sender is left");
    }

    #[tokio::test]
    async fn either_side_learns_that_the_other_has_ended() {
        let (mail, mut box_of_one) = mailbox();
        let other = mail.clone();
        drop(mail);
        assert!(!is_ready(box_of_one.recv()));
        let ((), ended) = tokio::join!(async { drop(other) }, box_of_one.recv());
        assert!(ended.is_none());
        let (mail, box_of_one) = mailbox();
        let (control, told) = stop();
        mail.try_send(control).unwrap();
        // A sender that has a permit and did not push yet.
        mail.0.room.try_acquire().unwrap().forget();
        drop(box_of_one);
        assert!(told.await.is_err(), "what was not received is dropped");
        assert!(mail.0.push(stop().0).is_err(), "a late push is refused");
        assert!(mail.send(stop().0).await.is_err() && mail.try_send(stop().0).is_err());
    }
}
