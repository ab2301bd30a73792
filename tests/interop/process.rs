//! Child processes that end with the test, and waiting for what foreign programs do without
//! telling.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Pause between two looks at something that sends no event.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// Looks until `done` or out of time; whether it was done.
#[expect(clippy::disallowed_methods, reason = "foreign programs run in real time and send no events")]
pub(crate) fn poll(timeout: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    while !done() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::park_timeout(POLL_PAUSE);
    }
    true
}

/// A child process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command; what it prints goes to `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let out = File::create(log).expect("a new log file");
        let err = out.try_clone().expect("a second handle of the log");
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Fails the test if the process ended with an error.
    pub(crate) fn assert_alive_or_done(&mut self, what: &str) {
        if let Some(status) = self.child.try_wait().expect("our own child") {
            assert!(status.success(), "{what}: ended with {status}: {}", self.said());
        }
    }

    /// The end of what it printed.
    pub(crate) fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().rev().take(10).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
