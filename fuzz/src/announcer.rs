//! The announcer of a torrent and the client of UDP trackers, among trackers that answer anything.

use std::net::SocketAddr;

use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::tracker::announcer::{Announcer, Config, Output, RequestId};
use sprat::proto::tracker::udp_client::{Output as UdpOutput, UdpClient};
use sprat::proto::tracker::{Progress, TrackerError, http, udp};

use super::input::Input;
use super::timer::{WAKE_COUNT_MAX, later};

/// Outputs of one input: some for each tracker.
const OUTPUT_COUNT_MAX: usize = 1_000;
/// How long leaving may take: an announce under way, then `stopped`, each with its wait.
const LEAVING_MAX: Duration = Duration::from_secs(10);
const URLS: [&str; 6] =
    ["udp://a/announce", "udp://b:80", "http://c/announce", "https://d/announce?x=1", "wss://e/", ""];

pub fn announcer(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut rig = Rig::new(&mut input);
    while !input.is_empty() {
        rig.step(&mut input);
        rig.drain();
    }
    rig.leave();
}

struct Rig {
    announcer: Announcer,
    client: UdpClient<RequestId>,
    now: Instant,
    /// Announces by HTTP that are under way.
    http: Vec<RequestId>,
    /// Those by UDP.
    udp: Vec<RequestId>,
    /// Datagrams that are not answered.
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    is_leaving: bool,
}

impl Rig {
    fn new(input: &mut Input<'_>) -> Self {
        let tier = |input: &mut Input<'_>| {
            (0..1 + input.byte() % 3).filter_map(|_| input.one_of(&URLS)).map(str::to_owned).collect()
        };
        let config = Config {
            infohash: InfoHash([1; 20]),
            peer_id: PeerId([2; 20]),
            port: 6_881,
            tiers: (0..1 + input.byte() % 3).map(|_| tier(input)).collect(),
            numwant: 50,
        };
        let progress = Progress { uploaded: 0, downloaded: 0, left: u64::from(input.byte()) };
        let now = Instant::from_micros(1_000_000);
        Self {
            announcer: Announcer::new(config, progress, Rng::from_number(1), now),
            client: UdpClient::new(Rng::from_number(2)),
            now,
            http: Vec::new(),
            udp: Vec::new(),
            datagrams: Vec::new(),
            is_leaving: false,
        }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        match input.byte() % 12 {
            0..=2 => self.wait(input),
            3 | 4 => self.answer_http(input),
            5..=7 => self.answer_udp(input),
            8 => self.announcer.handle_need_peers(now),
            9 => match input.byte() % 8 {
                0 if !self.is_leaving => {
                    self.is_leaving = true;
                    self.announcer.handle_stopped(now);
                }
                1 => self.announcer.handle_completed(now),
                _ => {
                    let mut amount = || u64::from(input.byte());
                    let progress = Progress { uploaded: amount(), downloaded: amount(), left: amount() };
                    self.announcer.handle_progress(progress);
                }
            },
            10 => {
                if let Some(request) = input.one_of(&self.http) {
                    let _ = match input.is_set() {
                        true => self.announcer.handle_queued(now, request),
                        false => self.announcer.handle_sent(now, request),
                    };
                }
            }
            _ => {
                let from = input.addr();
                self.client.handle_datagram(now, from, input.string());
            }
        }
    }

    fn answer_http(&mut self, input: &mut Input<'_>) {
        if self.http.is_empty() {
            return;
        }
        let request = self.http.swap_remove(input.below(self.http.len()));
        let reply = match input.byte() % 4 {
            0 => Err(TrackerError::Timeout),
            1 => Err(TrackerError::Gone),
            2 => http::decode_reply(b"d8:intervali60e5:peers6:\x01\x02\x03\x04\x1a\xe1e"),
            _ => http::decode_reply(input.string()),
        };
        self.announcer.handle_reply(self.now, request, reply);
    }

    fn answer_udp(&mut self, input: &mut Input<'_>) {
        if self.datagrams.is_empty() {
            return;
        }
        let (to, asked) = self.datagrams.swap_remove(input.below(self.datagrams.len()));
        let mut bytes = Vec::new();
        match udp::decode_request(&asked).expect("ours is read") {
            udp::Request::Connect { transaction_id } => {
                udp::encode_connect_reply(transaction_id, 77, &mut bytes);
            }
            udp::Request::Announce { transaction_id, .. } => {
                udp::encode_announce_reply(transaction_id, input.u16().into(), 1, 2, &mut bytes);
                bytes.extend(input.string());
            }
            udp::Request::Scrape { .. } => panic!("nothing is scraped"),
        }
        if input.byte().is_multiple_of(8) {
            udp::encode_error(u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]), "no", &mut bytes);
            bytes.drain(..bytes.len() - 10);
        }
        self.client.handle_datagram(self.now, to, &bytes);
    }

    fn due_at(&self) -> Option<Instant> {
        self.announcer.poll_timeout().into_iter().chain(self.client.poll_timeout()).min()
    }

    fn wait(&mut self, input: &mut Input<'_>) {
        self.now = later(input, self.now, self.due_at());
        self.wake();
    }

    fn wake(&mut self) {
        for _ in 0..WAKE_COUNT_MAX {
            if self.due_at().is_none_or(|at| at > self.now) {
                return;
            }
            self.announcer.handle_timeout(self.now);
            self.client.handle_timeout(self.now);
            self.drain();
        }
        panic!("a timer that does not move on");
    }

    fn drain(&mut self) {
        for _ in 0..OUTPUT_COUNT_MAX {
            if let Some(output) = self.announcer.poll_output() {
                self.act(output);
            } else if let Some(output) = self.client.poll_output() {
                match output {
                    UdpOutput::Datagram { to, bytes } => self.datagrams.push((to, bytes)),
                    UdpOutput::Reply { key, reply } => {
                        let before = self.udp.len();
                        self.udp.retain(|request| *request != key);
                        assert_eq!(self.udp.len() + 1, before, "{key:?} ends once");
                        self.announcer.handle_reply(self.now, key, reply);
                    }
                }
            } else {
                return;
            }
        }
        panic!("an input leads to endless outputs");
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Announce { request, url, announce } if url.starts_with("udp:") => {
                let addr = SocketAddr::from(([1, 2, 3, url.as_bytes()[6]], 80));
                self.udp.push(request);
                self.client.handle_announce(self.now, request, addr, "/announce", announce);
            }
            Output::Announce { request, url, announce } => {
                assert!(url.starts_with("http"), "{url} is no tracker");
                assert!(http::announce_url(&url, &announce).len() > url.len());
                self.http.push(request);
            }
            Output::Failed { retry_at, .. } => assert!(retry_at.is_none_or(|at| at >= self.now)),
            Output::Peers { .. }
            | Output::ExternalIp(_)
            | Output::Announced { .. }
            | Output::Warning { .. }
            | Output::Silent(_) => {}
        }
    }

    /// It ends soon, whatever trackers do.
    fn leave(&mut self) {
        if !self.is_leaving {
            self.announcer.handle_stopped(self.now);
            self.drain();
        }
        let end = self.now + LEAVING_MAX;
        while !self.announcer.is_done() {
            let due_at = self.announcer.poll_timeout().expect("it waits for something");
            assert!(due_at <= end, "leaving takes too long");
            self.now = self.now.max(due_at);
            self.wake();
        }
    }
}
