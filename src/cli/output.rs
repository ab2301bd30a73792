//! Standard output and standard error, written in order by one thread.
//!
//! A full pipe or a stopped terminal blocks that thread alone. A command that has asked for signals
//! never waits for room in the queue, so that it always obeys them: lines that find no room are
//! dropped and counted. Any other command waits, because signals end it by themselves. Without a
//! thread the caller writes.
//!
//! A reader that goes away (`sprat show X | head`) is no error. Any other error of standard output
//! is kept and reported at the end.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use indicatif::TermLike;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::sync::Notify;

/// Bytes that may wait to be written: an hour of events of a busy torrent, or minutes of moving
/// bars.
const QUEUE_LEN_MAX: usize = 1 << 20;
/// How long a command that was ended by a signal waits for its last lines to be read.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// How long the end waits for the thread before it listens for signals meanwhile.
const QUICK: Duration = Duration::from_millis(50);
/// The width of a terminal that does not tell.
const WIDTH_DEFAULT: u16 = 80;

/// Where a text goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The queue and its thread.
struct Output {
    queue: Mutex<Queue>,
    /// The thread waits for texts, and callers for room.
    changed: Condvar,
    /// All is written.
    written: Notify,
    has_thread: bool,
}

#[derive(Default)]
struct Queue {
    texts: VecDeque<(Stream, Vec<u8>)>,
    /// Bytes of `texts`, and of the text that is being written.
    len: usize,
    dropped_count: u64,
    /// The first error of standard output.
    error: Option<io::Error>,
}

/// Whether signals are handled by the command, which then never waits for room.
static IS_LISTENING: AtomicBool = AtomicBool::new(false);

fn output() -> &'static Output {
    static OUTPUT: OnceLock<Output> = OnceLock::new();
    OUTPUT.get_or_init(|| {
        let writer = std::thread::Builder::new().name("output".to_owned());
        // It waits until the value is there.
        let has_thread = writer.spawn(|| output().write_queued()).is_ok();
        let (queue, changed, written) = (Mutex::default(), Condvar::new(), Notify::new());
        Output { queue, changed, written, has_thread }
    })
}

/// From now on the command handles signals: it never waits for its output to be read.
pub(crate) fn never_wait() {
    IS_LISTENING.store(true, Ordering::Relaxed);
}

/// Writes a line, soon.
pub(crate) fn line(stream: Stream, text: &str) {
    text_to(stream, format!("{text}\n").into_bytes());
}

/// Writes these bytes, soon.
pub(crate) fn text_to(stream: Stream, text: Vec<u8>) {
    let output = output();
    if output.has_thread {
        output.put(stream, text);
    } else {
        let written = write_all(stream, &text);
        output.queue().note(stream, written);
    }
}

/// Waits until everything is written.
pub(crate) async fn written() {
    loop {
        let written = output().written.notified();
        if output().queue().len == 0 {
            return;
        }
        written.await;
    }
}

/// Waits a moment for everything to be written; whether it is.
pub(crate) fn is_written_soon() -> bool {
    let output = output();
    let is_waiting = |queue: &mut Queue| queue.len > 0;
    let waited = output.changed.wait_timeout_while(output.queue(), QUICK, is_waiting);
    waited.unwrap_or_else(PoisonError::into_inner).0.len == 0
}

/// The first error of standard output, if there was one; a reader that went away is none.
pub(crate) fn take_error() -> Option<io::Error> {
    output().queue().take_error()
}

impl Output {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change leaves the queue whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, stream: Stream, text: Vec<u8>) {
        let mut queue = self.queue();
        if queue.len > QUEUE_LEN_MAX {
            if IS_LISTENING.load(Ordering::Relaxed) {
                queue.dropped_count += 1;
                return;
            }
            let is_full = |queue: &mut Queue| queue.len > QUEUE_LEN_MAX;
            queue = self.changed.wait_while(queue, is_full).unwrap_or_else(PoisonError::into_inner);
        }
        queue.len += text.len();
        queue.texts.push_back((stream, text));
        drop(queue);
        self.changed.notify_all();
    }

    /// The life of the thread.
    fn write_queued(&self) {
        loop {
            let is_idle = |queue: &mut Queue| queue.texts.is_empty();
            let waited = self.changed.wait_while(self.queue(), is_idle);
            let mut queue = waited.unwrap_or_else(PoisonError::into_inner);
            let Some((stream, text)) = queue.texts.pop_front() else { continue };
            drop(queue);
            let written = write_all(stream, &text);
            let mut queue = self.queue();
            queue.len -= text.len();
            queue.note(stream, written);
            let dropped_count = if queue.len > 0 { 0 } else { std::mem::take(&mut queue.dropped_count) };
            let is_empty = queue.len == 0;
            drop(queue);
            self.changed.notify_all();
            if is_empty {
                self.written.notify_waiters();
            }
            if dropped_count > 0 {
                let text =
                    format!("warning: {dropped_count} lines are left out because nothing read the output\n");
                self.put(Stream::Err, text.into_bytes());
            }
        }
    }
}

impl Queue {
    fn note(&mut self, stream: Stream, written: io::Result<()>) {
        if let (Stream::Out, Err(error)) = (stream, written)
            && error.kind() != ErrorKind::BrokenPipe
        {
            self.error.get_or_insert(error);
        }
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.error.take()
    }
}

/// Writes past the buffer of the standard library, which keeps what it could not write.
fn write_all(stream: Stream, text: &[u8]) -> io::Result<()> {
    let (out, err) = (io::stdout(), io::stderr());
    let file = match stream {
        Stream::Out => out.as_fd(),
        Stream::Err => err.as_fd(),
    };
    let mut rest = text;
    while !rest.is_empty() {
        match rustix::io::write(file, rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => rest = &rest[len..],
            Err(Errno::INTR) => {}
            // Another process that has the same pipe open has made it so.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&file, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Standard error for the log: it never fails, since nothing could be done about that.
pub(crate) struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        text_to(Stream::Err, bytes.to_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The terminal of the bars, by way of the queue.
#[derive(Debug, Default)]
pub(crate) struct QueuedTerminal {
    frame: Mutex<String>,
}

impl QueuedTerminal {
    fn append(&self, text: &str) -> io::Result<()> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    fn move_cursor(&self, count: usize, direction: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.append(&format!("\x1b[{count}{direction}")) }
    }
}

impl TermLike for QueuedTerminal {
    fn width(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        size.map_or(WIDTH_DEFAULT, |size| if size.ws_col == 0 { WIDTH_DEFAULT } else { size.ws_col })
    }

    fn height(&self) -> u16 {
        let size = rustix::termios::tcgetwinsize(io::stderr());
        size.map_or(u16::MAX, |size| if size.ws_row == 0 { u16::MAX } else { size.ws_row })
    }

    fn move_cursor_up(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> io::Result<()> {
        self.move_cursor(count, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.append(text)?;
        self.append("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.append(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.append("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.frame.lock().unwrap_or_else(PoisonError::into_inner));
        if !frame.is_empty() {
            text_to(Stream::Err, frame.into_bytes());
        }
        Ok(())
    }
}
