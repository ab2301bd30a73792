//! `SPRAT_*` variables, which stand for options that are not typed.
//!
//! An empty variable counts as not set. Kubernetes and Docker put the address of every service into
//! the environment, so a service called `sprat` sets `SPRAT_PORT=tcp://10.0.0.11:6881`: where an
//! option does not take a URL, such a value is not meant for sprat, and is ignored with a warning.
//! Any other value that an option does not take is wrong usage: ignoring a mistyped limit would
//! mean no limit. The list of variables is derived from the options.

use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::{Arg, ArgMatches, Command};

use super::text::printable;

/// Transports in front of a service's address, as container platforms write it.
const SERVICE_SCHEMES: [&str; 3] = ["tcp", "udp", "sctp"];

/// The variables of container platforms that stand in the place of options.
#[derive(Debug, Default)]
pub(crate) struct Ignored(Vec<Service>);

/// Such a variable, and the command that would have read it, by the names on the way to it.
#[derive(Debug)]
struct Service {
    command: Vec<String>,
    name: OsString,
    text: OsString,
}

/// Returns the command without the variables that are empty or the address of a service, and the
/// latter; `value` returns the value of a variable.
pub(crate) fn without_unset(
    command: Command,
    value: &dyn Fn(&OsStr) -> Option<OsString>,
) -> (Command, Ignored) {
    let mut ignored = Ignored::default();
    let command = cleaned(command, &[], value, &mut ignored);
    (command, ignored)
}

fn cleaned(
    command: Command,
    place: &[String],
    value: &dyn Fn(&OsStr) -> Option<OsString>,
    ignored: &mut Ignored,
) -> Command {
    let command = command.mut_args(|arg| {
        let Some(name) = arg.get_env().map(OsStr::to_owned) else { return arg };
        match value(&name) {
            Some(text) if text.is_empty() => arg.env(Resettable::Reset),
            Some(text) if is_service(&text) && !takes_url(&arg) => {
                ignored.0.push(Service { command: place.to_vec(), name, text });
                arg.env(Resettable::Reset)
            }
            Some(_) | None => arg,
        }
    });
    command.mut_subcommands(|subcommand| {
        let below = [place, &[subcommand.get_name().to_owned()]].concat();
        cleaned(subcommand, &below, value, ignored)
    })
}

/// Whether it is the address of a service: `tcp://10.0.0.11:6881`.
fn is_service(text: &OsStr) -> bool {
    let Some((scheme, address)) = text.to_str().and_then(|text| text.split_once("://")) else { return false };
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    SERVICE_SCHEMES.contains(&scheme)
        && !host.is_empty()
        && !host.contains('/')
        && port.parse::<u16>().is_ok()
}

fn takes_url(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "URL"))
}

impl Ignored {
    /// A warning for each that the command in use would have read.
    pub(crate) fn warnings(&self, matches: &ArgMatches) -> Vec<String> {
        let (mut command, mut matches) = (Vec::new(), matches);
        while let Some((name, below)) = matches.subcommand() {
            command.push(name.to_owned());
            matches = below;
        }
        // Options that count everywhere stand at the top.
        let used = self.0.iter().filter(|service| command.starts_with(&service.command));
        used.map(|Service { name, text, .. }| {
            format!(
                "{}={} is ignored: it is the address of a service, set by a container platform; use the option instead",
                name.to_string_lossy(),
                printable(&text.to_string_lossy())
            )
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::Cli;
    use super::*;
    use clap::CommandFactory;

    /// Every option that has a variable, with the command that it belongs to.
    fn options(command: &Command) -> Vec<Arg> {
        let own = command.get_arguments().filter(|arg| arg.get_env().is_some()).cloned();
        own.chain(command.get_subcommands().flat_map(options)).collect()
    }

    #[test]
    fn an_empty_variable_is_none_and_a_service_is_none_where_no_url_fits() {
        let all = options(&Cli::command());
        assert!(all.len() > 30, "{}", all.len());
        let (command, ignored) = without_unset(Cli::command(), &|_| Some(OsString::new()));
        assert!(options(&command).is_empty() && ignored.0.is_empty());
        let (command, ignored) = without_unset(Cli::command(), &|_| Some("tcp://10.0.0.11:6881".into()));
        assert!(options(&command).iter().all(takes_url));
        let is_ignored = |name: &str| ignored.0.iter().any(|service| service.name == name);
        assert!(is_ignored("SPRAT_PORT") && is_ignored("SPRAT_QUIET") && !is_ignored("SPRAT_TRACKER"));
        let (command, ignored) = without_unset(Cli::command(), &|_| Some("6881".into()));
        assert_eq!((options(&command).len(), ignored.0.len()), (all.len(), 0));
    }

    #[test]
    fn services_are_told_from_what_may_be_meant() {
        for service in
            ["tcp://10.0.0.11:6881", "udp://[fd00::1]:53", "sctp://svc:1", "tcp://172.17.0.2:65535"]
        {
            assert!(is_service(service.as_ref()), "{service}");
        }
        for other in
            ["6881", "tcp://", "tcp://h", "tcp://:1", "http://h:1", "tcp://h:1/x", "tcp://h:99999", "/tcp"]
        {
            assert!(!is_service(other.as_ref()), "{other}");
        }
    }

    #[test]
    fn only_what_the_command_would_read_is_warned_of() {
        let service = |name: &OsStr| (name == "SPRAT_PORT").then(|| "tcp://10.0.0.11:6881".into());
        let warnings = |line: &str| {
            let (command, ignored) = without_unset(Cli::command(), &service);
            let matches = command.try_get_matches_from(line.split(' ')).unwrap();
            ignored.warnings(&matches)
        };
        assert_eq!(warnings("sprat download x.torrent").len(), 1);
        assert_eq!(warnings("sprat dht node").len(), 1);
        assert!(warnings("sprat dht node")[0].starts_with("SPRAT_PORT=tcp://10.0.0.11:6881 is ignored"));
        assert!(warnings("sprat verify x.torrent").is_empty() && warnings("sprat create x").is_empty());
    }
}
