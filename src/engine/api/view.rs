//! What users see of one torrent: figures, metadata, events; written by its task, read by its
//! handles.
//!
//! All of it is one allocation that grows with what is in it: a process may have a hundred thousand
//! torrents, most of which no user looks at. The torrent never waits for a reader: of figures only
//! the latest count, of events the last [`EVENT`] are kept while there is a reader.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::engine::api::event::{Event, Snapshot};
use crate::engine::channels::EVENT;
use crate::engine::watched::Watched;
use crate::proto::metainfo::Metainfo;

/// Returns both ends of an empty view; `is_named`: the metadata is to be fetched.
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
    let shared = Arc::new(Watched::new(state));
    (Teller(Arc::clone(&shared)), Viewer { shared, seen_count: 0, next_event: 0 })
}

/// The torrent's end; dropping it ends the view.
#[derive(Debug)]
pub(crate) struct Teller(Arc<Watched<State>>);

/// A reader's end. A clone has seen the same figures, and receives the events from its creation on.
#[derive(Debug)]
pub(crate) struct Viewer {
    shared: Arc<Watched<State>>,
    /// The count of the last snapshot that this reader waited for.
    seen_count: u64,
    /// The number of the next event.
    next_event: u64,
}

#[derive(Debug)]
struct State {
    /// None: no reader is left.
    snapshot: Option<Box<Snapshot>>,
    /// How often it changed.
    snapshot_count: u64,
    description: Description,
    events: VecDeque<Event>,
    /// The number of events before those.
    dropped_count: u64,
    viewer_count: usize,
    has_ended: bool,
}

#[derive(Debug)]
enum Description {
    /// The user that added the torrent has it.
    Elsewhere,
    /// Being fetched.
    Awaited,
    There(Arc<Metainfo>),
}

impl Teller {
    /// Whether there is a reader.
    pub(crate) fn is_read(&self) -> bool {
        self.0.lock().viewer_count > 0
    }

    /// Changes the figures.
    pub(crate) fn show(&self, change: impl FnOnce(&mut Snapshot)) {
        self.0.change(|state| {
            if let Some(snapshot) = &mut state.snapshot {
                change(snapshot);
                state.snapshot_count += 1;
            }
        });
    }

    /// Shows the metadata.
    pub(crate) fn describe(&self, metainfo: Arc<Metainfo>) {
        self.0.change(|state| state.description = Description::There(metainfo));
    }

    /// Adds an event.
    pub(crate) fn tell(&self, event: Event) {
        self.0.change(|state| {
            if state.viewer_count == 0 {
                return;
            }
            if state.events.len() == EVENT {
                state.events.pop_front();
                state.dropped_count += 1;
            }
            state.events.push_back(event);
        });
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.change(|state| state.has_ended = true);
    }
}

impl Viewer {
    /// Returns the latest figures.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.shared.lock().snapshot.as_deref().cloned().unwrap_or_default()
    }

    /// Waits for figures that were not waited for before; false: there will be none.
    pub(crate) async fn changed(&mut self) -> bool {
        let Self { shared, seen_count, .. } = self;
        let look = |state: &mut State| {
            let is_new = std::mem::replace(seen_count, state.snapshot_count) != state.snapshot_count;
            (is_new || state.has_ended).then_some(is_new)
        };
        shared.until(look).await
    }

    /// Waits until `look` finds something in the figures; None: the torrent ended before.
    pub(crate) async fn find<T>(&self, look: impl Fn(&Snapshot) -> Option<T>) -> Option<T> {
        let found = |state: &mut State| {
            let found = state.snapshot.as_deref().and_then(&look);
            (found.is_some() || state.has_ended).then_some(found)
        };
        self.shared.until(found).await
    }

    /// Returns the metadata, if it was fetched.
    pub(crate) fn metainfo(&self) -> Option<Arc<Metainfo>> {
        match &self.shared.lock().description {
            Description::There(metainfo) => Some(Arc::clone(metainfo)),
            Description::Elsewhere | Description::Awaited => None,
        }
    }

    /// Waits for the metadata; None: there will be none.
    pub(crate) async fn described(&self) -> Option<Arc<Metainfo>> {
        let look = |state: &mut State| match &state.description {
            Description::There(metainfo) => Some(Some(Arc::clone(metainfo))),
            Description::Awaited if !state.has_ended => None,
            Description::Elsewhere | Description::Awaited => Some(None),
        };
        self.shared.until(look).await
    }

    /// Waits for the next event; None: there will be none.
    pub(crate) async fn next_event(&mut self) -> Option<Event> {
        let Self { shared, next_event, .. } = self;
        shared.until(|state| state.next_event(next_event)).await
    }
}

impl State {
    /// Returns the event of this number and moves the number on: an event, [`Event::Skipped`] where
    /// some are gone, or None at the end. None: there is none yet.
    fn next_event(&self, number: &mut u64) -> Option<Option<Event>> {
        let skipped_count = self.dropped_count.saturating_sub(*number);
        if skipped_count > 0 {
            *number = self.dropped_count;
            return Some(Some(Event::Skipped(skipped_count)));
        }
        match self.events.get((*number - self.dropped_count) as usize) {
            Some(event) => {
                *number += 1;
                Some(Some(event.clone()))
            }
            None => self.has_ended.then_some(None),
        }
    }
}

impl Clone for Viewer {
    fn clone(&self) -> Self {
        let mut state = self.shared.lock();
        state.viewer_count += 1;
        let next_event = state.dropped_count + state.events.len() as u64;
        Self { shared: Arc::clone(&self.shared), seen_count: self.seen_count, next_event }
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
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
    fn each_reader_receives_all_events_from_its_creation_to_the_end() {
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
    fn a_slow_reader_learns_how_many_it_missed_and_without_readers_none_are_kept() {
        let (teller, mut viewer) = view(false);
        (0..EVENT as u32 + 3).for_each(|piece| teller.tell(Event::Piece(piece)));
        assert_eq!(ready(viewer.next_event()), Some(Some(Event::Skipped(3))));
        assert_eq!(ready(viewer.next_event()), Some(Some(Event::Piece(3))));
        assert!(teller.is_read());
        drop(viewer);
        teller.tell(Event::Stopped);
        assert!(!teller.is_read() && teller.0.lock().events.capacity() == 0);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_what_it_waits_for() {
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
        assert!(viewer.described().await.is_none(), "the torrent ended before");
    }
}
