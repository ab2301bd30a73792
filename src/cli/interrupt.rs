//! Ctrl-C, SIGTERM and SIGHUP: the first asks a command to leave in order, the second ends it at
//! once.
//!
//! A process that was started to ignore SIGHUP, as by `nohup`, goes on ignoring it.

use std::sync::{Mutex, PoisonError};

use tokio::signal::unix::{self, SignalKind};

use super::failure::Failure;
use super::output;

/// SIGXFSZ: a write went beyond the limit on the length of files. Its number is the same on all
/// systems but MIPS.
const FILE_LIMIT_SIGNAL: SignalKind = SignalKind::from_raw(25);

/// A request to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, as service managers send it.
    Terminate,
    /// SIGHUP: the terminal was closed.
    Hangup,
}

impl Signal {
    /// How a command ends that runs until it is told to stop: for such a command SIGTERM is the
    /// regular end.
    pub(crate) fn end_of_service(self) -> Result<(), Failure> {
        match self {
            Self::Terminate => Ok(()),
            Self::Interrupt | Self::Hangup => Err(Failure::Interrupted(self)),
        }
    }
}

/// The stream of requests to stop.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: unix::Signal,
    terminate: unix::Signal,
    /// None: it is ignored, and stays so.
    hangup: Option<unix::Signal>,
}

/// What the end of the process knows of signals; None: they were not caught, and end the process by
/// themselves.
static LAST: Mutex<Option<Last>> = Mutex::new(None);

#[derive(Debug)]
enum Last {
    /// Has every signal since they were caught.
    Listening(Interrupts),
    /// A signal has come.
    Told,
}

impl Interrupts {
    /// From now on signals no longer end the process by themselves, and printing never waits.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let fail = |error| Failure::Failed(format!("cannot listen for signals: {error}"));
        let (interrupts, last) = (Self::listen().map_err(fail)?, Self::listen().map_err(fail)?);
        LAST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(Last::Listening(last));
        output::never_wait();
        Ok(interrupts)
    }

    fn listen() -> std::io::Result<Self> {
        let hangup = if is_hangup_ignored() { None } else { Some(unix::signal(SignalKind::hangup())?) };
        Ok(Self {
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            hangup,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Signal {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
            _ = hangup => Signal::Hangup,
        }
    }

    /// Finishes `farewell` unless a signal comes meanwhile, which is returned.
    pub(crate) async fn unless(&mut self, farewell: impl Future<Output = ()>) -> Option<Signal> {
        tokio::select! {
            () = farewell => None,
            signal = self.next() => Some(signal),
        }
    }
}

/// A write beyond the limit on the length of files (`ulimit -f`) is an error from now on, and no
/// longer ends the process without a word.
pub(crate) fn survive_file_limit() {
    if let Some(runtime) = small_runtime() {
        let _inside = runtime.enter();
        // Where it cannot be caught, it ends the process as before.
        let _ = unix::signal(FILE_LIMIT_SIGNAL);
    }
}

/// Waits for everything printed to be written. Once a signal has come, since they were caught, not
/// for long.
pub(crate) fn finish_output() {
    if output::is_written_soon() {
        return;
    }
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(runtime) = small_runtime() else { return };
    runtime.block_on(async {
        let told = async {
            match &mut *last {
                Some(Last::Listening(interrupts)) => {
                    interrupts.next().await;
                    *last = Some(Last::Told);
                }
                Some(Last::Told) => {}
                None => std::future::pending().await,
            }
            tokio::time::sleep(output::GRACE).await;
        };
        tokio::select! {
            () = output::written() => {}
            () = told => {}
        }
    });
}

fn small_runtime() -> Option<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().ok()
}

/// Whether the process ignores SIGHUP, by what Linux tells; elsewhere it is taken not to.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}
