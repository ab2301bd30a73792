//! Tests of storing, committing and trying again.

use super::*;
use crate::proto::piece::Geometry;
use crate::storage::lifecycle::Plan;
use crate::storage::pieces::Held;

const PIECE_LEN: u32 = 65_536;

/// Content of ten pieces, none of them present, ready for writing.
fn lifecycle() -> Lifecycle<u8> {
    ready(Geometry::new(10 * u64::from(PIECE_LEN), PIECE_LEN).unwrap())
}

fn ready(geometry: Geometry) -> Lifecycle<u8> {
    Lifecycle { phase: Phase::Ready, ..Lifecycle::idle(Plan::default(), geometry, None) }
}

/// Receives a complete piece; returns the job to store it.
fn whole(lifecycle: &mut Lifecycle<u8>, piece: PieceIndex) -> WholePiece<u8> {
    let geometry = Geometry::new(10 * u64::from(PIECE_LEN), PIECE_LEN).unwrap();
    for index in 0..geometry.block_count(piece) {
        lifecycle.handle_block(at(0), geometry.block(piece, index), index as u8);
    }
    lifecycle.handle_whole(piece, false);
    match lifecycle.poll_output() {
        Some(Output::Job(Job::Store(whole))) => whole,
        other => panic!("{other:?}"),
    }
}

/// Drains all outputs, in words.
fn outputs(lifecycle: &mut Lifecycle<u8>) -> Vec<String> {
    std::iter::from_fn(|| lifecycle.poll_output()).map(|output| in_words(&output)).collect()
}

fn in_words(output: &Output<u8>) -> String {
    let words = match output {
        Output::Job(Job::Store(whole)) => {
            return format!("store {} of {}", whole.piece, whole.blocks.len());
        }
        Output::Job(Job::Run(Step::Commit)) => "commit",
        Output::Job(Job::Run(Step::Finish(_))) => "finish",
        Output::Event(Event::Storage(Some(_))) => "fault",
        Output::Event(Event::Storage(None)) => "well",
        Output::Event(Event::Completed) => "completed",
        Output::Job(_) | Output::Event(_) => panic!("{output:?}"),
    };
    words.to_owned()
}

fn full() -> StorageFault {
    StorageFault::Full { place: "here".to_owned(), missing_len: None }
}

fn at(millis: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(millis)
}

#[test]
fn a_full_disk_is_tried_again_with_the_same_piece() {
    let mut lifecycle = lifecycle();
    let mut piece = whole(&mut lifecycle, 3);
    for second in 0..3 {
        lifecycle.not_stored(at(second * 1_000), piece, full());
        let told = if second == 0 { &["fault"][..] } else { &[] };
        assert_eq!(outputs(&mut lifecycle), told, "once");
        lifecycle.handle_timeout(at(second * 1_000 + 999));
        assert_eq!(outputs(&mut lifecycle), [""; 0]);
        assert_eq!(lifecycle.poll_timeout(), Some(at(second * 1_000 + 1_000)));
        lifecycle.handle_timeout(at(second * 1_000 + 1_000));
        piece = match lifecycle.poll_output() {
            Some(Output::Job(Job::Store(whole))) => whole,
            other => panic!("{other:?}"),
        };
        let blocks = [0, 1, 2, 3].map(Held::Memory);
        assert!(piece.piece == 3 && piece.blocks == blocks && lifecycle.is_busy());
    }
    lifecycle.stored(at(3_100), 3);
    assert_eq!(outputs(&mut lifecycle), ["well"]);
}

#[test]
fn a_disk_whose_syncs_fail_stays_faulty() {
    let mut lifecycle = lifecycle();
    let _ = whole(&mut lifecycle, 0);
    lifecycle.stored(at(0), 0);
    lifecycle.handle_timeout(at(2_000));
    assert_eq!(outputs(&mut lifecycle), ["commit"]);
    lifecycle.committed(at(2_000), Err(full()));
    assert_eq!(outputs(&mut lifecycle), ["fault"]);
    let _ = whole(&mut lifecycle, 1);
    lifecycle.handle_timeout(at(3_000));
    lifecycle.stored(at(3_100), 1);
    assert_eq!(outputs(&mut lifecycle), [""; 0], "what was written before is still not durable");
    lifecycle.handle_timeout(at(4_000));
    assert_eq!(outputs(&mut lifecycle), ["commit"]);
    lifecycle.committed(at(4_000), Ok(()));
    assert_eq!(outputs(&mut lifecycle), ["well"]);
}

/// Content with pieces of 32 blocks.
fn slow() -> Lifecycle<u8> {
    ready(slow_geometry())
}

fn slow_geometry() -> Geometry {
    Geometry::new(10 << 19, 1 << 19).unwrap()
}

/// Receives blocks.
fn keep(lifecycle: &mut Lifecycle<u8>, millis: u64, piece: PieceIndex, indices: std::ops::Range<u32>) {
    for index in indices {
        lifecycle.handle_block(at(millis), slow_geometry().block(piece, index), index as u8);
    }
}

fn spill(lifecycle: &mut Lifecycle<u8>) -> Spill<u8> {
    match lifecycle.poll_output() {
        Some(Output::Job(Job::Spill(spill))) => spill,
        other => panic!("{other:?}"),
    }
}

#[test]
fn blocks_of_an_incomplete_piece_are_written_after_a_second_and_durable_after_two() {
    let mut lifecycle = slow();
    keep(&mut lifecycle, 0, 3, 0..1);
    keep(&mut lifecycle, 900, 3, 1..20);
    assert_eq!(lifecycle.poll_timeout(), Some(at(1_000)));
    lifecycle.handle_timeout(at(1_000));
    let spill = spill(&mut lifecycle);
    assert!(lifecycle.is_busy() && spill.blocks.len() == 20);
    lifecycle.spilled(at(1_100), spill, &[7; 20]);
    assert_eq!(lifecycle.poll_timeout(), Some(at(2_100)));
    lifecycle.handle_timeout(at(2_100));
    assert_eq!(outputs(&mut lifecycle), ["commit"]);
    keep(&mut lifecycle, 2_200, 3, 20..32);
    lifecycle.handle_whole(3, false);
    let Some(Output::Job(Job::Store(whole))) = lifecycle.poll_output() else { panic!("it is whole") };
    let is_right = |(at, held): (usize, &Held<u8>)| match *held {
        Held::Disk(crc) => at < 20 && crc == 7,
        Held::Memory(content) => at >= 20 && usize::from(content) == at,
    };
    assert!(whole.blocks.len() == 32 && whole.blocks.iter().enumerate().all(is_right));
}

#[test]
fn blocks_that_could_not_be_spilled_are_stored_with_their_complete_piece() {
    let mut lifecycle = slow();
    keep(&mut lifecycle, 0, 3, 0..16);
    keep(&mut lifecycle, 0, 4, 0..16);
    lifecycle.handle_timeout(at(1_000));
    let (third, fourth) = (spill(&mut lifecycle), spill(&mut lifecycle));
    keep(&mut lifecycle, 1_050, 4, 16..32);
    lifecycle.handle_whole(4, false);
    assert_eq!(outputs(&mut lifecycle), [""; 0], "blocks of it are at the disk");
    lifecycle.not_spilled(at(1_100), third, full());
    lifecycle.not_spilled(at(1_100), fourth, full());
    assert_eq!(outputs(&mut lifecycle), ["fault", "store 4 of 32"]);
    assert_eq!(lifecycle.poll_timeout(), Some(at(2_100)), "not before");
    lifecycle.stored(at(1_200), 4);
    assert_eq!(outputs(&mut lifecycle), [""; 0], "some are still waiting");
    lifecycle.handle_timeout(at(2_100));
    let third = spill(&mut lifecycle);
    lifecycle.spilled(at(2_200), third, &[7; 16]);
    assert_eq!(outputs(&mut lifecycle), ["well"]);
    assert_eq!(lifecycle.poll_timeout(), Some(at(3_200)), "old ones are durable with the next commit");
}

#[test]
fn leaving_spills_every_block() {
    let mut lifecycle = slow();
    keep(&mut lifecycle, 0, 3, 0..1);
    keep(&mut lifecycle, 0, 5, 1..2);
    lifecycle.spill_all();
    keep(&mut lifecycle, 0, 3, 2..4);
    let (third, fifth) = (spill(&mut lifecycle), spill(&mut lifecycle));
    lifecycle.spill_all();
    assert_eq!(outputs(&mut lifecycle), [""; 0], "one after the other");
    lifecycle.spilled(at(0), third, &[7]);
    lifecycle.not_spilled(at(0), fifth, full());
    assert_eq!(outputs(&mut lifecycle), ["fault"]);
    lifecycle.spill_all();
    assert!(!lifecycle.is_busy(), "leaving does not wait for a disk that accepts nothing");
}

#[test]
fn a_failed_read_clears_at_the_next_retry() {
    let mut lifecycle = lifecycle();
    lifecycle.failed(at(0), StorageFault::Failed("broken".to_owned()));
    lifecycle.handle_timeout(at(1_000));
    assert_eq!(outputs(&mut lifecycle), ["fault", "well"]);
}

#[test]
fn content_completes_when_durable_and_a_failed_finish_is_tried_again_alone() {
    let mut lifecycle = lifecycle();
    lifecycle.complete();
    lifecycle.complete();
    assert_eq!(outputs(&mut lifecycle), ["finish"], "once");
    lifecycle.failed(at(0), full());
    lifecycle.handle_timeout(at(1_000));
    assert_eq!(outputs(&mut lifecycle), ["fault", "well"], "one is under way");
    lifecycle.finished(at(1_500), Err(full()));
    lifecycle.handle_timeout(at(2_500));
    assert_eq!(outputs(&mut lifecycle), ["fault", "finish"]);
    lifecycle.finished(at(2_600), Ok(()));
    assert_eq!(outputs(&mut lifecycle), ["well", "completed"]);
    assert_eq!(lifecycle.completion(), Completion::Finished(at(2_600)));
    assert!(!lifecycle.reopen(), "what was complete is left alone");
    assert_eq!(lifecycle.completion(), Completion::Finished(at(2_600)));
}

#[test]
fn a_piece_lost_while_finishing_makes_the_running_finish_stale() {
    let mut lifecycle = lifecycle();
    lifecycle.complete();
    assert_eq!(outputs(&mut lifecycle), ["finish"]);
    assert!(lifecycle.reopen(), "it is to be fetched again");
    assert_eq!(lifecycle.completion(), Completion::Missing);
    let _ = whole(&mut lifecycle, 4);
    lifecycle.stored(at(100), 4);
    lifecycle.complete();
    assert_eq!(outputs(&mut lifecycle), [""; 0], "the first one is still under way");
    lifecycle.finished(at(200), Ok(()));
    assert_eq!(outputs(&mut lifecycle), ["finish"], "that one did not see the last piece");
    lifecycle.finished(at(300), Ok(()));
    assert_eq!(outputs(&mut lifecycle), ["completed"]);
}

#[test]
fn a_failed_finish_is_not_tried_again_while_a_piece_is_missing() {
    let mut lifecycle = lifecycle();
    lifecycle.complete();
    assert!(lifecycle.reopen());
    lifecycle.finished(at(0), Err(full()));
    lifecycle.handle_timeout(at(1_000));
    assert_eq!(outputs(&mut lifecycle), ["finish", "fault", "well"]);
}
