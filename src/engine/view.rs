//! What people see of one torrent: figures, description, events; told by its task, read by its handles.
//!
//! All of it is one allocation that grows with what is in it: a process may have a hundred thousand torrents, most
//! of which nobody looks at. The lock is held to copy one thing in or out, and never across an await. Whoever tells
//! never waits for who reads: of figures only the latest count, of events the last [`EVENT`] are kept while there
//! is a reader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::channels::EVENT;
use super::handle::{Event, Snapshot};
use crate::proto::metainfo::Metainfo;

/// A view, of which nothing is told yet; `is_named`: the description is to come.
pub(crate) fn view(is_named: bool) -> (Teller, Viewer) {
    let description = if is_named { Description::Awaited } else { Description::Elsewhere };
    let state = State {
        snapshot: Some(Box::default()),
        snapshot_count: 0,
        description,
        events: VecDeque::new(),
        dropped_count: 0,
        viewer_count: 1,
        has_ended: false,
    };
    let shared = Arc::new(Shared { state: Mutex::new(state), changed: Notify::new() });
    (Teller(Arc::clone(&shared)), Viewer { shared, seen_count: 0, next_event: 0 })
}

/// The torrent's end. Dropping it is the end of what is told.
#[derive(Debug)]
pub(crate) struct Teller(Arc<Shared>);

/// A reader's end. A clone has seen the same figures, and hears of events from its making on.
#[derive(Debug)]
pub(crate) struct Viewer {
    shared: Arc<Shared>,
    /// Of snapshots, those that were seen.
    seen_count: u64,
    /// The number of the next event.
    next_event: u64,
}

/// The next event, for who looks.
#[derive(Debug, PartialEq)]
enum Heard {
    Event(Event),
    Nothing,
    End,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// None: nobody is left to read.
    snapshot: Option<Box<Snapshot>>,
    /// How often it changed.
    snapshot_count: u64,
    description: Description,
    events: VecDeque<Event>,
    /// Events that came before those.
    dropped_count: u64,
    viewer_count: usize,
    has_ended: bool,
}

#[derive(Debug)]
enum Description {
    /// Whoever added the torrent has it.
    Elsewhere,
    /// Being fetched.
    Awaited,
    There(Arc<Metainfo>),
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole, so a task that died with the lock did no harm.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Teller {
    /// Whether anybody reads.
    pub(crate) fn is_read(&self) -> bool {
        self.0.state().viewer_count > 0
    }

    /// New figures.
    pub(crate) fn show(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut state = self.0.state();
        let Some(snapshot) = &mut state.snapshot else { return };
        change(snapshot);
        state.snapshot_count += 1;
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// The description.
    pub(crate) fn describe(&self, metainfo: Arc<Metainfo>) {
        self.0.state().description = Description::There(metainfo);
        self.0.changed.notify_waiters();
    }

    /// Something happened.
    pub(crate) fn tell(&self, event: Event) {
        let mut state = self.0.state();
        if state.viewer_count == 0 {
            return;
        }
        if state.events.len() == EVENT {
            state.events.pop_front();
            state.dropped_count += 1;
        }
        state.events.push_back(event);
        drop(state);
        self.0.changed.notify_waiters();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.state().has_ended = true;
        self.0.changed.notify_waiters();
    }
}

impl Viewer {
    /// The latest figures.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.shared.state().snapshot.as_deref().cloned().unwrap_or_default()
    }

    /// Waits for figures that were not waited for before; false: there will be none.
    pub(crate) async fn changed(&mut self) -> bool {
        loop {
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state();
                if state.snapshot_count != self.seen_count {
                    self.seen_count = state.snapshot_count;
                    return true;
                }
                if state.has_ended {
                    return false;
                }
            }
            changed.await;
        }
    }

    /// What `look` finds in the figures, now or later; None: the end comes first.
    pub(crate) async fn find<T>(&self, look: impl Fn(&Snapshot) -> Option<T>) -> Option<T> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state();
                let found = state.snapshot.as_deref().and_then(&look);
                if found.is_some() || state.has_ended {
                    return found;
                }
            }
            changed.await;
        }
    }

    /// The description, if it was fetched.
    pub(crate) fn metainfo(&self) -> Option<Arc<Metainfo>> {
        match &self.shared.state().description {
            Description::There(metainfo) => Some(Arc::clone(metainfo)),
            Description::Elsewhere | Description::Awaited => None,
        }
    }

    /// Waits for the description; None: there will be none.
    pub(crate) async fn described(&self) -> Option<Arc<Metainfo>> {
        loop {
            let changed = self.shared.changed.notified();
            {
                let state = self.shared.state();
                match &state.description {
                    Description::There(metainfo) => return Some(Arc::clone(metainfo)),
                    Description::Elsewhere => return None,
                    Description::Awaited if state.has_ended => return None,
                    Description::Awaited => {}
                }
            }
            changed.await;
        }
    }

    /// The next event; None: there will be none.
    pub(crate) async fn next_event(&mut self) -> Option<Event> {
        loop {
            let changed = self.shared.changed.notified();
            let heard = self.shared.state().hear(&mut self.next_event);
            match heard {
                Heard::Event(event) => return Some(event),
                Heard::End => return None,
                Heard::Nothing => changed.await,
            }
        }
    }
}

impl State {
    /// The event of that number, or that some are gone; the number is moved on.
    fn hear(&self, next: &mut u64) -> Heard {
        let skipped_count = self.dropped_count.saturating_sub(*next);
        if skipped_count > 0 {
            *next = self.dropped_count;
            return Heard::Event(Event::Skipped(skipped_count));
        }
        match self.events.get((*next - self.dropped_count) as usize) {
            Some(event) => {
                *next += 1;
                Heard::Event(event.clone())
            }
            None if self.has_ended => Heard::End,
            None => Heard::Nothing,
        }
    }
}

impl Clone for Viewer {
    fn clone(&self) -> Self {
        let mut state = self.shared.state();
        state.viewer_count += 1;
        let next_event = state.dropped_count + state.events.len() as u64;
        Self { shared: Arc::clone(&self.shared), seen_count: self.seen_count, next_event }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.viewer_count -= 1;
        if state.viewer_count == 0 {
            state.dropped_count += state.events.len() as u64;
            (state.events, state.snapshot) = (VecDeque::new(), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn each_reader_hears_all_events_from_its_making_on_and_the_end() {
        let (teller, mut first) = view(false);
        teller.tell(Event::Piece(1));
        let mut second = first.clone();
        teller.tell(Event::Piece(2));
        assert_eq!(ready(first.next_event()), Some(Some(Event::Piece(1))));
        assert_eq!(ready(first.next_event()), Some(Some(Event::Piece(2))));
        assert_eq!(ready(first.next_event()), None);
        drop(teller);
        assert_eq!(ready(first.next_event()), Some(None));
        assert_eq!(ready(second.next_event()), Some(Some(Event::Piece(2))));
        assert_eq!(ready(second.next_event()), Some(None));
    }

    #[test]
    fn a_slow_reader_is_told_what_it_missed_and_without_readers_nothing_is_kept() {
        let (teller, mut viewer) = view(false);
        (0..EVENT as u32 + 3).for_each(|piece| teller.tell(Event::Piece(piece)));
        assert_eq!(ready(viewer.next_event()), Some(Some(Event::Skipped(3))));
        assert_eq!(ready(viewer.next_event()), Some(Some(Event::Piece(3))));
        assert!(teller.is_read());
        drop(viewer);
        teller.tell(Event::Stopped);
        assert!(!teller.is_read() && teller.0.state().events.capacity() == 0);
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_what_it_waits_for() {
        let (teller, mut viewer) = view(true);
        assert_eq!(ready(viewer.changed()), None);
        let mut reader = viewer.clone();
        let waiting = async {
            let finished = reader.find(|snapshot| snapshot.finished.then_some(())).await;
            (finished, reader.changed().await, reader.next_event().await, reader.changed().await)
        };
        let telling = async {
            tokio::task::yield_now().await;
            teller.show(|snapshot| snapshot.finished = true);
            tokio::task::yield_now().await;
            teller.tell(Event::Described);
            tokio::task::yield_now().await;
            drop(teller);
        };
        let (waited, ()) = tokio::join!(waiting, telling);
        assert_eq!(waited, (Some(()), true, Some(Event::Described), false));
        assert!(viewer.changed().await && !viewer.changed().await);
        assert!(viewer.described().await.is_none(), "it ended before");
    }
}
