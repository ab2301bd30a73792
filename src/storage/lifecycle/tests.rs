//! Tests of the lifecycle on a real disk, with jobs that run at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::proto::time::Duration;
use crate::storage::content::StorageError;
use crate::storage::fs::RealFs;
use crate::storage::handles::Handles;
use crate::storage::journal::{Journal, Owner};
use crate::storage::testing::{Sample, sample};

/// A folder, a state folder and a torrent of five pieces in two files.
struct Place {
    folder: tempfile::TempDir,
    state: tempfile::TempDir,
    sample: Sample,
}

/// Content whose jobs run at once.
struct Running<'a> {
    place: &'a Place,
    store: Store<RealFs>,
    lifecycle: Lifecycle<Vec<u8>>,
    now: Instant,
    /// Events, in words.
    log: Vec<String>,
}

impl Place {
    fn new() -> Self {
        let [folder, state] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        Self { folder, state, sample: sample(&[("a", 50_000), ("b", 30_000)], 16_384) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn journal(&self) -> Result<Option<Journal<RealFs>>, StorageError> {
        let Sample { info, .. } = &self.sample;
        let owner =
            Owner { infohash: info.infohash, geometry: info.geometry, file_count: info.files.len() as u32 };
        let fs = Arc::new(RealFs::open(self.state.path(), &Handles::new(4))?);
        Journal::open(fs, vec!["journal".to_owned()], owner).map(Some)
    }

    fn begin(&self, plan: Plan, selected: &[bool]) -> Running<'_> {
        let store = Store::new(self.sample.content(self.folder.path(), selected));
        let lifecycle = Lifecycle::new(&store, plan, Instant::ZERO);
        Running { place: self, store, lifecycle, now: Instant::ZERO, log: Vec::new() }
    }

    /// A torrent that has started.
    fn start(&self, purpose: Purpose, selected: &[bool]) -> Running<'_> {
        let mut running = self.begin(Plan { purpose, ..Plan::default() }, selected);
        running.run();
        running
    }

    /// A download that is complete and closed.
    fn complete(&self) {
        let mut running = self.start(Purpose::Download, &[]);
        running.store(&[0, 1, 2, 3, 4]);
        running.lifecycle.handle_complete();
        running.leave();
    }
}

impl Running<'_> {
    /// Runs all jobs at once.
    fn run(&mut self) {
        while let Some(event) = self.step() {
            let said = match event {
                Event::Started(started) => format!("started with {}", started.have.count()),
                Event::Refused(Refusal::Foreign(foreign)) => format!("{} foreign", foreign.len()),
                Event::Refused(Refusal::Incomplete { missing_len, .. }) => format!("{missing_len} missing"),
                Event::Refused(refusal @ Refusal::Obstacle { .. }) => refusal.to_string(),
                Event::Failed(_) => "failed".to_owned(),
                Event::Piece(piece, PieceResult::Good(_)) => format!("good {piece}"),
                Event::Piece(piece, _) => format!("bad {piece}"),
                Event::Lost { lost, is_fetching } => format!("lost {}, fetch: {is_fetching}", lost.len()),
                Event::LossNoted(pieces) => format!("noted {pieces:?}"),
                Event::Storage(fault) => if fault.is_some() { "fault" } else { "well" }.to_owned(),
                Event::Completed => "completed".to_owned(),
                Event::Ignored(_) => "ignored".to_owned(),
                Event::Closed(error) => format!("closed, error: {}", error.is_some()),
            };
            self.log.push(said);
        }
    }

    /// Runs jobs until the next event.
    fn step(&mut self) -> Option<Event> {
        loop {
            let (place, now) = (self.place, self.now);
            match self.store.run_start(&mut self.lifecycle, now, || place.journal(), |_| ())? {
                Output::Job(Job::Store(whole)) => {
                    let info = &place.sample.info;
                    let read_back = self.store.read_back(&whole).unwrap().unwrap();
                    let blocks = whole.bytes(info.geometry, &read_back);
                    let written = self.store.write_if(true, &whole, &blocks);
                    let result = written.map(|_| PieceResult::Good(None));
                    let result = result.map_err(|error| self.store.explain(error));
                    self.lifecycle.handle_stored(now, whole, result);
                }
                Output::Job(Job::Spill(spill)) => {
                    let written = self.store.write_blocks(spill.piece, &spill.blocks);
                    let written = written.map_err(|error| self.store.explain(error));
                    self.lifecycle.handle_spilled(now, spill, written);
                }
                Output::Event(event) => return Some(event),
                Output::Job(Job::Run(_) | Job::Check(_)) => unreachable!("a start runs them"),
            }
        }
    }

    fn receive(&mut self, piece: PieceIndex) {
        let block = self.place.sample.info.geometry.block(piece, 0);
        self.lifecycle.handle_block(self.now, block, self.place.sample.piece(piece).to_vec());
    }

    fn store(&mut self, pieces: &[PieceIndex]) {
        for &piece in pieces {
            self.receive(piece);
            self.lifecycle.handle_whole(piece, false);
            self.run();
        }
    }

    fn wait(&mut self, span: Duration) {
        self.now += span;
        self.lifecycle.handle_timeout(self.now);
        self.run();
    }

    fn leave(&mut self) {
        self.lifecycle.handle_leave();
        self.run();
    }

    fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

fn lost(piece: PieceIndex) -> Vec<LostPiece> {
    vec![LostPiece { piece, path: PathBuf::from("a"), why: "changed".to_owned() }]
}

#[test]
fn a_download_completes_when_durable_and_the_next_start_reads_nothing() {
    let place = Place::new();
    let mut running = place.start(Purpose::Download, &[]);
    running.store(&[0, 1, 2, 3, 4]);
    assert_eq!(running.said(), ["started with 0", "good 0", "good 1", "good 2", "good 3", "good 4"]);
    running.lifecycle.handle_complete();
    running.run();
    assert_eq!(running.said(), ["completed"]);
    running.leave();
    assert_eq!(running.said(), ["closed, error: false"]);
    assert_eq!(running.lifecycle.poll_timeout(), None);
    let mut again = place.begin(Plan::default(), &[]);
    let mut hashed_count = 0;
    let inspect = |done: &StepDone| {
        if let StepDone::Begun(Ok(begun)) = done {
            hashed_count = begun.to_hash.count();
        }
    };
    let started = again.store.run_start(&mut again.lifecycle, again.now, || place.journal(), inspect);
    assert!(matches!(started, Some(Output::Event(Event::Started(started))) if started.have.is_full()));
    assert_eq!(hashed_count, 0);
}

#[test]
fn a_lost_piece_is_fetched_after_the_journal_has_dropped_it() {
    let place = Place::new();
    let mut running = place.start(Purpose::Download, &[]);
    running.store(&[0, 1]);
    running.said();
    running.lifecycle.handle_lost(lost(1));
    running.lifecycle.handle_lost(lost(1));
    assert!(!running.lifecycle.have().get(1));
    running.run();
    assert_eq!(running.said(), ["lost 1, fetch: true", "noted [1]"]);
    running.store(&[1, 2, 3, 4]);
    running.lifecycle.handle_complete();
    running.run();
    running.said();
    running.lifecycle.handle_lost(lost(2));
    running.run();
    assert_eq!(running.said(), ["lost 1, fetch: false", "noted [2]"], "complete content is left as it is");
}

#[test]
fn losing_an_unwanted_piece_leaves_the_content_complete() {
    let place = Place::new();
    place.complete();
    // Only the first file is wanted; the last piece is present and not wanted.
    let mut running = place.start(Purpose::Download, &[true, false]);
    assert_eq!(running.said()[0], "started with 5");
    running.lifecycle.handle_lost(lost(4));
    running.run();
    assert_eq!(running.lifecycle.have().count(), 4);
    assert!(matches!(running.lifecycle.completion(), Completion::Finished(_)), "{:?}", running.said());
}

#[test]
fn leaving_writes_blocks_records_losses_and_then_closes() {
    let place = Place::new();
    let mut running = place.start(Purpose::Download, &[]);
    running.store(&[0, 1]);
    running.receive(3);
    running.lifecycle.handle_lost(lost(1));
    running.said();
    running.leave();
    assert_eq!(running.said(), ["lost 1, fetch: true", "noted [1]", "closed, error: false"]);
    let mut again = place.begin(Plan::default(), &[]);
    let Some(Event::Started(started)) = again.step() else { panic!("it does not start") };
    let partial: Vec<_> = started.partial.iter().map(|partial| partial.piece).collect();
    assert_eq!((started.have.iter_set().collect::<Vec<_>>(), partial), (vec![0], vec![3]));
}

#[test]
fn leaving_waits_for_every_job_and_reports_a_failed_commit() {
    let place = Place::new();
    let mut running = place.start(Purpose::Download, &[]);
    running.store(&[0]);
    running.said();
    // A commit is due and its job is running.
    running.now += Duration::from_secs(60);
    running.lifecycle.handle_timeout(running.now);
    assert!(matches!(running.lifecycle.poll_output(), Some(Output::Job(Job::Run(Step::Commit)))));
    running.lifecycle.handle_leave();
    assert!(running.lifecycle.poll_output().is_none(), "the commit runs");
    let error = StorageError::new(Path::new("a"), std::io::Error::from_raw_os_error(5));
    let error = running.store.explain(error);
    running.lifecycle.handle_step(running.now, StepDone::Committed(Err(error)));
    running.run();
    let said = running.said();
    assert_eq!(said.last().map(String::as_str), Some("closed, error: false"), "{said:?}");
    assert_eq!(place.start(Purpose::Download, &[]).said()[0], "started with 1", "closing made it durable");
}

#[test]
fn starts_refuse_incomplete_seeds_and_foreign_files_without_writing() {
    let place = Place::new();
    assert_eq!(place.start(Purpose::Seed, &[]).said(), ["80000 missing"]);
    std::fs::write(place.path("a"), vec![7; 50_000]).unwrap();
    assert_eq!(place.start(Purpose::Download, &[]).said(), ["1 foreign"]);
    assert_eq!(std::fs::read(place.path("a")).unwrap(), vec![7; 50_000]);
    assert!(!place.path("b").exists());
    assert_eq!(place.start(Purpose::Overwrite, &[]).said(), ["started with 0"]);
}

#[test]
fn a_seed_completes_at_once_and_an_assumed_one_reads_nothing() {
    let place = Place::new();
    let existing = Existing::Assumed;
    let mut assumed = place.begin(Plan { purpose: Purpose::Seed, existing, preallocate: false }, &[]);
    assumed.run();
    assert_eq!(assumed.said(), ["started with 5", "completed"]);
    assumed.leave();
    assert_eq!(assumed.said(), ["closed, error: false"]);
    place.complete();
    assert_eq!(place.start(Purpose::Seed, &[]).said(), ["started with 5", "completed"]);
}

#[test]
fn a_start_waits_for_an_ending_seed_but_not_for_a_download() {
    let place = Place::new();
    let writer = place.start(Purpose::Download, &[]);
    let mut waiting = place.start(Purpose::Download, &[]);
    for _ in 0..3 {
        assert_eq!(waiting.said(), [""; 0]);
        assert_eq!(waiting.lifecycle.poll_timeout(), Some(waiting.now + STORAGE_RETRY));
        waiting.wait(STORAGE_RETRY);
    }
    assert_eq!(waiting.said(), ["failed"]);
    assert_eq!(waiting.lifecycle.poll_timeout(), None);
    let mut waiting = place.start(Purpose::Download, &[]);
    drop(writer);
    waiting.wait(STORAGE_RETRY);
    assert_eq!(waiting.said(), ["started with 0"]);
}

#[test]
fn a_start_waits_while_the_disk_is_full_and_reports_it_once() {
    let place = Place::new();
    let mut running = place.begin(Plan::default(), &[]);
    let full = |running: &Running<'_>| {
        let error = StorageError::new(&place.path("a"), std::io::ErrorKind::StorageFull);
        StepDone::Prepared(Err(running.store.explain(error)))
    };
    loop {
        match running.lifecycle.poll_output() {
            Some(Output::Job(Job::Run(Step::Prepare { .. }))) => break,
            Some(Output::Job(Job::Run(step))) => {
                let done = running.store.run(step, || place.journal());
                running.lifecycle.handle_step(running.now, done);
            }
            other => panic!("{other:?}"),
        }
    }
    for _ in 0..3 {
        let done = full(&running);
        running.lifecycle.handle_step(running.now, done);
        let fault = running.lifecycle.fault().unwrap();
        assert!(matches!(fault, StorageFault::Full { place, .. } if place.starts_with('/')), "{fault:?}");
        running.now = running.lifecycle.poll_timeout().unwrap();
        running.lifecycle.handle_timeout(running.now);
        let told = running.lifecycle.poll_output();
        if matches!(told, Some(Output::Event(Event::Storage(Some(_))))) {
            assert!(matches!(
                running.lifecycle.poll_output(),
                Some(Output::Job(Job::Run(Step::Prepare { .. })))
            ));
        }
    }
    let (store, now) = (&running.store, running.now);
    let step =
        Step::Prepare { have: running.lifecycle.have().clone(), misfits: Vec::new(), preallocate: false };
    let done = store.run(step, || Ok(None));
    running.lifecycle.handle_step(now, done);
    running.run();
    assert_eq!(running.said(), ["well", "started with 0"]);
}
