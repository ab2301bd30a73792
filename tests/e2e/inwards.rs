//! Trackers on the internet that aim a real process at its own machine, and links that name its
//! other services. A server behind an HTTP proxy stands for one on the internet, and one in a
//! network of the test's own has a public address.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use crate::process::{Sprat, content, sprat};

/// A listener that nobody may connect to.
struct Victim(TcpListener);

impl Victim {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Whether somebody connected.
    fn was_asked(&self) -> bool {
        self.0.accept().is_ok()
    }
}

/// A proxy that gives every request the answer that `answer` has for its first line; its address.
fn proxy(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (Ok(mut socket), mut request) = (socket, [0; 4096]) else { continue };
            let len = socket.read(&mut request).unwrap_or(0);
            let head = String::from_utf8_lossy(&request[..len]).into_owned();
            // A client that is gone needs no answer.
            let _ = socket.write_all(answer(head.lines().next().unwrap_or_default()).as_bytes());
        }
    });
    addr
}

fn redirect(target: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

/// A torrent of which nothing is there.
fn torrent() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    content(dir.path(), &[("set", 100_000)]);
    assert_eq!(sprat(dir.path(), &["create", "set"]).code, Some(0));
    dir
}

#[test]
fn no_redirect_from_the_internet_leads_to_this_machine() {
    let (dir, victim) = (torrent(), Victim::new());
    let port = victim.addr().port();
    let hosts = [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
    ];
    let targets = hosts.map(|host| format!("http://{host}:{port}/announce"));
    let proxy = proxy(move |line| {
        let number = line.split("//t").nth(1).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        redirect(number.and_then(|number| targets.get(number)).map_or("/", |target| target))
    });
    let trackers: Vec<String> = (0..hosts.len()).map(|at| format!("http://t{at}.example/announce")).collect();
    let mut args = vec!["download", "set.torrent", "-d", "copy", "-p", "0", "--json"];
    args.extend(trackers.iter().flat_map(|url| ["--tracker", url]));
    let proxy = format!("http://{proxy}");
    for variable in ["http_proxy", "all_proxy"] {
        let mut download = Sprat::start_with(dir.path(), &args, &[(variable, &proxy), ("no_proxy", "")]);
        for _ in 0..hosts.len() {
            let line = download.line("/announce");
            assert!(line.contains("local network"), "{line}");
        }
        assert!(!victim.was_asked());
    }
}

#[test]
fn the_address_of_a_torrent_leads_from_the_internet_to_no_service_of_this_machine() {
    let (dir, victim) = (tempfile::tempdir().unwrap(), Victim::new());
    let target = format!("http://{}/x.torrent", victim.addr());
    let proxy = format!("http://{}", proxy(move |_| redirect(&target)));
    let args = ["show", "http://torrents.example/x.torrent"];
    let ended = Sprat::start_with(dir.path(), &args, &[("http_proxy", &proxy), ("no_proxy", "")]).end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.err[0].contains("local network"), "{ended:?}");
    assert!(!victim.was_asked());
}

#[test]
fn a_tracker_behind_a_proxy_on_this_machine_names_no_peers_of_this_machine() {
    let (dir, victim) = (torrent(), Victim::new());
    let (port, friend) = (victim.addr().port(), TcpListener::bind("127.0.0.1:0").unwrap());
    let proxy = proxy(move |_| {
        let peer = format!("d2:ip9:127.0.0.14:porti{port}ee");
        let body = format!("d8:intervali1800e5:peersl{peer}ee");
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
    });
    let (proxy, named) = (format!("http://{proxy}"), friend.local_addr().unwrap().to_string());
    let tracker = "http://tracker.example/announce";
    let args = [
        "download",
        "set.torrent",
        "-d",
        "copy",
        "-p",
        "0",
        "--json",
        "--tracker",
        tracker,
        "--peer",
        &named,
    ];
    let mut download = Sprat::start_with(dir.path(), &args, &[("http_proxy", &proxy), ("no_proxy", "")]);
    assert_eq!(download.event("tracker")["peers"], 1);
    // It dials whom the user named, and once more after a while.
    for _ in 0..2 {
        drop(friend.accept().unwrap());
    }
    assert!(!victim.was_asked());
}

#[test]
fn a_link_reaches_the_trackers_of_this_machine_and_none_of_its_other_services() {
    let (dir, victim) = (torrent(), Victim::new());
    let tracker = TcpListener::bind("127.0.0.1:0").unwrap();
    let link = format!(
        "magnet:?xt=urn:btih:{}&tr=http://{}/admin/reboot?now=1&tr=http://{}/announce",
        "ab".repeat(20),
        victim.addr(),
        tracker.local_addr().unwrap()
    );
    let mut download = Sprat::start(dir.path(), &["download", &link, "-d", "copy", "-p", "0", "--json"]);
    let (mut asked, mut request) = (tracker.accept().unwrap().0, [0; 4096]);
    let len = asked.read(&mut request).unwrap();
    assert!(request[..len].starts_with(b"GET /announce?info_hash="));
    let line = download.line("/admin/reboot");
    assert!(line.contains("local network"), "{line}");
    assert!(!victim.was_asked());
}

/// Set for the part of [`no_redirect_of_a_public_address_leads_inwards`] that runs in a network of
/// its own.
const INSIDE: &str = "SPRAT_TEST_NETWORK";

/// Runs the named test of this program once more as root of a network of its own, in which each of
/// `addrs` is this machine's. False: such a network cannot be made here, which is said.
fn runs_inside(test: &str, addrs: &[&str]) -> bool {
    let unshare = |line: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--map-root-user", "sh", "-ec", line, "sh"]);
        command.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]).env(INSIDE, "1");
        command
    };
    let add = addrs.iter().map(|addr| format!("ip addr add {addr}/32 dev lo; ")).collect::<String>();
    let network = format!("ip link set lo up; {add}");
    if !unshare(&network).output().is_ok_and(|output| output.status.success()) {
        println!("no network of our own here: not tried");
        return false;
    }
    let output = unshare(&format!("{network} exec \"$@\"")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    true
}

/// A tracker that answers `/N/announce` with a redirect to the target of that number.
fn redirecting(ip: &str, targets: Vec<String>) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (Ok(mut socket), mut request) = (socket, [0; 4096]) else { continue };
            let len = socket.read(&mut request).unwrap_or(0);
            let head = String::from_utf8_lossy(&request[..len]).into_owned();
            let number = head.split('/').nth(1).and_then(|number| number.parse::<usize>().ok());
            // A client that is gone needs no answer.
            let _ = number.map(|number| socket.write_all(redirect(&targets[number]).as_bytes()));
        }
    });
    addr
}

#[test]
fn no_redirect_of_a_public_address_leads_inwards() {
    let (public, private) = ("5.5.5.5", "10.0.0.1");
    if std::env::var_os(INSIDE).is_none() {
        runs_inside("inwards::no_redirect_of_a_public_address_leads_inwards", &[public, private]);
        return;
    }
    let dir = torrent();
    let victims = ["127.0.0.1", private].map(|ip| TcpListener::bind((ip, 0)).unwrap());
    let [loopback, lan] = victims.each_ref().map(|victim| victim.local_addr().unwrap().port());
    let other = TcpListener::bind((public, 0)).unwrap();
    let mut targets: Vec<String> = ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"]
        .map(|host| format!("http://{host}:{loopback}/announce"))
        .into();
    targets.extend(
        [private, "167772161", "[::ffff:10.0.0.1]"].map(|host| format!("http://{host}:{lan}/announce")),
    );
    let refused_count = targets.len();
    targets.push(format!("http://{}/announce", other.local_addr().unwrap()));
    let tracker = redirecting(public, targets.clone());
    let urls: Vec<_> = (0..targets.len()).map(|at| format!("http://{tracker}/{at}/announce")).collect();
    let mut args = vec!["download", "set.torrent", "-d", "copy", "-p", "0", "--json"];
    args.extend(urls.iter().flat_map(|url| ["--tracker", url]));
    let mut download = Sprat::start(dir.path(), &args);
    let (mut asked, mut request) = (other.accept().unwrap().0, [0; 4096]);
    let len = asked.read(&mut request).unwrap();
    let head = String::from_utf8_lossy(&request[..len]).to_ascii_lowercase();
    assert!(head.starts_with("get /announce") && !head.contains("referer"), "{head}");
    drop(asked);
    let mut refused = 0;
    while refused < refused_count {
        let line = download.line("/announce");
        refused += usize::from(line.contains("local network"));
    }
    for victim in victims {
        victim.set_nonblocking(true).unwrap();
        assert!(victim.accept().is_err(), "{victim:?} was asked");
    }
}
