//! How a command speaks: bars on a terminal, plain lines elsewhere, JSON events for programs, or
//! not at all.
//!
//! Results and plain progress go to standard output, bars, warnings and errors to standard error,
//! all by way of `output`, so that nothing here waits for a reader.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::OutputArgs;
use super::output::{self, QueuedTerminal, Stream};
use super::{clock, text};

/// Between two plain lines of progress: often enough to see that it goes on, seldom enough for a
/// log.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two JSON events of progress.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);
/// Between two moves of what shows that something goes on.
const SPIN_INTERVAL: Duration = Duration::from_millis(120);
/// Redraws of the bars in a second.
const DRAW_RATE_MAX: u8 = 20;

/// A command's voice. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    voice: Voice,
    /// Standard output is for the command's result alone.
    is_aside: bool,
}

#[derive(Clone, Debug)]
enum Voice {
    Terminal(MultiProgress),
    Lines,
    Json,
    Quiet,
}

impl Report {
    /// As the user asked for, or as standard error allows.
    pub(crate) fn new(output: OutputArgs) -> Self {
        let voice = match (output.json, output.quiet) {
            (true, _) => Voice::Json,
            (false, true) => Voice::Quiet,
            (false, false) if can_draw() => Voice::Terminal(bars()),
            (false, false) => Voice::Lines,
        };
        Self { voice, is_aside: false }
    }

    /// The same, for what happens on the way to a result: people hear it on standard error,
    /// programs do not.
    pub(crate) fn aside(&self) -> Self {
        let voice = match &self.voice {
            Voice::Json => Voice::Quiet,
            voice @ (Voice::Terminal(_) | Voice::Lines | Voice::Quiet) => voice.clone(),
        };
        Self { voice, is_aside: true }
    }

    /// Whether programs read this.
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.voice, Voice::Json)
    }

    /// A line for people.
    pub(crate) fn say(&self, text: &str) {
        match &self.voice {
            Voice::Terminal(bars) => bars.suspend(|| self.print(text)),
            Voice::Lines => self.print(text),
            Voice::Json | Voice::Quiet => {}
        }
    }

    fn print(&self, text: &str) {
        if self.is_aside { print_err(text) } else { print_out(text) }
    }

    /// An event for programs.
    pub(crate) fn event(&self, event: &Value) {
        if self.is_json() {
            print_out(&text::json(event));
        }
    }

    /// Something went wrong and the command goes on. Quiet: not told, since it is no error.
    pub(crate) fn warn(&self, text: &str) {
        match &self.voice {
            Voice::Terminal(bars) => bars.suspend(|| print_err(&format!("warning: {text}"))),
            Voice::Lines => print_err(&format!("warning: {text}")),
            Voice::Json => self.event(&json!({"event": "warning", "text": text})),
            Voice::Quiet => {}
        }
    }

    /// A warning that is no event of the command's: to standard error, also where programs read.
    pub(crate) fn warn_aside(&self, text: &str) {
        if !matches!(self.voice, Voice::Quiet) {
            print_err(&format!("warning: {text}"));
        }
    }

    /// A line for people beside the result: to standard error, so that the result can be read by
    /// programs.
    pub(crate) fn note(&self, text: &str) {
        match &self.voice {
            Voice::Terminal(bars) => bars.suspend(|| print_err(text)),
            Voice::Lines => print_err(text),
            Voice::Json | Voice::Quiet => {}
        }
    }

    /// The command's bad end.
    pub(crate) fn error(text: &str) {
        print_err(&format!("error: {text}"));
    }

    /// Something is missing of what was done, although the command goes on or has ended well.
    pub(crate) fn warning(text: &str) {
        print_err(&format!("warning: {text}"));
    }

    /// Shows that something goes on whose length is not known.
    pub(crate) fn spinner(&self) -> Meter {
        let bar = match &self.voice {
            Voice::Terminal(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                // It moves by a thread of its own, if there can be one.
                if std::thread::Builder::new().spawn(|| ()).is_ok() {
                    bar.enable_steady_tick(SPIN_INTERVAL);
                }
                Some(bar)
            }
            Voice::Lines | Voice::Json | Voice::Quiet => None,
        };
        self.meter_on(bar, 0)
    }

    /// Shows how far something is: `total` steps or bytes.
    pub(crate) fn meter(&self, total: u64) -> Meter {
        let bar = match &self.voice {
            Voice::Terminal(bars) => {
                let style = ProgressStyle::with_template("{wide_bar} {percent:>3}%\n{msg}")
                    .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "));
                Some(bars.add(ProgressBar::new(total).with_style(style)))
            }
            Voice::Lines | Voice::Json | Voice::Quiet => None,
        };
        self.meter_on(bar, total)
    }

    /// A meter of one line with a name in front, to stand among others; nothing where there are no
    /// bars.
    pub(crate) fn named_meter(&self, name: &str, total: u64) -> Option<Meter> {
        let Voice::Terminal(bars) = &self.voice else { return None };
        let style = ProgressStyle::with_template("{prefix:20!} {wide_bar} {percent:>3}% {msg:24!}")
            .map_or_else(|_| ProgressStyle::default_bar(), |style| style.progress_chars("=> "));
        let bar = ProgressBar::new(total).with_style(style).with_prefix(text::harmless(name).into_owned());
        Some(self.meter_on(Some(bars.add(bar)), total))
    }

    fn meter_on(&self, bar: Option<ProgressBar>, total: u64) -> Meter {
        let last = Mutex::new(Last { at: clock::now(), text: String::new() });
        Meter { report: self.clone(), bar, total, last }
    }
}

/// How far something is, shown at the pace of the voice. Removed from the screen when dropped.
#[derive(Debug)]
pub(crate) struct Meter {
    report: Report,
    bar: Option<ProgressBar>,
    /// 0: not known.
    total: u64,
    last: Mutex<Last>,
}

/// What was printed last, and when.
#[derive(Debug)]
struct Last {
    at: Instant,
    text: String,
}

impl Meter {
    /// It is at `done`; the texts are only made when they are shown.
    pub(crate) fn update(&self, done: u64, text: impl FnOnce() -> String, event: impl FnOnce() -> Value) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(text::harmless(&text()).into_owned());
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |interval| clock::now().duration_since(last.at) >= interval;
        match &self.report.voice {
            Voice::Lines if due(LINE_INTERVAL) => {
                let text = text();
                last.at = clock::now();
                if text != last.text {
                    self.report.say(&self.line(done, &text));
                    last.text = text;
                }
            }
            Voice::Json if due(EVENT_INTERVAL) => {
                last.at = clock::now();
                self.report.event(&event());
            }
            Voice::Lines | Voice::Json | Voice::Terminal(_) | Voice::Quiet => {}
        }
    }

    fn line(&self, done: u64, text: &str) -> String {
        match (u128::from(done) * 100).checked_div(u128::from(self.total)) {
            Some(percent) => format!("{percent:>3}% {text}"),
            None => text.to_owned(),
        }
    }

    /// How much there is turned out differently.
    pub(crate) fn set_total(&mut self, total: u64) {
        if self.total != total {
            self.total = total;
            if let Some(bar) = &self.bar {
                bar.set_length(total);
            }
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether standard error is a terminal on which a cursor can move: others get plain lines.
fn can_draw() -> bool {
    let is_smart = |term: std::ffi::OsString| !term.is_empty() && term != "dumb";
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(is_smart)
}

fn bars() -> MultiProgress {
    let terminal = Box::new(QueuedTerminal::default());
    MultiProgress::with_draw_target(ProgressDrawTarget::term_like_with_hz(terminal, DRAW_RATE_MAX))
}

/// A line to standard output.
pub(crate) fn print_out(text: &str) {
    output::line(Stream::Out, &text::harmless(text));
}

fn print_err(text: &str) {
    output::line(Stream::Err, &text::harmless(text));
}
