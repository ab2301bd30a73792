//! The counts of what each worker answered, for `/stats`.
//!
//! Each worker publishes its own counts, so no worker waits for another or shares a counter with
//! it.

use std::sync::atomic::{AtomicU64, Ordering};

use sprat::proto::tracker::service::Counts;

/// The counts of one worker, alone on their cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Published {
    connects: AtomicU64,
    announces: AtomicU64,
    scrapes: AtomicU64,
    errors: AtomicU64,
}

/// The counts of all workers.
#[derive(Debug)]
pub(crate) struct Stats(Vec<Published>);

impl Stats {
    /// Creates zeros for this many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Published::default()).collect())
    }

    /// Replaces the counts of a worker.
    pub(crate) fn publish(&self, worker: usize, counts: Counts) {
        let Counts { connects, announces, scrapes, errors } = counts;
        let published = &self.0[worker];
        published.connects.store(connects, Ordering::Relaxed);
        published.announces.store(announces, Ordering::Relaxed);
        published.scrapes.store(scrapes, Ordering::Relaxed);
        published.errors.store(errors, Ordering::Relaxed);
    }

    /// Returns the sums.
    pub(crate) fn counts(&self) -> Counts {
        self.0.iter().fold(Counts::default(), |sum, published| Counts {
            connects: sum.connects + published.connects.load(Ordering::Relaxed),
            announces: sum.announces + published.announces.load(Ordering::Relaxed),
            scrapes: sum.scrapes + published.scrapes.load(Ordering::Relaxed),
            errors: sum.errors + published.errors.load(Ordering::Relaxed),
        })
    }
}
