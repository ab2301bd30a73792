//! The command line: parses and interprets it.

use std::ffi::{OsStr, OsString};
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;

use clap::builder::Resettable;
use clap::{Command, CommandFactory, FromArgMatches, Parser};
use sprat::proto::tracker::http::forwarded::Network;
use sprat::usage::{self, SEE_HELP};

/// Default port, the usual one of trackers.
const PORT_DEFAULT: u16 = 6969;
/// Most worker threads of a kind; more help on no machine.
const WORKER_MAX: usize = 256;

/// A BitTorrent tracker over UDP and HTTP.
///
/// Without --udp and --http it listens for both on port 6969, over IPv4 and IPv6. HTTP also answers
/// /scrape, /health and /stats.
#[derive(Debug, Parser)]
#[command(name = "sprat-tracker", version)]
pub(crate) struct Args {
    /// Listen for UDP here: ADDRESS:PORT, or a PORT for all addresses (0: any); may be given more
    /// than once
    #[arg(long, value_name = "ADDR", value_parser = listen_addr, env = "SPRAT_TRACKER_UDP", value_delimiter = ',')]
    udp: Vec<SocketAddr>,
    /// Listen for HTTP here: ADDRESS:PORT, or a PORT for all addresses (0: any); may be given more
    /// than once
    #[arg(long, value_name = "ADDR", value_parser = listen_addr, env = "SPRAT_TRACKER_HTTP", value_delimiter = ',')]
    http: Vec<SocketAddr>,
    /// Believe X-Forwarded-For from this reverse proxy: an ADDRESS or a network ADDRESS/BITS; may
    /// be given more than once
    #[arg(long, value_name = "CIDR", env = "SPRAT_TRACKER_TRUSTED_PROXY", value_delimiter = ',')]
    trusted_proxy: Vec<Network>,
    /// Threads for each kind of socket [default: one for each core]
    #[arg(long, value_name = "COUNT", env = "SPRAT_TRACKER_WORKERS")]
    workers: Option<NonZeroUsize>,
}

impl Args {
    /// Parses the command line. Wrong usage exits with code 2, and help that cannot be written with
    /// 1. An empty variable counts as unset.
    pub(crate) fn parse_or_exit() -> Self {
        let command = without_empty(Self::command(), &|name| std::env::var_os(name));
        let typed: Vec<OsString> = std::env::args_os().collect();
        let parsed = command.clone().try_get_matches_from(&typed);
        parsed.and_then(|matches| Self::from_arg_matches(&matches)).unwrap_or_else(|error| {
            if error.use_stderr() {
                // Without a reader the exit code remains.
                let _ = writeln!(std::io::stderr(), "sprat-tracker: {}", in_words(&error, &command, &typed));
                std::process::exit(error.exit_code());
            }
            let printed = error.print().and_then(|()| std::io::stdout().flush());
            let is_lost = |fault: &std::io::Error| fault.kind() != ErrorKind::BrokenPipe;
            std::process::exit(if printed.as_ref().is_err_and(is_lost) { 1 } else { error.exit_code() })
        })
    }

    /// Returns the UDP addresses to listen on.
    pub(crate) fn udp(&self) -> Vec<SocketAddr> {
        self.or_default(&self.udp)
    }

    /// Returns the HTTP addresses to listen on.
    pub(crate) fn http(&self) -> Vec<SocketAddr> {
        self.or_default(&self.http)
    }

    fn or_default(&self, given: &[SocketAddr]) -> Vec<SocketAddr> {
        if self.udp.is_empty() && self.http.is_empty() {
            vec![everywhere(PORT_DEFAULT)]
        } else {
            given.to_vec()
        }
    }

    /// Returns the proxies whose `X-Forwarded-For` is trusted.
    pub(crate) fn trusted_proxies(&self) -> Vec<Network> {
        self.trusted_proxy.clone()
    }

    /// Returns the threads for each kind of socket.
    pub(crate) fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.workers.map_or_else(cores, NonZeroUsize::get).min(WORKER_MAX)
    }
}

/// Describes a usage error, with its argument or variable, on one line.
fn in_words(error: &clap::Error, command: &Command, typed: &[OsString]) -> String {
    let variable = usage::refused_variable(error, command, typed);
    let place = variable.map_or(String::new(), |name| format!("{}: ", name.display()));
    format!("{place}{}; {SEE_HELP}", usage::what(error))
}

/// Removes empty variables from the command.
fn without_empty(command: Command, value: &dyn Fn(&OsStr) -> Option<OsString>) -> Command {
    command.mut_args(|arg| {
        let is_empty = arg.get_env().and_then(value).is_some_and(|text| text.is_empty());
        if is_empty { arg.env(Resettable::Reset) } else { arg }
    })
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

fn listen_addr(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(everywhere);
    port.or_else(|_| text.parse())
        .map_err(|_| "not an ADDRESS:PORT such as 127.0.0.1:6969 or [::]:6969, nor a PORT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::try_parse_from(line.split(' ')).unwrap()
    }

    #[test]
    fn without_options_both_kinds_listen_everywhere() {
        let both = args("sprat-tracker");
        assert_eq!(both.udp(), ["[::]:6969".parse().unwrap()]);
        assert_eq!(both.udp(), both.http());
        let one = args("sprat-tracker --http 127.0.0.1:1 --http 7");
        assert_eq!(one.udp(), []);
        assert_eq!(one.http(), ["127.0.0.1:1", "[::]:7"].map(|addr| addr.parse().unwrap()));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let variables = |text: &str| {
            let command = without_empty(Args::command(), &|_| Some(text.into()));
            command.get_arguments().filter(|arg| arg.get_env().is_some()).count()
        };
        assert!(variables("6969") >= 3);
        assert_eq!(variables(""), 0);
    }

    #[test]
    fn an_invalid_address_is_wrong_usage() {
        for bad in [
            "--udp localhost",
            "--udp 127.0.0.1",
            "--http 1.2.3.4:65536",
            "--workers 0",
            "--trusted-proxy nginx",
            "--trusted-proxy 10.0.0.0/33",
            "extra",
        ] {
            assert!(Args::try_parse_from(format!("sprat-tracker {bad}").split(' ')).is_err(), "{bad}");
        }
    }
}
