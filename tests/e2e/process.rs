//! A running `sprat`: its lines as they come, its end, and no way to outlive the test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Longest silence before a test fails: far above anything a loaded machine needs.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Which stream a line came from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// A `sprat` process; killed when dropped.
pub(crate) struct Sprat {
    child: Child,
    lines: Receiver<(Stream, String)>,
    out: Vec<String>,
    err: Vec<String>,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; None: by a signal.
    pub(crate) code: Option<i32>,
    /// Standard output, line by line.
    pub(crate) out: Vec<String>,
    /// Standard error, line by line.
    pub(crate) err: Vec<String>,
}

impl Sprat {
    /// Starts it in `dir`, with nothing of the tester's settings.
    pub(crate) fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_with(dir, args, &[])
    }

    /// The same with variables.
    pub(crate) fn start_with(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_program(env!("CARGO_BIN_EXE_sprat").as_ref(), dir, args, variables)
    }

    /// Another program, followed in the same way.
    pub(crate) fn start_program(
        program: &Path,
        dir: &Path,
        args: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        Self::start_command(&mut Self::command(program, dir, args, variables))
    }

    /// The command for [`Sprat::start_command`], with both streams followed.
    pub(crate) fn command(program: &Path, dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SPRAT_"))
        {
            command.env_remove(name);
        }
        // No test meets the world, or another test, unless it asks to.
        command.env("SPRAT_NO_DHT", "1").env("SPRAT_NO_LSD", "1");
        command.env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command.args(args).current_dir(dir).envs(variables.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts it; a stream that is not piped to here is not followed.
    pub(crate) fn start_command(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program is there");
        let (sender, lines) = sync_channel(10_000);
        if let Some(out) = child.stdout.take() {
            forward(out, Stream::Out, sender.clone());
        }
        if let Some(err) = child.stderr.take() {
            forward(err, Stream::Err, sender);
        }
        Self { child, lines, out: Vec::new(), err: Vec::new() }
    }

    /// Waits for a line, of either stream, that holds `part`.
    pub(crate) fn line(&mut self, part: &str) -> String {
        loop {
            match self.lines.recv_timeout(SILENCE_MAX) {
                Ok((stream, line)) => {
                    self.keep(stream, &line);
                    if line.contains(part) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {part:?} ({error}): {:?} {:?}", self.out, self.err),
            }
        }
    }

    /// As [`Sprat::line`], of a line that may have come already: for two lines of different
    /// streams.
    pub(crate) fn line_so_far(&mut self, part: &str) -> String {
        let said = self.out.iter().chain(&self.err).find(|line| line.contains(part)).cloned();
        said.unwrap_or_else(|| self.line(part))
    }

    /// Waits for the first line of either stream, or for the end; whether there was a line.
    pub(crate) fn has_line(&mut self) -> bool {
        match self.lines.recv_timeout(SILENCE_MAX) {
            Ok((stream, line)) => self.keep(stream, &line),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("neither a line nor the end"),
        }
        true
    }

    /// Whether each of its threads sleeps, so that it waits for what others do.
    pub(crate) fn is_asleep(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).expect("it lives");
        let mut stats =
            tasks.map(|task| std::fs::read_to_string(task.expect("a thread").path().join("stat")));
        // The state stands behind the name; a thread that ends meanwhile did not sleep.
        stats.all(|stat| {
            stat.is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" S")))
        })
    }

    /// Waits for the event `name` of `--json`.
    pub(crate) fn event(&mut self, name: &str) -> serde_json::Value {
        let line = self.line(&format!("\"event\":\"{name}\""));
        serde_json::from_str(&line).expect("--json prints one object a line")
    }

    /// Whether it has told the event `name` already.
    pub(crate) fn has_said(&self, name: &str) -> bool {
        let event = format!("\"event\":\"{name}\"");
        self.out.iter().any(|line| line.contains(&event))
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        loop {
            match self.lines.recv_timeout(SILENCE_MAX) {
                Ok((stream, line)) => self.keep(stream, &line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end: {:?} {:?}", self.out, self.err),
            }
        }
        let code = self.wait();
        Ended { code, out: std::mem::take(&mut self.out), err: std::mem::take(&mut self.err) }
    }

    /// Waits until the process is gone: it may close its streams long before, or have none that are
    /// followed.
    fn wait(&mut self) -> Option<i32> {
        let process = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("our child");
        let limit = Timespec::try_from(SILENCE_MAX).expect("not too long");
        let ended_count =
            poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).expect("it is open");
        assert_eq!(ended_count, 1, "it does not end: {:?} {:?}", self.out, self.err);
        self.child.wait().expect("our child").code()
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Bytes it has read so far, of files for the most part.
    pub(crate) fn read_len(&self) -> u64 {
        let figures = std::fs::read_to_string(format!("/proc/{}/io", self.id())).expect("it lives");
        let line = figures.lines().find_map(|line| line.strip_prefix("rchar: "));
        line.and_then(|number| number.parse().ok()).expect("a number of bytes")
    }

    /// Bytes of its memory, by a name of `/proc/PID/status`: `VmRSS` now, `VmHWM` at most so far.
    pub(crate) fn memory(&self, name: &str) -> u64 {
        let figures = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it lives");
        let line = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        1024 * kib.expect("a number of KiB")
    }

    /// Lets it live for so long, then kills it.
    ///
    /// # Errors
    /// It ended by itself before.
    #[expect(clippy::disallowed_methods, reason = "when a kill comes is not for the killed to say")]
    pub(crate) fn kill_after(mut self, life: Duration) -> Result<(), Ended> {
        let until = Instant::now() + life;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((stream, line)) => self.keep(stream, &line),
                Err(RecvTimeoutError::Timeout) => {
                    drop(self);
                    return Ok(());
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.end()),
            }
        }
    }

    /// Sends a signal by name: `INT`, `TERM`, `KILL`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// Waits until it handles a signal itself, which is so when it can be told to stop in order.
    #[expect(clippy::disallowed_methods, reason = "a limit for a test that waits for another process")]
    pub(crate) fn until_it_catches(&self, name: &str) {
        let number = match name {
            "HUP" => 1,
            "INT" => 2,
            "TERM" => 15,
            _ => panic!("no signal that ends a command in order: {name}"),
        };
        let until = Instant::now() + SILENCE_MAX;
        loop {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it lives");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
            let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).expect("a mask");
            if caught & 1 << (number - 1) != 0 {
                return;
            }
            assert!(Instant::now() < until, "it does not listen for {name}");
            std::thread::yield_now();
        }
    }

    fn keep(&mut self, stream: Stream, line: &str) {
        match stream {
            Stream::Out => self.out.push(line.to_owned()),
            Stream::Err => self.err.push(line.to_owned()),
        }
    }
}

impl Drop for Sprat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(stream: impl Read + Send + 'static, which: Stream, lines: SyncSender<(Stream, String)>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if lines.send((which, line)).is_err() {
                return;
            }
        }
    });
}

/// Runs a command to its end.
pub(crate) fn sprat(dir: &Path, args: &[&str]) -> Ended {
    Sprat::start(dir, args).end()
}

/// A folder of files with content made from their names, `len` bytes each.
pub(crate) fn content(dir: &Path, files: &[(&str, usize)]) {
    for (name, len) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("below dir")).expect("a temporary folder");
        let mut state = name.bytes().fold(1_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as u8
        })
        .take(*len)
        .collect();
        std::fs::write(path, bytes).expect("a temporary folder");
    }
}

/// Removes what is in a folder, if there is one, and not the folder: one that is gone is not filled
/// again.
pub(crate) fn empty(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.expect("a folder of ours");
    }
}

/// Every file below a folder with its bytes, in order of path.
pub(crate) fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let below = path.strip_prefix(dir).expect("below dir").to_owned();
                found.push((below, std::fs::read(&path).expect("a file")));
            }
        }
    }
    found.sort();
    found
}
