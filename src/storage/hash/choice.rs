//! Finds the fastest kind of hashing for a number of messages, by measuring each kind once in a
//! process.
//!
//! Processor features alone do not tell. SHA instructions hash one message at 1.3 to 2 cycles a
//! byte, because each step depends on the one before; without them it takes 4 to 5. 16 lanes of
//! AVX-512 were measured at 0.4, and 8 of AVX2 at 1.1, but some processors execute wide vectors in
//! halves, or slowly; and a vector costs the same with one lane in use as with all. So a pass of
//! each kind is timed over 4 KiB a lane, taking the shortest of several: a quarter of a millisecond
//! in all.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{Group, Kind, LANE_MAX};

/// Bytes a lane in one pass: fits the first-level cache, and is long enough for the clock.
const SAMPLE_LEN: usize = 4 << 10;
/// Passes of each kind, in turn: enough for one without interruption, and for the vectors to warm
/// up.
const PASS_COUNT: usize = 16;

/// Returns the kind that takes the least time for `count` messages of one length.
pub(super) fn best(count: usize) -> Kind {
    static MEASURED: OnceLock<Vec<(Kind, Duration)>> = OnceLock::new();
    cheapest(MEASURED.get_or_init(measure), count)
}

/// Returns the cheapest of kinds, each with the time of one pass.
fn cheapest(measured: &[(Kind, Duration)], count: usize) -> Kind {
    let cost = |(kind, pass): &&(Kind, Duration)| *pass * count.div_ceil(kind.lanes()) as u32;
    measured.iter().min_by_key(cost).map_or(Kind::ONE_BY_ONE, |(kind, _)| *kind)
}

fn measure() -> Vec<(Kind, Duration)> {
    let sample = [0x5a; SAMPLE_LEN];
    let parts = [&sample[..]; LANE_MAX];
    let mut measured: Vec<_> = Kind::available().map(|kind| (kind, Duration::MAX)).collect();
    for _ in 0..PASS_COUNT {
        for (kind, shortest) in &mut measured {
            let start = now();
            let mut group = Group::of_kind(*kind, kind.lanes());
            group.update(&parts[..kind.lanes()]);
            std::hint::black_box(group.finish());
            *shortest = now().duration_since(start).min(*shortest);
        }
    }
    measured
}

#[expect(clippy::disallowed_methods, reason = "the one use of time in storage: which hashing is faster here")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_kind_counts_passes() {
        let kinds: Vec<Kind> = Kind::available().collect();
        let micros = |passes: &[u64]| -> Vec<_> {
            kinds.iter().copied().zip(passes.iter().map(|&pass| Duration::from_micros(pass))).collect()
        };
        let last = kinds[kinds.len() - 1];
        // One message takes 10; a pass of each wider kind takes 35.
        let measured = micros(&[10, 35, 35]);
        for count in 0..4 {
            assert_eq!(cheapest(&measured, count), Kind::ONE_BY_ONE, "{count}");
        }
        assert_eq!(cheapest(&measured, 16), last, "whatever is widest");
        assert_eq!(cheapest(&micros(&[1, 200, 200]), 16), Kind::ONE_BY_ONE, "wide and slow");
        assert_eq!(cheapest(&[], 3), Kind::ONE_BY_ONE);
    }

    #[test]
    fn each_kind_is_measured() {
        let measured = measure();
        assert_eq!(measured.len(), Kind::available().count());
        assert!(measured.iter().all(|(_, pass)| *pass < Duration::from_secs(1)), "{measured:?}");
    }
}
