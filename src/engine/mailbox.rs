//! What users, the listener and the supervisor tell a torrent: a bounded channel that takes memory only for what is
//! in it.
//!
//! A channel of tokio has room for 32 messages and pads against sharing of cache lines, some 2 KiB; most torrents of
//! a hundred thousand never hear anything. Hardly a message a second comes here, so a lock for each is nothing.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

use super::channels::CONTROL;
use super::context::Control;

/// Both ends.
pub(crate) fn mailbox() -> (Mail, Mailbox) {
    let place = Place {
        letters: Mutex::new(Letters { queue: VecDeque::new(), sender_count: 1 }),
        room: Semaphore::new(CONTROL),
        arrived: Notify::new(),
    };
    let place = Arc::new(place);
    (Mail(Arc::clone(&place)), Mailbox(place))
}

/// To a torrent.
#[derive(Debug)]
pub(crate) struct Mail(Arc<Place>);

/// The torrent's end; dropping it turns all away.
#[derive(Debug)]
pub(crate) struct Mailbox(Arc<Place>);

/// The torrent has ended, or, of [`Mail::try_send`], has not read what it was told before.
#[derive(Debug)]
pub(crate) struct Undelivered;

#[derive(Debug)]
struct Place {
    letters: Mutex<Letters>,
    /// Closed, with the lock held, when the torrent does not listen any more: what is pushed then would lie there for
    /// ever.
    room: Semaphore,
    arrived: Notify,
}

#[derive(Debug)]
struct Letters {
    queue: VecDeque<Control>,
    sender_count: usize,
}

impl Place {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        // A push or a pop is done or not.
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, control: Control) -> Result<(), Undelivered> {
        let mut letters = self.letters();
        if self.room.is_closed() {
            return Err(Undelivered);
        }
        letters.queue.push_back(control);
        drop(letters);
        self.arrived.notify_one();
        Ok(())
    }
}

impl Mail {
    /// Tells it, as soon as there is room.
    ///
    /// # Errors
    /// The torrent has ended.
    pub(crate) async fn send(&self, control: Control) -> Result<(), Undelivered> {
        self.0.room.acquire().await.map_err(|_| Undelivered)?.forget();
        self.0.push(control)
    }

    /// Tells it now or not at all.
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
        self.0.letters().sender_count += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        self.0.letters().sender_count -= 1;
        self.0.arrived.notify_one();
    }
}

impl Mailbox {
    /// The next that is told; None: nobody is left to tell anything. May be dropped and called again.
    pub(crate) async fn recv(&mut self) -> Option<Control> {
        loop {
            if let Some(control) = self.try_recv() {
                return Some(control);
            }
            if self.0.letters().sender_count == 0 {
                return self.try_recv();
            }
            self.0.arrived.notified().await;
        }
    }

    /// What is there already.
    pub(crate) fn try_recv(&mut self) -> Option<Control> {
        let mut letters = self.0.letters();
        let control = letters.queue.pop_front()?;
        if letters.queue.is_empty() {
            letters.queue = VecDeque::new();
        }
        drop(letters);
        self.0.room.add_permits(1);
        Some(control)
    }

    /// Takes nothing more.
    pub(crate) fn close(&mut self) {
        let _letters = self.0.letters();
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
    async fn who_finds_it_full_waits_and_is_heard_in_turn() {
        let (mail, mut mailbox) = mailbox();
        (0..CONTROL).for_each(|_| mail.try_send(stop().0).unwrap());
        assert!(mail.try_send(stop().0).is_err() && !is_ready(mail.send(stop().0)));
        let (sent, received) = tokio::join!(mail.send(stop().0), mailbox.recv());
        assert!(sent.is_ok() && received.is_some());
        drop(mail);
        for _ in 0..CONTROL {
            assert!(mailbox.recv().await.is_some());
        }
        assert!(mailbox.recv().await.is_none(), "nobody is left");
    }

    #[tokio::test]
    async fn the_end_of_either_side_is_told_to_the_other() {
        let (mail, mut box_of_one) = mailbox();
        let other = mail.clone();
        drop(mail);
        assert!(!is_ready(box_of_one.recv()));
        let ((), ended) = tokio::join!(async { drop(other) }, box_of_one.recv());
        assert!(ended.is_none());
        let (mail, box_of_one) = mailbox();
        let (control, told) = stop();
        mail.try_send(control).unwrap();
        // Somebody was let in, and is about to push.
        mail.0.room.try_acquire().unwrap().forget();
        drop(box_of_one);
        assert!(told.await.is_err(), "what was not read is dropped");
        assert!(mail.0.push(stop().0).is_err(), "and what comes too late is given back");
        assert!(mail.send(stop().0).await.is_err() && mail.try_send(stop().0).is_err());
    }
}
