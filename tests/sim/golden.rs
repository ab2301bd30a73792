//! Figures of simulated swarms, which a change keeps unless it means to change them:
//! `fixtures/golden/swarms.txt`.
//!
//! Each row has the figures of one scenario to two digits, and the digest of every event in its
//! order. The digest is the same in every repetition, in debug and in release builds. A change of
//! behaviour changes it: look at the figures that the test prints, and if they are meant, write the
//! table anew:
//!
//!     SPRAT_GOLDEN=write cargo test --test sim golden

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use sprat::proto::session::Limits;
use sprat::sim::disk::{Faults, Model};
use sprat::sim::scenario::{Ending, LifePlan, MachinePlan, Report, Role, Tracker, Users, Variations};
use sprat::sim::{Line, Reveal, Scenario, Swarm};

/// Long past the end of every scenario here.
const LIMIT: Duration = Duration::from_secs(3_600);

/// The figures of a row, in the order of the table. More is worse, of each.
const FIGURES: [&str; 6] = ["last s", "median s", "of bound", "copies", "news B", "wasted MB"];

/// A crowd of a size that runs in a second or two.
fn crowd() -> Scenario {
    Scenario { peers: 24, piece_count: 128, piece_len: 128 << 10, ..Scenario::default() }
}

fn varied(variations: Variations) -> Scenario {
    Scenario { variations, ..crowd() }
}

/// Leechers of other kinds, on lines faster than the seed's limit.
fn foreign(free_riders: usize) -> Scenario {
    let line = Line { up_rate: 20_000_000, down_rate: 20_000_000 };
    let variations = Variations { foreign_peers: true, seed_limit: Some(2_000_000), ..Variations::default() };
    Scenario {
        peers: 4,
        free_riders,
        piece_count: 128,
        piece_len: 128 << 10,
        seed_line: line,
        peer_line: line,
        latency: Duration::from_millis(1),
        variations,
        ..Scenario::default()
    }
}

/// Half of the peers lose power within the same second, and come back 5 s later.
fn mass_restart() -> Scenario {
    let life = LifePlan {
        content: Faults::default(),
        journal: Faults::default(),
        length: Some(Duration::from_secs(10)),
        ending: Ending::PowerCut,
        rest: Duration::from_secs(5),
    };
    let machine = |number: u64| {
        let length = Some(Duration::from_secs(10) + Duration::from_millis(100 * number));
        MachinePlan { model: Model::Ordered, apart: false, lives: vec![LifePlan { length, ..life.clone() }] }
    };
    Scenario { peers: 12, machines: (0..6).map(machine).collect(), ..crowd() }
}

/// Half of the peers come when the tracker does not answer any more: they have the DHT, or come
/// early enough to be told of others by peers. The content is large enough that they meet.
fn tracker_dies(variations: Variations) -> Scenario {
    let variations = Variations { tracker: dies_at(Duration::from_secs(30)), ..variations };
    let arrivals = Duration::from_secs(if variations.dht { 60 } else { 30 });
    Scenario { arrivals, variations, ..crowd() }
}

/// Three torrents of each host share its line, its connections and its limit on upload.
fn three_torrents() -> Scenario {
    let limits = Limits { upload_rate_max: Some(800_000), connection_max: 60, ..Limits::default() };
    let variations = Variations { more_torrents: 2, limits: Some(limits), ..Variations::default() };
    Scenario { peers: 12, piece_count: 64, variations, ..crowd() }
}

/// One in ten datagrams of announces is lost, as of segments.
fn udp_tracker() -> Scenario {
    let variations = Variations { tracker: Tracker { udp: true, dies_at: None }, ..Variations::default() };
    Scenario { loss: 0.1, variations, ..crowd() }
}

/// No tracker ever answers: peers find each other by BEP 14.
fn local_network() -> Scenario {
    varied(Variations { lsd: true, tracker: dies_at(Duration::ZERO), ..Variations::default() })
}

fn dies_at(span: Duration) -> Tracker {
    Tracker { udp: false, dies_at: Some(span) }
}

/// The rows, by name.
fn scenarios() -> BTreeMap<&'static str, Scenario> {
    let super_seeding = |reveal| Variations { super_seeding: Some(reveal), ..Variations::default() };
    let few = |scenario: Scenario| Scenario { peers: 5, piece_count: 64, ..scenario };
    let fast = Line { up_rate: 100_000_000, down_rate: 100_000_000 };
    BTreeMap::from([
        ("flash crowd", crowd()),
        ("arrivals within 60 s", Scenario { arrivals: Duration::from_secs(60), ..crowd() }),
        ("seed leaves", varied(Variations { seeds_leave: true, ..Variations::default() })),
        ("complete peers leave", varied(Variations { complete_leave: true, ..Variations::default() })),
        ("free riders, one in five", Scenario { peers: 20, free_riders: 5, ..crowd() }),
        ("liars", Scenario { poisoners: 4, poison: 0.3, ..crowd() }),
        ("loss of 2 %", Scenario { loss: 0.02, ..crowd() }),
        ("plain HAVEs", varied(Variations { plain_haves: true, ..Variations::default() })),
        ("fast network", Scenario { seed_line: fast, peer_line: fast, peers: 8, ..crowd() }),
        ("foreign leechers", foreign(0)),
        ("foreign leechers and a free rider", foreign(1)),
        ("super seed of libtorrent", few(varied(super_seeding(Reveal::WhenDownloaded)))),
        ("super seed of rtorrent", few(varied(super_seeding(Reveal::WhenShared)))),
        ("mass restart", mass_restart()),
        ("magnets", varied(Variations { magnets: true, ..Variations::default() })),
        ("three torrents with limits", three_torrents()),
        ("pauses", varied(Variations { users: Some(Users::Pause), ..Variations::default() })),
        (
            "selections that change",
            varied(Variations { users: Some(Users::Select), ..Variations::default() }),
        ),
        ("NATs before every second peer", varied(Variations { nats: true, ..Variations::default() })),
        ("UDP tracker, loss of 10 %", udp_tracker()),
        ("local network alone", local_network()),
        ("tracker dies, gossip", tracker_dies(Variations { pex: true, ..Variations::default() })),
        ("tracker dies, DHT", tracker_dies(Variations { dht: true, ..Variations::default() })),
    ])
}

/// Two digits that count, as people write them.
fn two_digits(figure: f64) -> String {
    if figure < 0.005 {
        return "0".to_owned();
    }
    let decimals = (1 - figure.log10().floor() as i32).max(0) as usize;
    let scale = 10_f64.powi(1 - figure.log10().floor() as i32);
    format!("{:.decimals$}", (figure * scale).round() / scale)
}

fn figures(scenario: &Scenario, report: &Report) -> [String; FIGURES.len()] {
    let mut times: Vec<Duration> =
        report.completions(Role::Peer).into_iter().map(|time| time.expect("all complete")).collect();
    times.sort_unstable();
    let last = times.last().expect("there are peers").as_secs_f64();
    let limit = scenario.variations.seed_limit;
    let at_limit = limit.map_or(0.0, |limit| scenario.total_len() as f64 / limit as f64);
    let wasted: u64 = report.hosts.iter().map(|host| host.wasted).sum();
    [
        last,
        times[times.len() / 2].as_secs_f64(),
        last / report.bound.as_secs_f64().max(at_limit),
        report.hosts[0].uploaded as f64 / scenario.total_len() as f64,
        report.availability_per_peer_and_piece(scenario.piece_count),
        wasted as f64 / 1e6,
    ]
    .map(two_digits)
}

/// Runs all, one thread a scenario; its row by its name.
fn rows() -> BTreeMap<String, String> {
    let row = |scenario: &Scenario| {
        let report = Swarm::new(scenario.clone()).run(LIMIT);
        let mut row = String::new();
        figures(scenario, &report).iter().for_each(|figure| _ = write!(row, "{figure:>10}"));
        format!("{row}  {:016x}", report.trace_digest)
    };
    std::thread::scope(|scope| {
        let run = |(name, scenario): (&'static str, Scenario)| {
            (name.to_owned(), scope.spawn(move || row(&scenario)))
        };
        let running: Vec<_> = scenarios().into_iter().map(run).collect();
        running
            .into_iter()
            .map(|(name, row)| (name, row.join().expect("the run keeps its promises")))
            .collect()
    })
}

fn table(rows: &BTreeMap<String, String>) -> String {
    let mut table = format!("{:<34}", "scenario");
    FIGURES.iter().for_each(|figure| _ = write!(table, "{figure:>10}"));
    table.push_str("  digest\n");
    rows.iter().for_each(|(name, row)| _ = writeln!(table, "{name:<34}{row}"));
    table
}

#[test]
fn swarms_keep_the_figures_of_the_golden_table() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/golden/swarms.txt");
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let table = table(&rows());
    if kept == table {
        return;
    }
    let changed = table.lines().filter(|line| !kept.lines().any(|old| old == *line));
    let changed: Vec<_> = changed.collect();
    let before = kept.lines().filter(|line| !table.lines().any(|new| new == *line));
    let before: Vec<_> = before.collect();
    let what = format!("before:\n{}\nnow:\n{}", before.join("\n"), changed.join("\n"));
    if std::env::var("SPRAT_GOLDEN").as_deref() == Ok("write") {
        std::fs::write(&path, &table).expect("the table is written");
        println!("{what}");
        return;
    }
    panic!("{what}\nIf that is meant: SPRAT_GOLDEN=write cargo test --test sim golden");
}
