//! What was typed: the options as clap reads them, from arguments and `SPRAT_*` variables. What
//! they mean together is decided in `plan`.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::dht_args::DhtArgs;
use super::select::{Selector, parse_name, parse_selector};
use super::size::{PieceLen, Rate, parse_duration, parse_len, parse_piece_len, parse_rate};

/// Distributes files by swarming: everyone who wants a file also hands it on.
#[derive(Debug, Parser)]
#[command(name = "sprat", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

const EXAMPLES: &str = "\
Examples:
  sprat demo                                     watch a whole swarm on this machine
  sprat seed film.mkv --with-tracker             offer a file; prints how others get it
  sprat download film.mkv.torrent                fetch it
  sprat download film.mkv.torrent --peer 192.168.1.5:6881

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the content or torrent is bad, 130 after Ctrl-C, 143 after
SIGTERM and 129 after SIGHUP with the state saved and the swarm told (a seed that is told to stop by SIGTERM: 0).
Every option with a value can also be given as a variable: SPRAT_PORT=6881, SPRAT_DIR=/data, ...
An empty variable counts as not set.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch the content of a torrent
    Download(DownloadArgs),
    /// Offer a file or folder, or the content of a torrent
    Seed(SeedArgs),
    /// Make a .torrent file
    Create(CreateArgs),
    /// Print what a torrent or magnet link says
    Show(ShowArgs),
    /// Check content against its torrent
    Verify(VerifyArgs),
    /// Run a whole swarm on this machine: a tracker, a seed and some peers
    Demo(DemoArgs),
    /// Ask the DHT, or be a node of it
    Dht(DhtArgs),
    /// Run a swarm or a DHT of production peers in virtual time, against its bound
    #[command(subcommand)]
    Simulate(super::simulate::SimulateCommand),
    /// Print the completion script for a shell
    Completions {
        /// For which shell
        shell: Shell,
    },
}

/// How a command speaks.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OutputArgs {
    /// Print nothing but errors
    #[arg(long, global = true, env = "SPRAT_QUIET", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) quiet: bool,
    /// Print one JSON object a line instead of text
    #[arg(long, global = true, env = "SPRAT_JSON", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) json: bool,
    /// Log what happens inside to standard error; twice for more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sprat download film.torrent -d ~/films
  sprat download https://example.org/film.torrent --select '*.mkv' --sequential
  sprat download film.torrent --seed --ratio 2
  sprat download film.torrent --peer 192.168.1.5:6881 --down-limit 8mbit
  sprat download 'magnet:?xt=urn:btih:...'       a link, or 40 digits, is enough

An interrupted download goes on where it was: run the same command again.")]
pub(crate) struct DownloadArgs {
    /// A .torrent file, the http or https address of one, a magnet link or an infohash; `-`:
    /// standard input
    #[arg(value_parser = non_empty())]
    pub(crate) torrent: OsString,
    /// Where the content goes
    #[arg(short, long, env = "SPRAT_DIR", default_value = ".", hide_env = true)]
    pub(crate) dir: PathBuf,
    /// Files to fetch: numbers, ranges (0,2-4), paths or patterns (*.iso); `sprat show` numbers
    /// them
    #[arg(long, env = "SPRAT_SELECT", value_delimiter = ',', value_parser = parse_selector, hide_env = true)]
    pub(crate) select: Vec<Selector>,
    /// A file or folder to download, by its path as `sprat show` prints it; may be repeated
    #[arg(long, env = "SPRAT_SELECT_NAME", value_name = "PATH", value_parser = parse_name, hide_env = true)]
    pub(crate) select_name: Vec<Selector>,
    /// Fetch in order, to look at while it comes, instead of rarest first
    #[arg(long, env = "SPRAT_SEQUENTIAL", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) sequential: bool,
    /// Preallocate disk space for all files
    #[arg(long, env = "SPRAT_PREALLOCATE", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) preallocate: bool,
    /// Write over files that were there before and are not an earlier download of this torrent
    #[arg(long, env = "SPRAT_OVERWRITE", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) overwrite: bool,
    /// Keep seeding when complete, until told to stop
    #[arg(long, env = "SPRAT_SEED", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) seed: bool,
    /// A bar for every file
    #[arg(long, env = "SPRAT_FILES", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) files: bool,
    /// Write the torrent to this file too, as soon as it is known; `-`: to standard output
    #[arg(long, value_name = "FILE", env = "SPRAT_SAVE_TORRENT", hide_env = true)]
    pub(crate) save_torrent: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) leave: LeaveArgs,
    #[command(flatten)]
    pub(crate) swarm: SwarmArgs,
    #[command(flatten)]
    pub(crate) later: LaterArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sprat seed film.mkv                            prints the magnet link that others download by
  sprat seed film.mkv --with-tracker             be the tracker too: downloads need no --peer
  sprat seed film.torrent -d ~/films             the content is in ~/films
  sprat seed torrents/ -d ~/films                every .torrent of a folder")]
pub(crate) struct SeedArgs {
    /// A file or folder; or a .torrent file, magnet link or `-` (a torrent from standard input);
    /// with --dir also a folder of .torrent files
    #[arg(value_parser = non_empty())]
    pub(crate) path: OsString,
    /// Where the content of a torrent is [default: the current folder]
    #[arg(short, long, env = "SPRAT_DIR", hide_env = true)]
    pub(crate) dir: Option<PathBuf>,
    /// Where to write the torrent; `-`: to standard output [default, of a file or folder:
    /// NAME.torrent in the current folder]
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Take the content for complete without reading it
    #[arg(long, env = "SPRAT_ASSUME_COMPLETE", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) assume_complete: bool,
    /// Read through symbolic links in the content, which are left out or refused otherwise
    #[arg(long, env = "SPRAT_FOLLOW_LINKS", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) follow_links: bool,
    /// Answer as a tracker on the same port; ADDR is where others reach this machine
    #[arg(long, value_name = "ADDR", num_args = 0..=1, require_equals = true, default_missing_value = "auto", value_parser = parse_tracker_host, env = "SPRAT_WITH_TRACKER", hide_env = true)]
    pub(crate) with_tracker: Option<TrackerHost>,
    #[command(flatten)]
    pub(crate) leave: LeaveArgs,
    #[command(flatten)]
    pub(crate) swarm: SwarmArgs,
    #[command(flatten)]
    pub(crate) later: LaterArgs,
}

/// Where others reach the embedded tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrackerHost {
    /// At the address from which the system would send to the world.
    Auto,
    At(IpAddr),
}

/// When to stop seeding.
#[derive(Clone, Copy, Debug, Default, Args)]
#[command(next_help_heading = "Leaving")]
pub(crate) struct LeaveArgs {
    /// Seed until so many times the size is sent
    #[arg(long, env = "SPRAT_RATIO", value_parser = parse_ratio, hide_env = true)]
    pub(crate) ratio: Option<f64>,
    /// Seed for so long (30s, 10m, 2h), or until --ratio, whichever is first
    #[arg(long, env = "SPRAT_SEED_TIME", value_name = "TIME", value_parser = parse_duration, hide_env = true)]
    pub(crate) seed_time: Option<Duration>,
}

/// Taking part in a swarm.
#[derive(Debug, Args)]
#[command(next_help_heading = "Swarm")]
pub(crate) struct SwarmArgs {
    /// Port for peers, TCP and UDP; 0: any [default: 6881, or any if that is taken]
    #[arg(short, long, env = "SPRAT_PORT", hide_env = true)]
    pub(crate) port: Option<u16>,
    /// A peer to ask; may be given again
    #[arg(long = "peer", env = "SPRAT_PEER", value_name = "HOST:PORT", value_delimiter = ',', value_parser = parse_host_port, hide_env = true)]
    pub(crate) peers: Vec<String>,
    /// A tracker to ask beside those that the torrent names; may be given again
    #[arg(long = "tracker", env = "SPRAT_TRACKER", value_name = "URL", value_delimiter = ' ', value_parser = parse_tracker, hide_env = true)]
    pub(crate) trackers: Vec<String>,
    /// Send at most so much a second: 8mbit, 1MiB, 500KB; 0: no limit
    #[arg(long, env = "SPRAT_UP_LIMIT", value_name = "RATE", value_parser = parse_rate, hide_env = true)]
    pub(crate) up_limit: Option<Rate>,
    /// Fetch at most so much a second
    #[arg(long, env = "SPRAT_DOWN_LIMIT", value_name = "RATE", value_parser = parse_rate, hide_env = true)]
    pub(crate) down_limit: Option<Rate>,
    /// Most connections of a torrent
    #[arg(long, env = "SPRAT_MAX_PEERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..), hide_env = true)]
    pub(crate) max_peers: Option<u16>,
    /// How often neighbours are told what we gained
    #[arg(long, env = "SPRAT_SWARMING_INTERVAL", value_name = "TIME", default_value = "1s", value_parser = parse_interval, hide_env = true)]
    pub(crate) swarming_interval: Duration,
    #[command(flatten)]
    pub(crate) discovery: DiscoveryArgs,
}

/// Ways to find peers beside trackers; a private torrent uses none of them.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Finding peers")]
pub(crate) struct DiscoveryArgs {
    /// Do not use the DHT
    #[arg(long, env = "SPRAT_NO_DHT", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) no_dht: bool,
    /// Do not exchange addresses with peers
    #[arg(long, env = "SPRAT_NO_PEX", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) no_pex: bool,
    /// Do not look for peers on the local network
    #[arg(long, env = "SPRAT_NO_LSD", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) no_lsd: bool,
    #[command(flatten)]
    pub(crate) bootstrap: BootstrapArgs,
}

/// Where the DHT begins.
#[derive(Clone, Debug, Args)]
pub(crate) struct BootstrapArgs {
    /// A DHT node to ask first if none is known, instead of the public ones; may be given again;
    /// `none`: no node
    #[arg(long, env = "SPRAT_DHT_BOOTSTRAP", value_name = "HOST:PORT", value_delimiter = ',', value_parser = parse_bootstrap, hide_env = true)]
    pub(crate) dht_bootstrap: Vec<String>,
}

/// Options about what sprat does not have yet.
#[derive(Debug, Args)]
#[command(next_help_heading = "Accepted for scripts (sprat has no port forwarding yet)")]
pub(crate) struct LaterArgs {
    /// Do not ask the router to forward the port
    #[arg(long, env = "SPRAT_NO_PORT_FORWARD", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) no_port_forward: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sprat create film.mkv --tracker udp://tracker.example.org:6969/announce
  sprat create folder -o folder.torrent --piece-size 1MiB

The same content and options give the same file, unless --date is given.")]
pub(crate) struct CreateArgs {
    /// A file or folder
    pub(crate) path: PathBuf,
    /// The file to write; `-`: standard output [default: NAME.torrent in the current folder]
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Read through symbolic links in the content, which are left out or refused otherwise
    #[arg(long, env = "SPRAT_FOLLOW_LINKS", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) follow_links: bool,
    /// Bytes a piece, a power of two (262144, 1MiB); auto: about 1,000 to 2,000 pieces
    #[arg(long, value_name = "SIZE", default_value = "auto", value_parser = parse_piece_len)]
    pub(crate) piece_size: PieceLen,
    /// A tracker to name, each a tier of its own; may be given again
    #[arg(long = "tracker", env = "SPRAT_TRACKER", value_name = "URL", value_delimiter = ' ', value_parser = parse_tracker, hide_env = true)]
    pub(crate) trackers: Vec<String>,
    /// An HTTP address that has the content too; may be given again
    #[arg(long = "web-seed", value_name = "URL", value_parser = parse_web_seed)]
    pub(crate) web_seeds: Vec<String>,
    /// Free text
    #[arg(long)]
    pub(crate) comment: Option<String>,
    /// Peers only from its trackers
    #[arg(long)]
    pub(crate) private: bool,
    /// The source key that some private trackers want
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Say when it was made
    #[arg(long)]
    pub(crate) date: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sprat show film.torrent
  sprat show 'magnet:?xt=urn:btih:...'           downloads the metadata from peers, and keeps it
  sprat show 'magnet:?xt=urn:btih:...' -o x.torrent
  sprat show 'magnet:?xt=urn:btih:...' --offline prints what the link says")]
pub(crate) struct ShowArgs {
    /// A .torrent file, the address of one, a magnet link or an infohash; `-`: standard input
    #[arg(value_parser = non_empty())]
    pub(crate) torrent: OsString,
    /// Use no network: print only what the argument itself says
    #[arg(long)]
    pub(crate) offline: bool,
    /// Write the torrent to this file too; `-`: to standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Give up when no metadata arrived for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) swarm: SwarmArgs,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// A .torrent file, the http or https address of one, or a magnet link or infohash whose
    /// metadata is kept here; `-`: standard input
    #[arg(value_parser = non_empty())]
    pub(crate) torrent: OsString,
    /// Where the content is
    #[arg(short, long, env = "SPRAT_DIR", default_value = ".", hide_env = true)]
    pub(crate) dir: PathBuf,
    /// Read through symbolic links in the content, which are left out or refused otherwise
    #[arg(long, env = "SPRAT_FOLLOW_LINKS", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) follow_links: bool,
    /// List the good files too
    #[arg(long, env = "SPRAT_FILES", value_parser = BoolishValueParser::new(), hide_env = true)]
    pub(crate) files: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// A file or folder to distribute [default: generated data]
    pub(crate) path: Option<PathBuf>,
    /// How many peers fetch it
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) peers: u16,
    /// How much data to generate
    #[arg(long, default_value = "64MiB", value_parser = parse_len)]
    pub(crate) size: u64,
}

fn parse_ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..1e9).contains(&ratio) => Ok(ratio),
        _ => Err("a ratio is a number such as 1.5".to_owned()),
    }
}

/// Shortest swarming interval: below it, telling costs more than it gains.
const SWARMING_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Longest swarming interval: beyond it, neighbours run dry.
const SWARMING_INTERVAL_MAX: Duration = Duration::from_secs(60);

fn parse_tracker_host(text: &str) -> Result<TrackerHost, String> {
    if text == "auto" {
        return Ok(TrackerHost::Auto);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map(TrackerHost::At).map_err(|_| {
        "give the address by which others reach this machine, for example 192.168.1.5, or auto".to_owned()
    })
}

/// Takes any bytes but none.
fn non_empty() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|typed| if typed.is_empty() { Err("it is empty") } else { Ok(typed) })
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if !(SWARMING_INTERVAL_MIN..=SWARMING_INTERVAL_MAX).contains(&interval) {
        return Err("it lies between 10ms and 60s".to_owned());
    }
    Ok(interval)
}

/// What stands for an empty list of DHT nodes to ask first.
pub(crate) const BOOTSTRAP_NONE: &str = "none";

pub(crate) fn parse_bootstrap(text: &str) -> Result<String, String> {
    if text == BOOTSTRAP_NONE { Ok(text.to_owned()) } else { parse_host_port(text) }
}

fn parse_host_port(text: &str) -> Result<String, String> {
    let wrong = || "write HOST:PORT, for example 192.168.1.5:6881 or [2001:db8::5]:6881".to_owned();
    let (host, port) = text.trim().rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    match port.parse::<u16>() {
        Ok(1..) if !host.is_empty() && (bracketed || !host.contains(':')) => Ok(text.trim().to_owned()),
        _ => Err(wrong()),
    }
}

/// Refuses what no tracker can be reached by, so that a slip is told at once.
pub(crate) fn parse_tracker(text: &str) -> Result<String, String> {
    parse_url(text, &["udp", "http", "https"])
}

fn parse_web_seed(text: &str) -> Result<String, String> {
    parse_url(text, &["http", "https"])
}

fn parse_url(text: &str, schemes: &[&str]) -> Result<String, String> {
    let known = schemes.join("://, ") + "://";
    let (scheme, rest) = text.split_once("://").ok_or_else(|| format!("a URL starts with one of {known}"))?;
    if !schemes.contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(format!("unknown scheme `{scheme}`: it is one of {known}"));
    }
    if rest.is_empty() || rest.starts_with(['/', '?', ':']) {
        return Err("it names no host".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn slips_are_refused_where_they_are_typed() {
        for wrong in ["6881", "host", ":6881", "host:0", "::1:6881", "host:70000"] {
            assert!(parse_host_port(wrong).is_err(), "{wrong}");
        }
        for right in ["host:1", "[::1]:6881", "10.0.0.1:65535"] {
            assert!(parse_host_port(right).is_ok(), "{right}");
        }
        for wrong in ["tracker.example", "ftp://tracker", "udp://", "http:///announce", "wss://x"] {
            assert!(parse_tracker(wrong).is_err(), "{wrong}");
        }
        assert!(parse_tracker("UDP://tracker:1/announce").is_ok());
        assert!(parse_ratio("-1").is_err() && parse_ratio("NaN").is_err() && parse_ratio("0.5").is_ok());
        assert!(parse_interval("1ms").is_err() && parse_interval("250ms").is_ok());
    }

    #[test]
    fn the_calls_that_scripts_make_are_understood() {
        let line = "sprat download T --dir D --port 7000 --no-dht --no-lsd --no-port-forward --quiet --seed";
        let Command::Download(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("not a download");
        };
        assert!(args.seed && args.swarm.discovery.no_dht && args.later.no_port_forward);
        assert_eq!(args.swarm.port, Some(7_000));
        let line = "sprat create PATH -o OUT --piece-size 262144";
        let Command::Create(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("not a creation");
        };
        assert_eq!(args.piece_size, PieceLen(262_144));
        let line = "sprat seed film.mkv --with-tracker";
        let Command::Seed(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("not a seed");
        };
        assert_eq!(args.with_tracker, Some(TrackerHost::Auto));
    }

    #[test]
    fn an_option_before_the_path_does_not_take_it_for_its_value() {
        let line = "sprat seed --with-tracker film.mkv";
        let Command::Seed(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("not a seed");
        };
        assert_eq!((args.path.to_str(), args.with_tracker), (Some("film.mkv"), Some(TrackerHost::Auto)));
        let line = "sprat seed --with-tracker=192.168.1.5 film.mkv";
        let Command::Seed(args) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("not a seed");
        };
        assert_eq!(args.with_tracker, Some(TrackerHost::At([192, 168, 1, 5].into())));
        // The same for every option whose value may be left out.
        let mut commands = vec![Cli::command()];
        let mut optional = Vec::new();
        while let Some(mut command) = commands.pop() {
            command.build();
            commands.extend(command.get_subcommands().cloned());
            let with_value = command.get_arguments().filter(|arg| !arg.is_positional());
            for arg in
                with_value.filter(|arg| arg.get_num_args().is_some_and(|n| n.min_values() < n.max_values()))
            {
                assert!(arg.is_require_equals_set(), "{} {arg}", command.get_name());
                optional.push(arg.to_string());
            }
        }
        assert!(!optional.is_empty());
    }
}
