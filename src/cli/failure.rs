//! Why a command did not do what it was asked to, and which exit code says so.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::interrupt::Signal;
use super::text::{printable, without_number};
use crate::engine::{EngineError, StorageError};
use crate::usage::{self, SEE_HELP};

/// A command's bad end; each is one line for people and one exit code for scripts.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It could not be done.
    Failed(String),
    /// It was asked for in a way that makes no sense.
    Usage(String),
    /// The torrent, or the content, is not what it should be.
    Bad(String),
    /// The user, or the system, ended it early; state is saved.
    Interrupted(Signal),
}

impl Failure {
    /// What a shell sees.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Failed(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Bad(_) => ExitCode::from(3),
            Self::Interrupted(Signal::Interrupt) => ExitCode::from(130),
            Self::Interrupted(Signal::Terminate) => ExitCode::from(143),
            Self::Interrupted(Signal::Hangup) => ExitCode::from(129),
        }
    }

    /// The line for people; None: they know.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Failed(text) | Self::Usage(text) | Self::Bad(text) => Some(text),
            Self::Interrupted(_) => None,
        }
    }

    /// The words of wrong usage on one line: what follows in a paragraph of its own is what
    /// `--help` says better. A value that is empty, or an element of a list that is, is called so;
    /// `args` is all that was typed.
    pub(crate) fn usage(error: &clap::Error, args: &[OsString]) -> Self {
        if let (Some(arg), Some(ContextValue::String(value))) =
            (error.get(ContextKind::InvalidArg), error.get(ContextKind::InvalidValue))
            && value.is_empty()
        {
            let arg = printable(&arg.to_string());
            let is_empty = |typed: &OsString| typed.is_empty() || typed.as_encoded_bytes().ends_with(b"=");
            if args.iter().any(is_empty) {
                return Self::Usage(format!("{arg} is empty; {SEE_HELP}"));
            }
            // Otherwise there is no value.
            if error.kind() == ErrorKind::ValueValidation {
                return Self::Usage(format!("{arg} has an empty element; {SEE_HELP}"));
            }
        }
        let text = error.render().to_string();
        let what = usage::what(error);
        let tip = text.lines().find_map(|line| line.trim_start().strip_prefix("tip: "));
        let tip = tip.filter(|tip| tip.contains("similar")).unwrap_or(SEE_HELP);
        Self::Usage(format!("{}; {}", printable(&what), printable(tip)))
    }

    /// The system refused something about `path`; `hint` says what to do.
    pub(crate) fn io(path: &Path, error: &std::io::Error, hint: &str) -> Self {
        Self::Failed(format!("{}: {}{hint}", printable(&path.to_string_lossy()), words(error)))
    }
}

/// An error of the system in words, without its number.
pub(crate) fn words(error: &std::io::Error) -> String {
    without_number(&error.to_string())
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Failed(match error {
            EngineError::PortTaken(addr) => format!(
                "{addr} is in use by another program; choose another port with --port, or any with --port 0"
            ),
            EngineError::Storage(error) => return error.into(),
            EngineError::Selection(why) => return Self::Usage(printable(&why)),
            EngineError::NoInfohash => return Self::Bad(error.to_string()),
            other @ (EngineError::Listen(..)
            | EngineError::Duplicate
            | EngineError::System(_)
            | EngineError::Stopped) => printable(&other.to_string()),
        })
    }
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        let refused = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];
        let hint = if error.is_full() {
            "; make room, or choose another folder with -d"
        } else if refused.contains(&error.source.kind()) {
            "; choose a folder that you may use with -d"
        } else {
            ""
        };
        Self::io(&error.path, &error.source, hint)
    }
}
