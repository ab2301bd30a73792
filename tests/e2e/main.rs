//! The real binary and the real engine on real sockets, loopback only.

mod cli;
mod process;
