//! What is wrong with a command line, in one line, for the peer's and the tracker's command.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::error::ContextKind;
use clap::{Arg, Command};

/// What is said where there is no better advice.
pub const SEE_HELP: &str = "--help says what is possible";

/// The words of wrong usage on one line: what follows in a paragraph of its own is what `--help`
/// says better.
pub fn what(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    what.strip_prefix("error: ").map_or(what.clone(), ToOwned::to_owned)
}

/// The variable whose value was refused, found by reading `args` with each variable alone; None:
/// something typed was. `command` has all variables that count.
pub fn refused_variable(error: &clap::Error, command: &Command, args: &[OsString]) -> Option<OsString> {
    let context = |error: &clap::Error| {
        let value = |kind| error.get(kind).map(ToString::to_string);
        (error.kind(), value(ContextKind::InvalidArg), value(ContextKind::InvalidValue))
    };
    let fails = |kept: Option<&OsStr>| {
        let parsed = with_only(command.clone(), kept).try_get_matches_from(args);
        parsed.err().is_some_and(|other| context(&other) == context(error))
    };
    if fails(None) {
        return None;
    }
    let mut names = BTreeSet::new();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        names.extend(command.get_arguments().filter_map(Arg::get_env).map(OsStr::to_owned));
        commands.extend(command.get_subcommands());
    }
    names.into_iter().find(|name| fails(Some(name)))
}

/// The command without variables but one.
fn with_only(command: Command, kept: Option<&OsStr>) -> Command {
    let command = command.mut_args(|arg| match arg.get_env() {
        Some(name) if kept != Some(name) => arg.env(Resettable::Reset),
        Some(_) | None => arg,
    });
    command.mut_subcommands(|subcommand| with_only(subcommand, kept))
}
