//! The `sprat-tracker` command.

fn main() {}
