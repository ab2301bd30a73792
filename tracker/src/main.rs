//! The `sprat-tracker` command: sockets and threads around the pure tracker of
//! `sprat::proto::tracker`.
//!
//! One thread for each worker and UDP address, and one with a small runtime for each HTTP worker;
//! all serve the same shards. This file starts them, keeps time, and stops them.

mod args;
mod clock;
mod held;
mod http;
mod listen;
mod shards;
mod stats;
mod task;
mod udp;

use std::fs::File;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::io::Errno;
use sprat::proto::rng::Rng;
use sprat::proto::tracker::http::forwarded::Network;
use sprat::proto::tracker::service::{Answerer, ConnectionIds};
use sprat::proto::tracker::swarm::SWEEP_INTERVAL;
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::args::Args;
use crate::clock::Clock;
use crate::held::HeldLen;
use crate::shards::Shards;
use crate::stats::Stats;

/// The state that all threads share.
struct Tracker {
    clock: Clock,
    shards: Shards,
    stats: Stats,
    /// Sum of the bytes that connections keep.
    held_len: HeldLen,
    /// The proxies whose `X-Forwarded-For` is trusted.
    trusted_proxies: Vec<Network>,
    /// Read by the threads that wait in a system call; tasks are notified by a channel.
    stopping: AtomicBool,
}

/// Why the tracker does not start or has to end, in words for the user.
#[derive(Debug)]
struct Failure(String);

fn main() -> ExitCode {
    let args = Args::parse_or_exit();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(what)) => {
            // Without a reader the exit code remains.
            let _ = writeln!(std::io::stderr(), "sprat-tracker: {}", in_words(&what));
            ExitCode::FAILURE
        }
    }
}

/// Removes the system's error number, and adds what to do about a limit.
fn in_words(what: &str) -> String {
    let mut words = what.to_owned();
    while let Some(start) = words.find(NUMBER_START) {
        let end = words[start..].find(')').map_or(words.len(), |len| start + len + 1);
        words.replace_range(start..end, "");
    }
    words.replace("Too many open files", "Too many open files; allow more with `ulimit -n`")
}

/// Start of the error number in a message of std.
const NUMBER_START: &str = " (os error ";

fn run(args: &Args) -> Result<(), Failure> {
    raise_file_limit()?;
    // Before the addresses are printed, so that a program that reads them can send a signal.
    let signals = Signals::listen()?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure(format!("no randomness: {error}")))?;
    let mut rng = Rng::from_seed(seed);
    let clock = Clock::start();
    let shards = Shards::new(&mut rng, clock.now());
    let workers = args.workers();
    let udp = listen::udp(&args.udp(), workers)?;
    let http = listen::http(&args.http(), workers)?;
    let http_sockets = http.listeners.into_iter().map(http::Sockets::new).collect::<Result<Vec<_>, _>>()?;
    let ids = ConnectionIds::new(&mut rng);
    let stats = Stats::new(udp.sockets.len() + http_sockets.len());
    let trusted_proxies = args.trusted_proxies();
    let stopping = AtomicBool::new(false);
    let tracker =
        Arc::new(Tracker { clock, shards, stats, held_len: HeldLen::default(), trusted_proxies, stopping });
    let (udp_addrs, http_addrs) = (udp.addrs.clone(), http.addrs);

    let (stop, stopped) = watch::channel(false);
    let mut threads = Vec::new();
    for (worker, socket) in udp.sockets.iter().enumerate() {
        let socket =
            socket.try_clone().map_err(|error| Failure(format!("cannot share a socket: {error}")))?;
        let answerer = Answerer::new(ids.clone(), rng.fork("udp worker"));
        let tracker = tracker.clone();
        threads.push(start_thread(move || udp::serve(&tracker, worker, &socket, answerer))?);
    }
    for (number, sockets) in http_sockets.into_iter().enumerate() {
        let answerer = Answerer::new(ids.clone(), rng.fork("http worker"));
        let (tracker, stopped) = (tracker.clone(), stopped.clone());
        let worker = udp.sockets.len() + number;
        threads.push(start_thread(move || http::serve(tracker, worker, sockets, answerer, stopped))?);
    }
    // On a thread of its own that is not joined: a write to a full pipe blocks until the reader
    // reads.
    start_thread(move || announce_addresses(&udp_addrs, &http_addrs))?;
    signals.wait(|| tracker.shards.handle_timeout(&tracker.clock));
    tracker.stopping.store(true, Ordering::Relaxed);
    stop.send_replace(true);
    udp.wake();
    for thread in threads {
        thread.join().map_err(|_| Failure("a worker has failed".into()))?;
    }
    Ok(())
}

/// Starts a thread, if the system allows one more.
fn start_thread(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    let started = std::thread::Builder::new().spawn(work);
    let hint = "fewer are needed with --workers 1";
    started.map_err(|error| Failure(format!("cannot start a thread: {error}; {hint}")))
}

/// Prints one line for each address, with the actual port where the user asked for port 0.
fn announce_addresses(udp: &[std::net::SocketAddr], http: &[std::net::SocketAddr]) {
    let mut out = std::io::stdout().lock();
    for (kind, addrs) in [("udp", udp), ("http", http)] {
        for addr in addrs {
            // A closed stdout must not stop the tracker.
            let _ = writeln!(out, "listening {kind} {addr}");
        }
    }
    let _ = out.flush();
}

/// The signals that end the tracker, and the main thread's runtime that waits for them.
struct Signals {
    runtime: Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let fail = |error| Failure(format!("cannot wait for signals: {error}"));
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let entered = runtime.enter();
        let terminate = signal(SignalKind::terminate()).map_err(fail)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
        drop(entered);
        Ok(Self { runtime, terminate, interrupt })
    }

    /// Returns at the first signal; calls `sweep` periodically until then.
    fn wait(mut self, sweep: impl Fn()) {
        self.runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => return,
                    _ = self.interrupt.recv() => return,
                    () = tokio::time::sleep(SWEEP_INTERVAL / 2) => sweep(),
                }
            }
        });
    }
}

/// Raises the limit of descriptors to the maximum, because each connection needs one. A lower limit
/// allows fewer connections.
///
/// # Errors
/// The limit is too low to run at all.
fn raise_file_limit() -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let opened: io::Result<Vec<File>> = (0..DESCRIPTOR_COUNT_MIN).map(|_| File::open("/dev/null")).collect();
    match opened {
        Err(error) if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
            Err(Failure(format!("{error}: {DESCRIPTOR_COUNT_MIN} more are needed at least")))
        }
        // Without the file the number is unknown.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Descriptors that the process needs besides the open ones; signals already need some.
const DESCRIPTOR_COUNT_MIN: usize = 16;
