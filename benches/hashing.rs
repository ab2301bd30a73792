//! What hashing costs on this machine, by kind: one message after the other, or several side by
//! side in vectors. `cargo bench --bench hashing`
//!
//! Each kind hashes as many messages as it has lanes; the kinds take turns, and the shortest pass
//! counts, so that other work on the machine disturbs all of them alike, and little. Cycles are
//! those of the core's own clock in that moment, found by a run of steps that each wait for the one
//! before: a multiplication, 3 cycles on the x86-64 and most AArch64 processors of the last ten
//! years, and an exclusive or, 1.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sprat::storage::hash::{Group, Kind, LANE_MAX, side_by_side};

/// Bytes of a message: a block, a small piece, a common piece.
const LENS: [usize; 3] = [16 << 10, 256 << 10, 1 << 20];
/// Bytes that each kind hashes in one pass, at least: less than what the system lets run in one go.
const PASS_LEN: usize = 1 << 20;
/// Passes of each kind.
const PASS_COUNT: u32 = 100;

fn main() {
    println!("{:>9}  {:<20} {:>7} {:>12}", "bytes", "kind", "GB/s", "cycles/byte");
    let kinds: Vec<Kind> = Kind::available().collect();
    for len in LENS {
        // Apart by a little more than their length, as buffers are: else they meet in the cache's
        // lines.
        let bytes: Vec<u8> = (0..LANE_MAX * (len + 64)).map(|at| (at ^ (at >> 8)) as u8).collect();
        let messages: Vec<&[u8]> = bytes.chunks(len + 64).map(|message| &message[..len]).collect();
        let mut shortest = vec![Duration::MAX; kinds.len()];
        let mut steps = Duration::MAX;
        for _ in 0..PASS_COUNT {
            steps = steps.min(run_steps());
            for (kind, shortest) in kinds.iter().zip(&mut shortest) {
                *shortest = pass(*kind, &messages[..kind.lanes()]).min(*shortest);
            }
        }
        let cycle = steps.as_secs_f64() / f64::from(STEP_COUNT) / STEP_CYCLES;
        for (kind, shortest) in kinds.iter().zip(shortest) {
            let of_byte = shortest.as_secs_f64() / (pass_count(*kind, len) * kind.lanes() * len) as f64;
            println!("{len:>9}  {:<20} {:>7.2} {:>12.2}", kind.name(), 1e-9 / of_byte, of_byte / cycle);
        }
    }
    let first_beside = (1..=LANE_MAX).find(|count| Kind::best(*count) != Kind::ONE_BY_ONE);
    println!("taken together: {}; side by side from {first_beside:?} messages on", side_by_side());
}

fn pass_count(kind: Kind, len: usize) -> usize {
    PASS_LEN.div_ceil(kind.lanes() * len)
}

fn pass(kind: Kind, messages: &[&[u8]]) -> Duration {
    let start = now();
    for _ in 0..pass_count(kind, messages[0].len()) {
        let mut group = Group::of_kind(kind, messages.len());
        group.update(black_box(messages));
        black_box(group.finish());
    }
    now().duration_since(start)
}

/// Steps in one run: a quarter of a millisecond.
const STEP_COUNT: u32 = 250_000;
/// Of one step.
const STEP_CYCLES: f64 = 4.0;

fn run_steps() -> Duration {
    let (start, factor) = (now(), black_box(0x9e37_79b9_7f4a_7c15_u64));
    let mut value = black_box(1_u64);
    for _ in 0..STEP_COUNT {
        value = value.wrapping_mul(factor) ^ factor;
    }
    black_box(value);
    now().duration_since(start)
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}
