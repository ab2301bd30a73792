//! What people type and see.
//!
//! `args` is what was typed, `plan` what is meant; each command has a file of its own. What goes wrong is a
//! `Failure`: one line on standard error and an exit code. Everything shown goes through `report`, and text
//! from outside through `text`. Knows the engine by its public API only.

mod args;
mod clock;
mod create;
mod demo;
mod demo_data;
mod describe;
mod dht;
mod dht_args;
mod dht_items;
mod dht_node;
mod download;
mod failure;
mod interrupt;
mod make;
mod narrator;
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

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use failure::Failure;
use report::Report;

/// `sprat` without a command: the help, as wrong usage.
const HELP_UNASKED: ErrorKind = ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;

/// Runs the command named by the process's arguments. Wrong usage ends here, with exit code 2.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Asked for or not, help takes its lines.
        Err(error) if !error.use_stderr() || error.kind() == HELP_UNASKED => error.exit(),
        Err(error) => {
            let failure = Failure::usage(&error);
            failure.text().into_iter().for_each(Report::error);
            return failure.exit_code();
        }
    };
    log(cli.output.verbose);
    let report = Report::new(cli.output);
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
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(text) = failure.text() {
                Report::error(text);
            }
            failure.exit_code()
        }
    }
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
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_ansi(colors).init();
}
