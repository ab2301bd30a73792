//! The `sprat` command.

fn main() -> std::process::ExitCode {
    sprat::cli::run()
}
