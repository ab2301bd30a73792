//! What people type and see.

/// Runs the command named by the process's arguments.
pub fn run() -> std::process::ExitCode {
    todo!()
}
