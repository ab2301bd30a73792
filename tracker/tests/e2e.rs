//! The `sprat-tracker` process on real sockets: both transports, both families, limits, and its
//! end.

#![expect(clippy::unwrap_used, reason = "a test that meets an error fails, in its helper functions too")]

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::tracker::udp::{self, Family, Response};
use sprat::proto::tracker::{Announce, AnnounceEvent, AnnounceReply, http};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of memory that the tracker may take beyond what it takes without clients, whatever they
/// send.
const GROWTH_MAX: u64 = 64 << 20;

/// A tracker on ports of its own, ended with the test.
struct Tracker {
    process: Child,
    addrs: Vec<(String, SocketAddr)>,
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sprat-tracker"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["UDP", "HTTP", "WORKERS", "TRUSTED_PROXY"] {
        command.env_remove(format!("SPRAT_TRACKER_{name}"));
    }
    command
}

impl Tracker {
    /// Starts one and waits until it says where it listens.
    fn start(command: &mut Command, addr_count: usize) -> Self {
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().take(addr_count);
        let addrs = lines.map(|line| {
            let line = line.unwrap();
            let words: Vec<_> = line.split(' ').collect();
            assert_eq!(words[0], "listening", "{line}");
            (words[1].to_owned(), words[2].parse().unwrap())
        });
        let addrs: Vec<_> = addrs.collect();
        let tracker = Self { process, addrs };
        assert_eq!(tracker.addrs.len(), addr_count, "it ended early");
        tracker
    }

    fn everywhere() -> Self {
        let args = ["--udp", "127.0.0.1:0", "--udp", "[::1]:0", "--http", "127.0.0.1:0", "--http", "[::1]:0"];
        Self::start(command(&args).args(["--workers", "2"]), 4)
    }

    fn addr(&self, kind: &str, ipv6: bool) -> SocketAddr {
        self.addrs.iter().find(|(of, addr)| of == kind && addr.is_ipv6() == ipv6).unwrap().1
    }

    /// Bytes of its memory, by a name of `/proc/PID/status`: `VmRSS` now, `VmHWM` at most so far.
    fn memory(&self, name: &str) -> u64 {
        let figures = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        1024 * line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    }

    /// Ends it by a signal: its exit code and what it had to complain about.
    fn stop(&mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
        let mut complaints = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut complaints).unwrap();
        (self.process.wait().unwrap().code(), complaints)
    }
}

fn announce(peer: u8, port: u16, left: u64) -> Announce {
    Announce {
        left,
        event: AnnounceEvent::Started,
        ..Announce::new(InfoHash([0xa1; 20]), PeerId([peer; 20]), port)
    }
}

/// A client on a socket of its own.
struct UdpPeer {
    socket: UdpSocket,
    family: Family,
    id: u64,
}

impl UdpPeer {
    fn connect(tracker: SocketAddr) -> Self {
        let local = if tracker.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(tracker).unwrap();
        let mut peer = Self { socket, family: Family::of(tracker.ip()), id: 0 };
        let mut request = Vec::new();
        udp::encode_connect(7, &mut request);
        let answer = peer.ask(&request);
        let Response::Connect { transaction_id: 7, connection_id } = answer else { panic!("{answer:?}") };
        peer.id = connection_id;
        peer
    }

    fn ask(&self, request: &[u8]) -> Response {
        self.socket.send(request).unwrap();
        let mut answer = [0; 2000];
        // A sibling test's process may end in between, which interrupts.
        let len = loop {
            match self.socket.recv(&mut answer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                received => break received.unwrap(),
            }
        };
        udp::decode_response(&answer[..len], self.family).unwrap()
    }

    fn announce(&self, announce: &Announce) -> AnnounceReply {
        let mut request = Vec::new();
        udp::encode_announce(self.id, 8, announce, "/announce", &mut request);
        let answer = self.ask(&request);
        let Response::Announce { transaction_id: 8, reply } = answer else { panic!("{answer:?}") };
        reply
    }
}

/// Sends bytes and reads until the tracker closes.
fn exchange(tracker: SocketAddr, request: &str) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(tracker).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head_end = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer.split_off(head_end))
}

fn fetch(tracker: SocketAddr, target: &str) -> (u16, Vec<u8>) {
    exchange(tracker, &format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

fn announce_by_http(tracker: SocketAddr, announce: &Announce) -> AnnounceReply {
    let url = http::announce_url("/announce", announce);
    let (status, body) = fetch(tracker, &url);
    assert_eq!(status, 200);
    http::decode_reply(&body).unwrap()
}

fn stat(tracker: SocketAddr, name: &str) -> u64 {
    let (status, body) = fetch(tracker, "/stats");
    assert_eq!(status, 200);
    let body = String::from_utf8(body).unwrap();
    let start = body.find(&format!("\"{name}\":")).unwrap() + name.len() + 3;
    let digits: String = body[start..].chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

#[test]
fn all_transports_and_families_meet_in_one_swarm() {
    let tracker = Tracker::everywhere();
    for ipv6 in [false, true] {
        let ip = tracker.addr("udp", ipv6).ip();
        let by_udp = UdpPeer::connect(tracker.addr("udp", ipv6));
        assert_eq!(by_udp.announce(&announce(1, 1001, 0)).peers, []);
        let reply = announce_by_http(tracker.addr("http", ipv6), &announce(2, 1002, 9));
        assert!(reply.peers.contains(&(ip, 1001).into()), "{:?}", reply.peers);
        assert_eq!(reply.external_ip, Some(ip));
        let reply = by_udp.announce(&announce(1, 1001, 0));
        assert_eq!(reply.peers, [(ip, 1002).into()]);
        let both = 1 + u32::from(ipv6);
        assert_eq!((reply.seeders, reply.leechers), (Some(both), Some(both)));
        let mut request = Vec::new();
        udp::encode_scrape(by_udp.id, 9, &[InfoHash([0xa1; 20])], &mut request);
        let Response::Scrape { torrents, .. } = by_udp.ask(&request) else { panic!() };
        assert_eq!((torrents[0].seeders, torrents[0].leechers), (both, both));
    }
    let scrape = http::scrape_url("/announce", &[InfoHash([0xa1; 20])]).unwrap();
    let (_, body) = fetch(tracker.addr("http", false), &scrape);
    let figures = b"d8:completei2e10:downloadedi0e10:incompletei2ee";
    assert_eq!(body, [&b"d5:filesd20:"[..], &[0xa1; 20], figures, b"ee"].concat());
    let stats = tracker.addr("http", false);
    let figures = ["torrents", "peers", "seeders", "connects", "announces"].map(|name| stat(stats, name));
    assert_eq!(figures, [1, 4, 2, 2, 6]);
}

#[test]
fn a_socket_for_ipv6_takes_ipv4_as_itself() {
    let tracker = Tracker::start(&mut command(&["--udp", "0", "--http", "0"]), 2);
    let [udp, http] = ["udp", "http"].map(|kind| tracker.addr(kind, true).port());
    let peer = UdpPeer::connect(([127, 0, 0, 1], udp).into());
    peer.announce(&announce(1, 1001, 9));
    let reply = announce_by_http(([127, 0, 0, 1], http).into(), &announce(2, 1002, 9));
    assert_eq!(reply.peers, [([127, 0, 0, 1], 1001).into()]);
    assert_eq!(reply.external_ip, Some([127, 0, 0, 1].into()));
}

#[test]
fn answers_leave_from_the_address_that_was_asked() {
    let tracker = Tracker::start(&mut command(&["--udp", "0", "--udp", "0.0.0.0:0"]), 2);
    for port in tracker.addrs.iter().map(|(_, addr)| addr.port()) {
        for asked in [[127, 0, 0, 1], [127, 0, 0, 7], [127, 99, 9, 9]] {
            // Its socket is connected: it hears nobody else.
            let peer = UdpPeer::connect((asked, port).into());
            assert_eq!(peer.announce(&announce(asked[3], 1001, 9)).tracker_id, None);
        }
    }
}

#[test]
fn connections_are_kept_and_requests_may_come_together_or_in_pieces() {
    let tracker = Tracker::everywhere();
    let mut stream = TcpStream::connect(tracker.addr("http", false)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let target = http::announce_url("/announce", &announce(1, 1001, 9));
    let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let last = "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n";
    // More answers than are sent at once.
    let many = request.repeat(1000) + last;
    let mut sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for piece in many.as_bytes().chunks(777) {
            sender.write_all(piece).unwrap();
        }
    });
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    sending.join().unwrap();
    let answers = String::from_utf8_lossy(&answers);
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 1001);
    assert!(answers.ends_with("\r\n\r\nok\n"));
    assert_eq!(stat(tracker.addr("http", false), "announces"), 1000);
}

#[test]
fn requests_that_no_tracker_serves_are_refused() {
    let tracker = Tracker::everywhere();
    let http = tracker.addr("http", false);
    assert_eq!(fetch(http, "/health"), (200, b"ok\n".to_vec()));
    assert_eq!(fetch(http, "/").0, 404);
    assert_eq!(exchange(http, "POST /announce HTTP/1.0\r\n\r\n").0, 405);
    assert_eq!(exchange(http, "HEAD /health HTTP/1.0\r\n\r\n"), (200, Vec::new()));
    assert_eq!(exchange(http, "GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n").0, 413);
    assert_eq!(exchange(http, "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").0, 413);
    assert_eq!(exchange(http, "\u{16}\u{3}\u{1} no HTTP at all\r\n\r\n").0, 400);
    assert_eq!(exchange(http, &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000))).0, 431);
    assert_eq!(exchange(http, &format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65))).0, 431);
    let (status, body) = fetch(http, "/announce?info_hash=short");
    assert_eq!((status, body.starts_with(b"d14:failure reason")), (200, true));
    assert_eq!(stat(http, "peers"), 0);
}

#[test]
fn careless_targets_and_numbers_are_answered() {
    let tracker = Tracker::everywhere();
    let addr = tracker.addr("http", false);
    for target in ["/health?x", "//health", "/health/", "http://tracker/health", "/stats?x=1"] {
        assert_eq!(fetch(addr, target).0, 200, "{target}");
    }
    let announce = http::announce_url("", &announce(1, 1001, 9));
    for start in ["//announce", "/announce/", &format!("http://{addr}/announce")] {
        for counters in ["", "&left=&uploaded=", "&left&downloaded", "&left=-1"] {
            let (status, body) = fetch(addr, &format!("{start}{announce}{counters}"));
            let reply = http::decode_reply(&body).unwrap();
            assert_eq!(
                (status, reply.seeders, reply.leechers),
                (200, Some(0), Some(1)),
                "{start} {counters}"
            );
        }
    }
}

#[test]
fn a_client_behind_a_trusted_proxy_has_its_own_address() {
    let mut with_proxy = command(&["--http", "127.0.0.1:0", "--trusted-proxy", "127.0.0.0/8"]);
    let mut without = command(&["--http", "127.0.0.1:0", "--trusted-proxy", "10.0.0.0/8"]);
    for (command, seen) in [(&mut with_proxy, [1, 2, 3, 4]), (&mut without, [127, 0, 0, 1])] {
        let tracker = Tracker::start(command, 1);
        let addr = tracker.addr("http", false);
        let target = http::announce_url("/announce", &announce(1, 1001, 9));
        let head = "X-Forwarded-For: 6.6.6.6\r\nx-forwarded-for: 1.2.3.4, 127.0.0.9\r\nConnection: close";
        let (_, body) = exchange(addr, &format!("GET {target} HTTP/1.1\r\n{head}\r\n\r\n"));
        assert_eq!(http::decode_reply(&body).unwrap().external_ip, Some(seen.into()));
        let reply = announce_by_http(addr, &announce(2, 1002, 9));
        assert_eq!(reply.peers, [(seen, 1001).into()]);
    }
}

/// Connects so many clients, each of which sends `request` and gets `answer_count` answers. None:
/// the system does not allow so many sockets, which is said.
fn clients(tracker: SocketAddr, count: usize, request: &str, answer_count: usize) -> Option<Vec<TcpStream>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.maximum.is_some_and(|maximum| maximum < count as u64 + 500) {
        println!("{count} sockets are not allowed here: not tried");
        return None;
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let mut clients: Vec<_> = (0..count)
        .map(|_| {
            let mut client = TcpStream::connect(tracker).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(request.as_bytes()).unwrap();
            client
        })
        .collect();
    for client in &mut clients {
        let mut heads = BufReader::new(client).lines().map(Result::unwrap);
        let is_answer = |line: &String| line.starts_with("HTTP/1.1 200 OK");
        assert_eq!(heads.by_ref().filter(is_answer).take(answer_count).count(), answer_count);
    }
    Some(clients)
}

#[test]
fn partial_requests_take_bounded_memory_while_complete_ones_are_answered() {
    let tracker = Tracker::start(command(&["--http", "127.0.0.1:0"]).args(["--workers", "1"]), 1);
    let addr = tracker.addr("http", false);
    let quiet = tracker.memory("VmRSS");
    // The answer to the first request tells that what came with it has been read.
    let begun = format!("GET /health HTTP/1.1\r\n\r\nGET /announce?{}", "a".repeat(8_000));
    let Some(clients) = clients(addr, 8_000, &begun, 1) else { return };
    assert_eq!(fetch(addr, "/health").0, 200);
    let growth = tracker.memory("VmHWM") - quiet;
    println!("{growth} bytes for {} clients", clients.len());
    assert!(growth <= GROWTH_MAX, "{growth} bytes");
}

#[test]
fn answers_that_were_sent_leave_no_buffers_behind() {
    let tracker = Tracker::start(command(&["--http", "127.0.0.1:0"]).args(["--workers", "1"]), 1);
    let quiet = tracker.memory("VmRSS");
    // A long head is followed by many short ones: large reads, which have many answers.
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(8_000));
    let request = long + &"GET /stats HTTP/1.1\r\n\r\n".repeat(400);
    let Some(clients) = clients(tracker.addr("http", false), 2_000, &request, 400) else { return };
    let growth = tracker.memory("VmRSS").saturating_sub(quiet);
    println!("{growth} bytes for {} clients", clients.len());
    assert!(growth <= GROWTH_MAX, "{growth} bytes");
}

#[test]
fn it_ends_cleanly_when_asked_even_with_connections_open() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut tracker = Tracker::everywhere();
        let mut open = TcpStream::connect(tracker.addr("http", false)).unwrap();
        open.write_all(b"GET /hea").unwrap();
        UdpPeer::connect(tracker.addr("udp", true)).announce(&announce(1, 1001, 9));
        assert_eq!(tracker.stop(signal), (Some(0), String::new()));
    }
}

#[test]
fn a_port_in_use_is_one_line_and_wrong_usage_is_another_code() {
    let tracker = Tracker::everywhere();
    for kind in ["udp", "http"] {
        let addr = tracker.addr(kind, false).to_string();
        let output = command(&[&format!("--{kind}"), &addr]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(&addr) && said.contains("in use"), "{said}");
        assert!(output.stdout.is_empty());
    }
    let refused = |command: &mut Command, code: i32, parts: &[&str]| {
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(code), 1), "{said}");
        assert!(said.starts_with("sprat-tracker: ") && !said.contains("os error"), "{said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        said
    };
    let typed =
        refused(command(&["--udp", "nonsense"]).env("SPRAT_TRACKER_UDP", "1"), 2, &["--udp", "--help"]);
    assert!(!typed.contains("SPRAT_TRACKER_UDP"), "{typed}");
    refused(&mut command(&["extra"]), 2, &["extra", "--help"]);
    refused(command(&[]).env("SPRAT_TRACKER_HTTP", "no"), 2, &["SPRAT_TRACKER_HTTP: ", "--http", "--help"]);
    let no_text: &OsStr = OsStrExt::from_bytes(b"\xff");
    refused(command(&[]).env("SPRAT_TRACKER_WORKERS", no_text), 2, &["SPRAT_TRACKER_WORKERS: "]);
    for limit in [8, 24] {
        let mut limited = Command::new("sh");
        let line = format!("ulimit -n {limit}; exec \"$0\" --udp 127.0.0.1:0 --workers 64");
        limited.args(["-c", &line, env!("CARGO_BIN_EXE_sprat-tracker")]);
        refused(&mut limited, 1, &["allow more with `ulimit -n`"]);
    }
}

#[test]
fn options_come_from_the_environment_too() {
    let mut command = command(&[]);
    command.env("SPRAT_TRACKER_UDP", "127.0.0.1:0,[::1]:0").env("SPRAT_TRACKER_WORKERS", "1");
    let tracker = Tracker::start(&mut command, 2);
    UdpPeer::connect(tracker.addr("udp", true));
    UdpPeer::connect(tracker.addr("udp", false));
}
