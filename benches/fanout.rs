//! What a seed costs for each GiB that it sends, to how many peers ever: processor time, context
//! switches, speed. `cargo bench --bench fanout [-- MIB [PEERS...]]` (1024 MiB in all, shared among
//! 1, 4, 16 and 64 peers)
//!
//! The seed is the real binary. The peers are as little as can be, threads of this process over
//! loopback: they ask for blocks, count what comes and keep nothing, so that the machine is the
//! seed's. Linux only, for its `/proc`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use sprat::proto::block::Block;
use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::Metainfo;
use sprat::proto::peer_id::PeerId;
use sprat::proto::piece::Geometry;
use sprat::proto::wire::decoder::{Decoder, Frame};
use sprat::proto::wire::handshake::{Capabilities, HANDSHAKE_LEN, Handshake};
use sprat::proto::wire::message::Message;

/// MiB sent in each row, unless told otherwise.
const SENT_MIB: u64 = 1024;
/// Rows, unless told otherwise.
const PEER_COUNTS: [u64; 4] = [1, 4, 16, 64];
/// Peers that do not read, in the last row: fewer than a seed has slots at first.
const STALLED_COUNT: u64 = 2;
/// Requests that a peer has in flight: 4 MiB, half of what a seed lets wait.
const DEPTH: usize = 256;
/// Requests told at once.
const REQUEST_BATCH: usize = 32;
/// Bytes read at once.
const READ_LEN: usize = 256 << 10;
/// Ticks of `/proc/PID/stat` a second, on every Linux there is.
const TICKS: f64 = 100.0;
/// How long the seed may take to listen.
const START_MAX: Duration = Duration::from_secs(30);

fn main() {
    // Cargo adds `--bench`.
    let mut args = std::env::args().skip(1).filter_map(|arg| arg.parse::<u64>().ok());
    let sent_mib = args.next().unwrap_or(SENT_MIB);
    let given: Vec<u64> = args.collect();
    let peer_counts = if given.is_empty() { PEER_COUNTS.to_vec() } else { given };
    println!(
        "{:>5} {:>8} {:>16} {:>22} {:>9}",
        "peers", "MiB/s", "seed cpu s/GiB", "context switches/GiB", "seed MiB"
    );
    for count in peer_counts {
        row(sent_mib, count.max(1), 0);
    }
    row(sent_mib, 4, STALLED_COUNT);
}

/// So many peers share what is sent, while some more ask and do not read.
fn row(sent_mib: u64, peer_count: u64, stalled_count: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let seed = Seed::start(folder.path(), sent_mib << 20);
    let shares = seed.shares(peer_count);
    let stalled: Vec<_> =
        (0..stalled_count).map(|at| Peer::connect(&seed, peer_count + at, &shares[0]).stall()).collect();
    let (usage, start) = (seed.usage(), now());
    std::thread::scope(|scope| {
        for (number, share) in shares.iter().enumerate() {
            let seed = &seed;
            scope.spawn(move || Peer::connect(seed, number as u64, share).take_all());
        }
    });
    let (span, used) = (now().duration_since(start), seed.usage());
    drop(stalled);
    let gib = sent_mib as f64 / 1024.0;
    println!(
        "{:>5} {:>8.0} {:>16.3} {:>22.0} {:>9.1}",
        if stalled_count > 0 { format!("{peer_count}+{stalled_count}") } else { peer_count.to_string() },
        1024.0 * gib / span.as_secs_f64(),
        (used.cpu - usage.cpu) / gib,
        (used.switch_count - usage.switch_count) as f64 / gib,
        used.memory_peak as f64 / 1024.0,
    );
}

/// `sprat seed`, ended when dropped.
struct Seed {
    child: Child,
    addr: SocketAddr,
    infohash: InfoHash,
    geometry: Geometry,
}

/// What a process has used so far.
struct Usage {
    /// Seconds of processor.
    cpu: f64,
    /// Of all threads.
    switch_count: u64,
    /// KiB.
    memory_peak: u64,
}

impl Seed {
    /// Seeds a file of so many bytes that is made in `folder`.
    fn start(folder: &Path, len: u64) -> Self {
        let (file, torrent) = (folder.join("content"), folder.join("content.torrent"));
        let bytes: Vec<u8> = (0..len / 8).flat_map(|at| (at ^ (at << 40)).to_le_bytes()).collect();
        std::fs::write(&file, bytes).expect("room for the content");
        let created =
            sprat().args(["create", "--piece-size", "1MiB", "-o"]).arg(&torrent).arg(&file).status();
        assert!(created.is_ok_and(|status| status.success()), "sprat create");
        let info = Metainfo::decode(&std::fs::read(&torrent).expect("the torrent")).expect("a torrent").info;
        let addr = free_addr();
        let child = sprat()
            .args([
                "seed",
                "--assume-complete",
                "--no-dht",
                "--no-lsd",
                "--port",
                &addr.port().to_string(),
                "-d",
            ])
            .arg(folder)
            .arg(&torrent)
            .spawn()
            .expect("sprat seed");
        let deadline = now() + START_MAX;
        while TcpStream::connect(addr).is_err() {
            assert!(now() < deadline, "the seed does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { child, addr, infohash: info.infohash, geometry: info.geometry }
    }

    /// All blocks, shared among so many peers.
    fn shares(&self, peer_count: u64) -> Vec<Vec<Block>> {
        let geometry = self.geometry;
        let of_piece =
            |piece| (0..geometry.block_count(piece)).map(move |index| geometry.block(piece, index));
        let blocks: Vec<Block> = (0..geometry.piece_count()).flat_map(of_piece).collect();
        blocks.chunks(blocks.len().div_ceil(peer_count as usize)).map(<[Block]>::to_vec).collect()
    }

    fn usage(&self) -> Usage {
        let process = Path::new("/proc").join(self.child.id().to_string());
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let stat = read(&process.join("stat"));
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks =
            behind_name.split_whitespace().skip(11).take(2).filter_map(|tick| tick.parse::<f64>().ok());
        let tasks = std::fs::read_dir(process.join("task")).expect("the seed runs").flatten();
        let statuses: Vec<String> = tasks.map(|task| read(&task.path().join("status"))).collect();
        let switch_count = statuses.iter().map(|status| figure(status, "ctxt_switches:")).sum();
        let memory_peak = figure(&read(&process.join("status")), "VmHWM:");
        Usage { cpu: ticks.sum::<f64>() / TICKS, switch_count, memory_peak }
    }
}

impl Drop for Seed {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The sum of the figures in the lines that name it.
fn figure(status: &str, name: &str) -> u64 {
    let lines = status.lines().filter(|line| line.contains(name));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}

/// One that asks for its share of the blocks and keeps none.
struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    buffer: BytesMut,
    /// Bytes of a block that are still to come.
    passing: usize,
    /// Blocks that are still to be asked for, the last first.
    lacking: Vec<Block>,
    asked: BTreeSet<Block>,
    is_choked: bool,
}

impl Peer {
    fn connect(seed: &Seed, number: u64, share: &[Block]) -> Self {
        let mut stream = TcpStream::connect(seed.addr).expect("a connection to the seed");
        stream.set_nodelay(true).expect("a socket takes it");
        let mut name = *b"-FO0001-000000000000";
        name[8..16].copy_from_slice(&number.to_be_bytes());
        let (capabilities, infohash) = (Capabilities::default(), seed.infohash);
        let ours = Handshake { capabilities, infohash, peer_id: PeerId(name) };
        stream.write_all(&ours.encode()).expect("a handshake");
        stream.read_exact(&mut [0; HANDSHAKE_LEN]).expect("a handshake in return");
        let mut peer = Self {
            stream,
            decoder: Decoder::new(seed.geometry.piece_count()),
            buffer: BytesMut::new(),
            passing: 0,
            lacking: share.to_vec(),
            asked: BTreeSet::new(),
            is_choked: true,
        };
        peer.lacking.reverse();
        peer.tell(&[Message::Interested]);
        peer
    }

    /// Asks for all of its share and takes it.
    fn take_all(mut self) {
        let mut bytes = vec![0; READ_LEN];
        while !(self.lacking.is_empty() && self.asked.is_empty()) {
            self.take_some(&mut bytes);
            self.ask();
        }
    }

    /// Asks for much and reads no further; open until dropped.
    fn stall(mut self) -> TcpStream {
        let mut bytes = vec![0; READ_LEN];
        while self.is_choked {
            self.take_some(&mut bytes);
        }
        self.ask();
        self.stream
    }

    fn take_some(&mut self, bytes: &mut [u8]) {
        let read = self.stream.read(bytes).expect("the seed sends");
        assert!(read > 0, "the seed closed");
        let skipped = read.min(self.passing);
        self.passing -= skipped;
        self.buffer.extend_from_slice(&bytes[skipped..read]);
        while let Some(frame) = self.decoder.decode(&mut self.buffer).expect("the seed keeps to the protocol")
        {
            match frame {
                Frame::Message(message) => self.handle(&message),
                Frame::Block(block) => {
                    if !self.asked.remove(&block) {
                        self.lacking.retain(|lacking| *lacking != block);
                    }
                    let ready = self.buffer.len().min(block.len as usize);
                    self.passing = block.len as usize - ready;
                    drop(self.buffer.split_to(ready));
                }
            }
        }
    }

    fn handle(&mut self, message: &Message) {
        if matches!(message, Message::Choke | Message::Unchoke) {
            self.is_choked = matches!(message, Message::Choke);
            // What was not answered before a choke is forgotten by the seed; what is on its way
            // comes all the same.
            self.lacking.extend(std::mem::take(&mut self.asked).into_iter().rev());
        }
    }

    fn ask(&mut self) {
        let room = DEPTH - self.asked.len();
        if self.is_choked || (room < REQUEST_BATCH && !self.asked.is_empty()) {
            return;
        }
        let blocks = self.lacking.split_off(self.lacking.len().saturating_sub(room));
        let requests: Vec<_> = blocks.iter().rev().map(|&block| Message::Request(block)).collect();
        self.asked.extend(blocks);
        self.tell(&requests);
    }

    fn tell(&mut self, messages: &[Message]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.encode(&mut bytes));
        self.stream.write_all(&bytes).expect("the seed reads");
    }
}

fn sprat() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sprat"));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn free_addr() -> SocketAddr {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    probe.local_addr().expect("a bound socket has an address")
}

#[expect(clippy::disallowed_methods, reason = "a bench measures time")]
fn now() -> Instant {
    Instant::now()
}
