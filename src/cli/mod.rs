//! What people type and see.
//!
//! `args` is what was typed, `plan` what is meant; each command has a file of its own. What goes
//! wrong is a `Failure`: one line on standard error and an exit code. Everything shown goes through
//! `report`, and text from outside through `text`. Knows the engine by its public API only.

mod args;
mod clock;
mod create;
mod demo;
mod demo_data;
mod demo_folder;
mod describe;
mod dht;
mod dht_args;
mod dht_items;
mod dht_node;
mod download;
mod environment;
mod failure;
mod interrupt;
mod make;
mod misfit;
mod narrator;
mod out_file;
mod output;
mod overlap;
mod plan;
mod presence;
mod report;
mod runtime;
mod seed;
mod seed_many;
mod select;
mod show;
mod simulate;
mod size;
mod source;
mod swarm;
mod text;
mod verify;

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use crate::usage;
use args::{Cli, Command};
use failure::Failure;
use report::Report;

/// `sprat` without a command: the help, as wrong usage.
const HELP_UNASKED: ErrorKind = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

/// Runs the command named by the process's arguments. Wrong usage ends here, with exit code 2.
pub fn run() -> ExitCode {
    if let Err(failure) = runtime::require_descriptors() {
        return end(Err(failure), true);
    }
    interrupt::survive_file_limit();
    let (cli, warnings) = match parse() {
        Ok(parsed) => parsed,
        Err(ended) => return ended,
    };
    log(cli.output.verbose);
    let report = Report::new(cli.output);
    warnings.iter().for_each(|warning| report.warn_aside(warning));
    let result = match &cli.command {
        Command::Download(args) => download::run(args, &report),
        Command::Seed(args) => seed::run(args, &report),
        Command::Create(args) => create::run(args, &report),
        Command::Show(args) => show::run(args, &report),
        Command::Verify(args) => verify::run(args, &report),
        Command::Demo(args) => demo::run(args, &report),
        Command::Dht(args) => dht::run(args, &report),
        Command::Simulate(command) => simulate::run(command, &report),
        Command::Completions { shell } => completions(*shell),
    };
    end(result, is_for_output(&cli.command))
}

/// Whether what the command prints is what it is for: then it has failed if that cannot be written.
fn is_for_output(command: &Command) -> bool {
    match command {
        Command::Download(_) | Command::Seed(_) | Command::Demo(_) => false,
        Command::Dht(args) => !args.is_node(),
        Command::Create(_)
        | Command::Show(_)
        | Command::Verify(_)
        | Command::Simulate(_)
        | Command::Completions { .. } => true,
    }
}

/// Says how a command ended and waits for all it printed to be written; `is_for_output`: see
/// [`is_for_output`].
fn end(result: Result<(), Failure>, is_for_output: bool) -> ExitCode {
    let text = result.as_ref().err().and_then(Failure::text);
    text.into_iter().for_each(Report::error);
    interrupt::finish_output();
    let mut code = result.as_ref().map_or_else(Failure::exit_code, |()| ExitCode::SUCCESS);
    if let Some(error) = output::take_error() {
        let text = format!("standard output: {}; some of the output is missing", failure::words(&error));
        if is_for_output && result.is_ok() {
            let failure = Failure::Failed(text);
            failure.text().into_iter().for_each(Report::error);
            code = failure.exit_code();
        } else {
            Report::warning(&text);
        }
        interrupt::finish_output();
    }
    code
}

/// Prints the help or the version.
fn help(asked: &clap::Error) -> ExitCode {
    let printed = asked.print().and_then(|()| std::io::stdout().flush());
    let is_read = |error: &std::io::Error| error.kind() != std::io::ErrorKind::BrokenPipe;
    match printed.err().filter(|error| is_read(error) && !asked.use_stderr()) {
        None => ExitCode::from(u8::try_from(asked.exit_code()).unwrap_or(2)),
        Some(error) => {
            end(Err(Failure::Failed(format!("standard output: {}", failure::words(&error)))), true)
        }
    }
}

/// What was typed, and what is to be said about variables; otherwise how it ends.
fn parse() -> Result<(Cli, Vec<String>), ExitCode> {
    let variable = |name: &OsStr| std::env::var_os(name);
    let args: Vec<OsString> = std::env::args_os().collect();
    let (command, ignored) = environment::without_unset(Cli::command(), &variable);
    let parsed = command.clone().try_get_matches_from(&args).and_then(|matches| {
        let warnings = ignored.warnings(&matches);
        Ok((Cli::from_arg_matches(&matches)?, warnings))
    });
    parsed.map_err(|error| {
        // Asked for or not, help takes its lines.
        if !error.use_stderr() || error.kind() == HELP_UNASKED {
            return help(&error);
        }
        let failure = Failure::usage(&error, &args);
        let failure = match (usage::refused_variable(&error, &command, &args), failure.text()) {
            (Some(name), Some(text)) => Failure::Usage(format!("{}: {text}", name.to_string_lossy())),
            (Some(_) | None, _) => failure,
        };
        end(Err(failure), true)
    })
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "sprat", &mut script);
    report::print_out(&String::from_utf8_lossy(&script));
    Ok(())
}

/// What happens inside, to standard error, if asked for.
fn log(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => tracing_subscriber::filter::LevelFilter::INFO,
        2 => tracing_subscriber::filter::LevelFilter::DEBUG,
        _ => tracing_subscriber::filter::LevelFilter::TRACE,
    };
    let colors =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let writer = || output::LogWriter;
    tracing_subscriber::fmt().with_writer(writer).with_max_level(level).with_ansi(colors).init();
}
