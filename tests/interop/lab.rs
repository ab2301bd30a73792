//! Hosts on one machine: network namespaces on a bridge in a namespace of its own. Needs root and
//! iproute2.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Labs of this process so far: their names must differ.
static LAB_COUNT: AtomicU32 = AtomicU32::new(0);

/// Ethernet, IPv4, and TCP with timestamps.
const PACKET_HEADER_LEN: u64 = 14 + 20 + 32;

/// Hosts that see each other and nobody else; gone when dropped.
pub(crate) struct Lab {
    switch: String,
    /// The hosts.
    pub(crate) hosts: Vec<Host>,
}

/// One host.
pub(crate) struct Host {
    namespace: String,
    /// Its address.
    pub(crate) ip: IpAddr,
}

/// What is missing to make hosts.
fn missing() -> Option<String> {
    let probe = format!("sprat-probe-{}-{}", std::process::id(), LAB_COUNT.fetch_add(1, Ordering::Relaxed));
    let made = ip(&["netns", "add", &probe]);
    if made {
        ip(&["netns", "del", &probe]);
    }
    (!made).then(|| "root with iproute2".to_owned())
}

/// Whether all is there that a test needs, of which `missing` are what it needs beside hosts. If
/// not, it says so, and fails with `SPRAT_INTEROP=require`.
pub(crate) fn can_try(what: &str, missing: impl IntoIterator<Item = Option<String>>) -> bool {
    let missing: Vec<_> = missing.into_iter().chain([self::missing()]).flatten().collect();
    if !missing.is_empty() {
        let what = format!("{what} not tried: {} missing", missing.join(", "));
        assert_ne!(std::env::var("SPRAT_INTEROP").as_deref(), Ok("require"), "{what}");
        eprintln!("{what}");
    }
    missing.is_empty()
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

fn must(arguments: &[&str]) {
    assert!(ip(arguments), "ip {}", arguments.join(" "));
}

impl Lab {
    /// A lab of `count` hosts.
    pub(crate) fn new(count: u8) -> Self {
        let tag = format!("sprat-{}-{}", std::process::id(), LAB_COUNT.fetch_add(1, Ordering::Relaxed));
        let switch = format!("{tag}-switch");
        must(&["netns", "add", &switch]);
        must(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        must(&["-n", &switch, "link", "set", "br0", "up"]);
        let hosts = (1..=count).map(|number| Host::plug(&tag, &switch, number)).collect();
        Self { switch, hosts }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in &self.hosts {
            ip(&["netns", "del", &host.namespace]);
        }
        ip(&["netns", "del", &self.switch]);
    }
}

impl Host {
    fn plug(tag: &str, switch: &str, number: u8) -> Self {
        let namespace = format!("{tag}-{number}");
        let port = format!("port{number}");
        let ip = Ipv4Addr::new(10, 99, 0, number);
        must(&["netns", "add", &namespace]);
        must(&[
            "-n", switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace,
        ]);
        must(&["-n", switch, "link", "set", &port, "master", "br0", "up"]);
        must(&["-n", &namespace, "addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
        must(&["-n", &namespace, "link", "set", "eth0", "up"]);
        must(&["-n", &namespace, "link", "set", "lo", "up"]);
        // Some clients look for a default route before they believe in a network.
        must(&["-n", &namespace, "route", "add", "default", "via", "10.99.0.254", "dev", "eth0"]);
        Self { namespace, ip: ip.into() }
    }

    /// A command that runs on this host.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Addresses of the other hosts with which it has connections.
    pub(crate) fn connected_to(&self) -> BTreeSet<String> {
        let output = self.command("ss").args(["-Htn", "state", "established"]).output().expect("ss");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let remote = |line: &str| {
            let addr = line.split_whitespace().nth(3)?.rsplit_once(':')?.0;
            Some(addr.trim_matches(['[', ']']).trim_start_matches("::ffff:").to_owned())
        };
        text.lines().filter_map(remote).collect()
    }

    /// Bytes that it sent, without the headers of TCP, IP and Ethernet.
    pub(crate) fn sent_len(&self) -> u64 {
        let counter = |name: &str| {
            let path = format!("/sys/class/net/eth0/statistics/{name}");
            let output = self.command("cat").arg(path).output().expect("cat");
            String::from_utf8_lossy(&output.stdout).trim().parse::<u64>().expect("a counter")
        };
        counter("tx_bytes") - counter("tx_packets") * PACKET_HEADER_LEN
    }
}
