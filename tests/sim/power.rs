//! Power cuts, kills and failing disks: the production storage code downloads on a simulated disk.

#![cfg(test)]

use sprat::proto::rng::Rng;
use sprat::sim::disk::{Disk, Failure, Faults, Model, When};
use sprat::storage::fs::FileSystem;
use sprat::storage::journal::Trouble;

use rustix::io::Errno;

use crate::sample::{
    Disks, MODELS, Running, Sample, insist, journal_path, run_count, start, start_without_journal,
};

/// Changing calls of an undisturbed download, about: cuts and faults begin within it.
const CALL_COUNT: usize = 120;

/// From whatever a cut left to a complete download, and to a start that finds all of it. Pieces
/// fetched.
fn recover(sample: &Sample, disks: &Disks, durable: Option<&Running>, rng: &mut Rng) -> u32 {
    let mut again = start(sample, disks).unwrap();
    if let Some(before) = durable {
        assert!(!before.durable.has_more_than(&again.have), "what was durable is there (R2)");
    }
    let fetched = again.download(sample, disks, rng).unwrap();
    sample.assert_complete(&disks.content);
    let third = start(sample, disks).unwrap();
    assert_eq!(third.hashed_count, 0, "after a clean end nothing is hashed");
    assert!(third.is_complete());
    fetched
}

/// Downloads with the power going out at this call, starts again, and finishes. Whether there was
/// such a call.
fn cut_once(sample: &Sample, disks: &Disks, disk: &Disk, seed: u64, cut_at: u64) -> bool {
    let mut rng = Rng::from_number(seed);
    disk.set_faults(Faults { cut_at: Some(cut_at), ..Faults::default() });
    let mut first = start(sample, disks).ok();
    let done = first.as_mut().map(|started| started.download(sample, disks, &mut rng));
    let was_cut = disks.is_down();
    assert!(was_cut || done.is_some_and(|done| done.is_ok()));
    disks.power_cycle();
    recover(sample, disks, first.as_ref(), &mut rng);
    was_cut
}

#[test]
fn a_power_cut_at_every_single_call_loses_nothing_that_is_claimed() {
    let sample = Sample::new();
    let mut cuts = 0;
    for seed in 0..run_count(1, 10) {
        for model in MODELS {
            for of_disks in [Disks::one, Disks::two] {
                for on_state in [false, true] {
                    let mut cut_at = 1;
                    loop {
                        let disks = of_disks(model, seed);
                        let disk = if on_state { &disks.state } else { &disks.content };
                        if !cut_once(&sample, &disks, disk, seed, cut_at) {
                            break;
                        }
                        cut_at += 1;
                    }
                    assert!(cut_at > 20, "{model:?}: only {cut_at} calls");
                    cuts += cut_at - 1;
                }
            }
        }
    }
    eprintln!("N3: {cuts} power cuts, one at every call: nothing false, nothing durable lost");
}

/// Figures of many runs.
#[derive(Default)]
struct Tally {
    counts: Vec<u32>,
}

impl Tally {
    fn worst_and_median(mut self) -> (u32, u32) {
        self.counts.sort_unstable();
        (
            self.counts.last().copied().unwrap_or(0),
            self.counts.get(self.counts.len() / 2).copied().unwrap_or(0),
        )
    }
}

#[test]
fn power_cuts_at_random_moments_one_after_the_other() {
    let sample = Sample::new();
    let (mut cuts, mut twice) = (0, Tally::default());
    for seed in 0..run_count(80, 2_200) {
        for (number, disks) in MODELS
            .map(|model| [Disks::one(model, seed), Disks::two(model, seed)])
            .as_flattened()
            .iter()
            .enumerate()
        {
            let mut rng = Rng::from_number(seed * 6 + number as u64);
            let mut written = 0;
            let mut durable: Option<Running> = None;
            // Several cuts in one download, then an end in peace.
            for _ in 0..3 {
                let disk = disks.any(&mut rng);
                let cut_at = disk.call_count() + 1 + rng.below(CALL_COUNT) as u64;
                disk.set_faults(Faults { cut_at: Some(cut_at), ..Faults::default() });
                if let Ok(mut started) = start(&sample, disks) {
                    if let Some(before) = &durable {
                        assert!(!before.durable.has_more_than(&started.have), "seed {seed}: R2");
                    }
                    let before = started.have.count();
                    let _ = started.download(&sample, disks, &mut rng);
                    written += started.have.count() - before;
                    durable = Some(started);
                }
                cuts += u32::from(disks.is_down());
                disks.power_cycle();
            }
            written += recover(&sample, disks, durable.as_ref(), &mut rng);
            let wanted = durable.map_or(written, |started| started.store.content().wanted().count());
            twice.counts.push(written.saturating_sub(wanted));
        }
    }
    let (worst, median) = twice.worst_and_median();
    eprintln!(
        "N2: {cuts} power cuts, nothing false; fetched twice in a download with three of them: at most {worst} \
         pieces, median {median}"
    );
}

/// Killed, the program leaves everything that it wrote: only the piece that it was writing is
/// fetched again.
#[test]
fn a_kill_costs_at_most_the_piece_being_written() {
    let sample = Sample::new();
    let runs = run_count(200, 20_000);
    for seed in 0..runs {
        let model = MODELS[seed as usize % 3];
        let disks = Disks::of(model, seed);
        let mut rng = Rng::from_number(seed);
        let cut_at = 1 + rng.below(CALL_COUNT) as u64;
        disks.any(&mut rng).set_faults(Faults { cut_at: Some(cut_at), ..Faults::default() });
        let mut before = 0;
        if let Ok(mut started) = start(&sample, &disks) {
            let _ = started.download(&sample, &disks, &mut rng);
            before = started.have.count();
        }
        disks.revive();
        let again = start(&sample, &disks).unwrap();
        assert!(again.have.count() >= before, "seed {seed}: {before} pieces, then {}", again.have.count());
        recover(&sample, &disks, Some(&again), &mut rng);
    }
    eprintln!("{runs} kills: nothing that was written is fetched again");
}

/// Something that goes wrong for a while, on a disk that is at this call and time.
fn trouble(disk: &Disk, rng: &mut Rng) -> Faults {
    let errors = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO, Errno::INTR, Errno::MFILE];
    let error = errors[rng.below(errors.len())];
    let from = disk.call_count() + 1 + rng.below(CALL_COUNT) as u64;
    let calls = When::Calls(from..from + 1 + rng.below(20) as u64);
    let begin = disk.now() + rng.below(8_000_000) as u64;
    let time = When::Time(begin..begin + rng.below(60_000_000) as u64);
    let either = if rng.below(2) == 0 { calls } else { time.clone() };
    let failing = match rng.below(6) {
        0 => {
            let space = Some((rng.below(480_000) as u64, time));
            return Faults { space, ..Faults::default() };
        }
        1 => (either, Failure::Refused(error)),
        2 => (either, Failure::Short(error)),
        3 => (either, Failure::Unsynced { error: Errno::IO, forgets: rng.below(2) == 0 }),
        4 => (time, Failure::Unread(Errno::IO)),
        _ => (time, Failure::Stalled),
    };
    Faults { failing: Some(failing), ..Faults::default() }
}

/// Whatever fails for a while, the download goes on by itself, ends well, and what it called
/// durable is: the power goes out in the middle or just after the end.
#[test]
fn failing_disks_hold_a_download_up_and_spoil_nothing() {
    let sample = Sample::new();
    let (mut done_count, mut cut_count) = (0, 0);
    for seed in 0..run_count(1_000, 30_000) {
        let model = MODELS[seed as usize % 3];
        let disks = Disks::of(model, seed);
        let mut rng = Rng::from_number(seed);
        let disk = disks.any(&mut rng);
        let mut faults = trouble(disk, &mut rng);
        if rng.below(2) == 0 {
            faults.cut_at = Some(1 + rng.below(2 * CALL_COUNT) as u64);
        }
        disk.set_faults(faults);
        let mut first = start(&sample, &disks).ok();
        let done = first.as_mut().map(|started| started.persist(&sample, &disks, &mut rng));
        if disks.is_down() {
            cut_count += 1;
        } else {
            done.unwrap().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            sample.assert_complete(&disks.content);
            done_count += 1;
        }
        disks.power_cycle();
        recover(&sample, &disks, first.as_ref(), &mut rng);
    }
    eprintln!("N5: {done_count} downloads ended by themselves, {cut_count} after a power cut: nothing false");
}

/// A journal that can never be written or made durable costs a start that hashes, and nothing else.
/// It is said once.
#[test]
fn a_journal_that_cannot_be_written_holds_nothing_up() {
    let sample = Sample::new();
    let failures = [
        Failure::Refused(Errno::NOSPC),
        Failure::Refused(Errno::ROFS),
        Failure::Refused(Errno::ACCESS),
        Failure::Short(Errno::FBIG),
        Failure::Unsynced { error: Errno::INVAL, forgets: false },
        Failure::Unsynced { error: Errno::IO, forgets: true },
    ];
    for seed in 0..run_count(300, 10_000) {
        let disks = Disks::two(MODELS[seed as usize % 3], seed);
        let mut rng = Rng::from_number(seed);
        let from = disks.state.call_count() + 1 + rng.below(20) as u64;
        let when = if rng.below(2) == 0 { When::Always } else { When::Calls(from..u64::MAX) };
        let failing = Some((when, failures[rng.below(failures.len())]));
        disks.state.set_faults(Faults { failing, ..Faults::default() });
        let mut first = start(&sample, &disks).unwrap();
        first.download(&sample, &disks, &mut rng).unwrap();
        sample.assert_complete(&disks.content);
        let told = first.store.take_journal_trouble();
        assert!(matches!(told, Some(Trouble::Lapsed(_))), "seed {seed}: {told:?}");
        assert!(first.store.take_journal_trouble().is_none());
        disks.power_cycle();
        disks.state.set_faults(Faults::default());
        recover(&sample, &disks, Some(&first), &mut rng);
    }
}

/// What a start finds by hashing may be in caches only, and its sync may fail: then it is written
/// once more.
#[test]
fn what_a_start_finds_is_durable_before_it_is_claimed_even_if_a_sync_fails() {
    let sample = Sample::new();
    let (count, mut noted_count) = (run_count(400, 20_000), 0);
    for seed in 0..count {
        let disks = Disks::of(MODELS[seed as usize % 3], seed);
        let mut rng = Rng::from_number(seed);
        let cut_at = 1 + rng.below(CALL_COUNT) as u64;
        // Some of those that are killed had a sync that failed before: what it was to cover reads
        // well, and is in caches alone.
        let unsynced = When::Calls(cut_at.saturating_sub(20)..cut_at);
        let failing = (unsynced, Failure::Unsynced { error: Errno::IO, forgets: rng.below(2) == 0 });
        let failing = (rng.below(2) == 0).then_some(failing);
        disks.content.set_faults(Faults { cut_at: Some(cut_at), failing, ..Faults::default() });
        if let Ok(mut first) = start(&sample, &disks) {
            let _ = first.persist(&sample, &disks, &mut rng);
        }
        disks.revive();
        let next = disks.content.call_count() + 1;
        let calls = When::Calls(next..next + 1 + rng.below(8) as u64);
        let failure = Failure::Unsynced { error: Errno::IO, forgets: rng.below(2) == 0 };
        let failing = (rng.below(2) == 0).then_some((calls, failure));
        disks.content.set_faults(Faults { failing, ..Faults::default() });
        let again = start(&sample, &disks).unwrap();
        if again.is_complete() {
            // What vouches for it may be a record that the one that was killed had not synced: it
            // is noted anew.
            insist(&disks, || again.store.close(&again.have)).unwrap();
        }
        // A record of the one that was killed that could not be rewritten may never have been
        // synced.
        let is_noted = !again.store.has_journal_gaps();
        noted_count += u64::from(is_noted);
        disks.power_cycle();
        recover(&sample, &disks, is_noted.then_some(&again), &mut rng);
    }
    assert!(noted_count * 10 > count * 9, "{noted_count} of {count} starts wrote their journal");
}

/// A file that somebody repaired in its place is hashed at a start, and durable before it is
/// claimed.
#[test]
fn what_others_repaired_is_made_durable_before_it_is_claimed() {
    let sample = Sample::new();
    for seed in 0..run_count(100, 4_000) {
        let disks = Disks::one(MODELS[seed as usize % 3], seed);
        let mut rng = Rng::from_number(seed);
        start(&sample, &disks).unwrap().download(&sample, &disks, &mut rng).unwrap();
        let file = &sample.info.files[[0, 2, 5, 6][rng.below(4)]];
        let (from, to) = (file.offset as usize, (file.offset + file.len) as usize);
        disks.content.tamper(&file.path, |bytes| bytes.fill(7));
        // As programs do: in the caches, and on the disk some time later.
        let open = disks.content.open_write(&file.path).unwrap();
        disks.content.write_all_at(&open, &[&sample.bytes[from..to]], 0).unwrap();
        let mut again = start(&sample, &disks).unwrap();
        assert!(again.is_complete());
        assert_eq!(again.store.close(&again.have).unwrap(), []);
        again.durable = again.have.clone();
        disks.power_cycle();
        recover(&sample, &disks, Some(&again), &mut rng);
    }
}

/// Files changed behind our back, while we run and while we do not: what is claimed is there.
#[test]
fn what_others_do_to_files_is_noticed_at_the_next_start() {
    let sample = Sample::new();
    for seed in 0..run_count(200, 4_000) {
        let disks = Disks::one(Model::Posix, seed);
        let mut rng = Rng::from_number(seed);
        let mut first = start(&sample, &disks).unwrap();
        if rng.below(2) == 0 {
            let until = disks.content.call_count() + 20 + rng.below(60) as u64;
            disks.content.set_faults(Faults { cut_at: Some(until), ..Faults::default() });
        }
        let _ = first.download(&sample, &disks, &mut rng);
        disks.revive();
        // A write of ours may be under way for some seconds after it was meant.
        disks.wait(11_000_000);
        let file = &sample.info.files[[0, 2, 5, 6][rng.below(4)]];
        let at = rng.below(file.len as usize);
        match rng.below(4) {
            0 => disks.content.tamper(&file.path, |bytes| bytes.truncate(at)),
            1 => disks.content.tamper(&file.path, |bytes| {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1;
                }
            }),
            2 => disks.content.tamper(&file.path, |bytes| bytes.push(1)),
            _ => disks.content.remove(&file.path).unwrap(),
        }
        let mut again = start(&sample, &disks).unwrap();
        again.download(&sample, &disks, &mut rng).unwrap();
        for piece in again.have.iter_set() {
            assert!(
                again.store.content().check_piece(piece, &mut Vec::new()).unwrap(),
                "seed {seed}, piece {piece}"
            );
        }
    }
}

/// What a sync that failed was to cover is written once more, whether or not it is written down
/// somewhere.
#[test]
fn a_sync_that_failed_is_not_believed_without_a_journal_either() {
    let sample = Sample::new();
    for seed in 0..run_count(200, 5_000) {
        let disks = Disks::of(MODELS[seed as usize % 3], seed);
        let mut rng = Rng::from_number(seed);
        let mut started = start_without_journal(&sample, &disks).unwrap();
        let from = disks.content.call_count() + rng.below(CALL_COUNT) as u64;
        let failure = Failure::Unsynced { error: Errno::IO, forgets: rng.below(2) == 0 };
        let failing = Some((When::Calls(from..from + 1 + rng.below(20) as u64), failure));
        disks.content.set_faults(Faults { failing, ..Faults::default() });
        started.persist(&sample, &disks, &mut rng).unwrap();
        disks.power_cycle();
        sample.assert_complete(&disks.content);
    }
}

/// A journal with any bytes in it, and one of earlier: at worst everything is hashed.
#[test]
fn a_damaged_journal_never_claims_what_is_not_there() {
    let sample = Sample::new();
    let runs = run_count(1_000, 100_000);
    for seed in 0..runs {
        let disks = Disks::one(Model::Posix, 1);
        let mut rng = Rng::from_number(seed);
        let mut first = start(&sample, &disks).unwrap();
        let earlier = disks.content.bytes(&journal_path()).unwrap();
        disks.content.set_faults(Faults {
            cut_at: Some(disks.content.call_count() + 1 + rng.below(CALL_COUNT) as u64),
            ..Faults::default()
        });
        let _ = first.download(&sample, &disks, &mut rng);
        disks.revive();
        disks.content.tamper(&journal_path(), |bytes| mutate(bytes, &earlier, &mut rng));
        // Files without a good piece may be anybody's for all that the journal says now.
        let mut again = start(&sample, &disks).unwrap();
        again.download(&sample, &disks, &mut rng).unwrap();
        sample.assert_complete(&disks.content);
    }
    eprintln!("N4: {runs} damaged journals, nothing false, none refused");
}

fn mutate(bytes: &mut Vec<u8>, earlier: &[u8], rng: &mut Rng) {
    let at = rng.below(bytes.len());
    match rng.below(7) {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << rng.below(8),
        2 => bytes[at..].fill(0),
        3 => bytes.extend_from_within(at..),
        4 => *bytes = earlier.to_vec(),
        5 => {
            bytes.truncate(at.min(earlier.len()));
            bytes.extend_from_slice(&earlier[at.min(earlier.len())..]);
        }
        _ => bytes.drain(..at).for_each(drop),
    }
}
