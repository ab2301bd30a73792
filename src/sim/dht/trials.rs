//! The trials: somebody announces, and later somebody else looks it up.
//!
//! A lookup has found what it was for if the very address that was announced is among the peers it
//! was told. A trial whose announcer or seeker leaves in the middle of it is no trial.

use std::net::SocketAddr;

use super::network::HostId;
use super::report::{Lookups, Spread, Tally};
use super::scenario::Scenario;
use crate::proto::dht::event::{Announce, Outcome, Request, RequestId};
use crate::proto::infohash::InfoHash;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Announces for one infohash: few enough to fit into one answer, so that it can be told which were
/// found.
const ANNOUNCES_OF_ONE_TARGET: usize = 40;
/// First port that is announced; each announce has another one, so that it can be told from others.
const PORT_MIN: u16 = 20_000;
/// How many different ports.
const PORT_COUNT: usize = 40_000;

/// Which step of which trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The announce of this number.
    Announce(u32),
    /// The lookup of this number.
    LookUp(u32),
}

/// Who takes part: a host, and which of those who have been there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Party {
    pub(super) host: HostId,
    pub(super) generation: u32,
    /// In which half of the network.
    pub(super) is_east: bool,
}

#[derive(Debug)]
struct AnnounceTrial {
    infohash: InfoHash,
    /// Who, and under which address.
    announced: Option<(Party, SocketAddr)>,
    /// How many nodes took it, and how many were asked; None: not over yet.
    outcome: Option<(u32, u32)>,
}

#[derive(Debug)]
struct LookupTrial {
    announce: u32,
    /// Who, and since when; None: did not begin.
    begun: Option<(Party, Instant)>,
    found_after: Option<Duration>,
    outcome: Option<Outcome>,
}

/// All trials of a run.
#[derive(Debug)]
pub(super) struct Trials {
    announces: Vec<AnnounceTrial>,
    lookups: Vec<LookupTrial>,
    work_at: Instant,
}

impl Trials {
    /// The trials of a scenario, and when their steps are.
    pub(super) fn new(scenario: &Scenario, mut rng: Rng) -> (Self, Vec<(Instant, Step)>) {
        let (work_at, plan) = (scenario.work_at(), scenario.plan);
        let latest = plan.work.saturating_sub(plan.gap);
        let mut trials = Self { announces: Vec::new(), lookups: Vec::new(), work_at };
        let (mut steps, mut announced) = (Vec::new(), Vec::new());
        let target = draw_infohash(&mut rng);
        // Of one target all is announced early, so that lookups can be about any of it.
        let (count, latest) = if scenario.one_target() {
            (ANNOUNCES_OF_ONE_TARGET.min(scenario.trials), latest / 4)
        } else {
            (scenario.trials, latest)
        };
        for number in 0..count {
            let infohash = if scenario.one_target() { target } else { draw_infohash(&mut rng) };
            let at = work_at + latest.mul_f64(rng.unit());
            announced.push(at);
            steps.push((at, Step::Announce(number as u32)));
            trials.announces.push(AnnounceTrial { infohash, announced: None, outcome: None });
        }
        for number in 0..scenario.trials {
            let announce = number % count;
            let from = announced[announce] + plan.gap;
            let late = if scenario.one_target() { (work_at + plan.work) - from } else { Duration::ZERO };
            steps.push((from + late.mul_f64(rng.unit()), Step::LookUp(number as u32)));
            let announce = announce as u32;
            trials.lookups.push(LookupTrial { announce, begun: None, found_after: None, outcome: None });
        }
        (trials, steps)
    }

    /// What all trials are about, if they are about one thing.
    pub(super) fn target(&self) -> InfoHash {
        self.announces.first().map_or(InfoHash([0; 20]), |first| first.infohash)
    }

    /// Begins an announce by this host, which others see at this address.
    pub(super) fn announce(&mut self, number: u32, by: Party, place: SocketAddr) -> (RequestId, Request) {
        let port = PORT_MIN + (number as usize % PORT_COUNT) as u16;
        let trial = &mut self.announces[number as usize];
        trial.announced = Some((by, SocketAddr::new(place.ip(), port)));
        let announce = Some(Announce { port: Some(port), seed: false });
        let request = Request::Peers { infohash: trial.infohash, announce, scrape: false };
        (RequestId(u64::from(number) * 2), request)
    }

    /// Who announced what this lookup is for; None: there is nothing to look up.
    pub(super) fn announcer(&self, number: u32) -> Option<Party> {
        let trial = &self.announces[self.lookups[number as usize].announce as usize];
        trial.outcome?;
        trial.announced.map(|(party, _)| party)
    }

    /// Begins a lookup by this host.
    pub(super) fn look_up(&mut self, now: Instant, number: u32, by: Party) -> (RequestId, Request) {
        let trial = &mut self.lookups[number as usize];
        trial.begun = Some((by, now));
        let infohash = self.announces[trial.announce as usize].infohash;
        (RequestId(u64::from(number) * 2 + 1), Request::Peers { infohash, announce: None, scrape: false })
    }

    /// A host was told of peers.
    pub(super) fn peers(&mut self, now: Instant, request: RequestId, peers: &[SocketAddr]) {
        let number = (request.0 / 2) as usize;
        let Some(trial) = self.lookups.get_mut(number).filter(|_| !request.0.is_multiple_of(2)) else {
            return;
        };
        let announced = self.announces[trial.announce as usize].announced;
        let is_it = announced.is_some_and(|(_, addr)| peers.contains(&addr));
        if is_it && let Some((_, began_at)) = trial.begun {
            trial.found_after.get_or_insert(now - began_at);
        }
    }

    /// A request is over.
    pub(super) fn done(&mut self, request: RequestId, outcome: Outcome) {
        let number = (request.0 / 2) as usize;
        if request.0.is_multiple_of(2) {
            self.announces[number].outcome = Some((outcome.stored, outcome.asked));
        } else {
            self.lookups[number].outcome = Some(outcome);
        }
    }

    /// How all of it went; `is_there` says whether who took part is still who is there.
    pub(super) fn conclude(&self, is_there: impl Fn(Party) -> bool) -> Lookups {
        let mut lookups = Lookups::default();
        let [mut hops, mut took, mut found, mut messages] = [const { Vec::new() }; 4];
        for trial in &self.lookups {
            let Some((party, began_at)) = trial.begun else { continue };
            if trial.outcome.is_none() && !is_there(party) {
                continue;
            }
            let announcer = self.announces[trial.announce as usize].announced.map(|(party, _)| party);
            let crosses = announcer.is_some_and(|announcer| announcer.is_east != party.is_east);
            let minute = (began_at - self.work_at).as_secs() as usize / 60;
            if lookups.minutes.len() <= minute {
                lookups.minutes.resize_with(minute + 1, Default::default);
            }
            let is_found = trial.found_after.is_some();
            lookups.all.count(is_found);
            lookups.minutes[minute][usize::from(crosses)].count(is_found);
            found.extend(trial.found_after.map(|span| span.as_secs_f64()));
            if let Some(outcome) = &trial.outcome {
                hops.push(f64::from(outcome.hops));
                took.push(outcome.took.as_secs_f64());
                messages.push(f64::from(outcome.asked));
            }
        }
        lookups.hops = Spread::of(hops);
        lookups.done_seconds = Spread::of(took);
        lookups.found_seconds = Spread::of(found);
        lookups.queries = Spread::of(messages);
        let announces = self.announces.iter().filter_map(|trial| trial.outcome);
        lookups.stored = Spread::of(announces.clone().map(|(stored, _)| f64::from(stored)).collect());
        lookups.announce_queries =
            Spread::of(announces.map(|(stored, asked)| f64::from(stored + asked)).collect());
        lookups
    }
}

impl Tally {
    fn count(&mut self, is_found: bool) {
        self.done += 1;
        self.found += usize::from(is_found);
    }
}

fn draw_infohash(rng: &mut Rng) -> InfoHash {
    let mut infohash = [0; 20];
    rng.fill(&mut infohash);
    InfoHash(infohash)
}
