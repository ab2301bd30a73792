//! Nodes of the DHT on loopback, as engines and as commands, and peers that find each other without
//! any tracker.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use sprat::engine::dht::{
    Announce, DhtRequest, Found, Item, ItemKey, NodeId, Outcome, ReadOnly, generate_key,
};
use sprat::engine::{AddTorrent, Config, DhtConfig, Engine, InfoHash};
use sprat::proto::peer_id::PeerId;
use sprat::proto::wire::handshake::{Capabilities, HANDSHAKE_LEN, Handshake};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::engine::{Content, addr, seed, within};
use crate::process::{Ended, Sprat};

/// Where nobody is.
pub(super) const NOWHERE: &str = "127.0.0.1:1";

fn config() -> Config {
    let dht = DhtConfig { bootstrap: Vec::new(), ..DhtConfig::default() };
    let listen = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    Config { listen, disk_threads: Some(1), dht: Some(dht), ..Config::default() }
}

/// A node that begins at these names and keeps what it learns in this file.
pub(super) async fn node(bootstrap: &[String], state_file: Option<&Path>) -> Engine {
    let dht = DhtConfig {
        bootstrap: bootstrap.to_vec(),
        state_file: state_file.map(Path::to_owned),
        read_only: ReadOnly::Never,
    };
    Engine::start(Config { dht: Some(dht), ..config() }).await.unwrap()
}

/// Asks, and collects what is found.
pub(super) async fn ask(engine: &Engine, request: DhtRequest) -> (Vec<SocketAddr>, Vec<Item>, Outcome) {
    let (mut peers, mut items) = (Vec::new(), Vec::new());
    let mut search = engine.dht().unwrap().start(request).await.unwrap();
    within(async {
        loop {
            match search.next().await.expect("the end is told") {
                Found::Peers { peers: found, local } => {
                    assert!(local);
                    peers.extend(found);
                }
                Found::Item(item) => items.push(item),
                Found::Done(outcome) => return (peers, items, outcome),
            }
        }
    })
    .await
}

/// Nodes that answered a lookup: waits until the first one is known.
async fn reached(engine: &Engine) -> u32 {
    ask(engine, DhtRequest::Nodes(NodeId([7; 20]))).await.2.answered
}

/// So many nodes, all told of the first one and nothing else.
pub(super) async fn nodes(count: usize) -> Vec<Engine> {
    let mut engines = vec![node(&[], None).await];
    for _ in 1..count {
        let engine = node(&[], None).await;
        engine.dht().unwrap().hint(addr(&engines[0])).await.unwrap();
        assert!(reached(&engine).await > 0);
        engines.push(engine);
    }
    engines
}

pub(super) fn announce(infohash: InfoHash, port: u16) -> DhtRequest {
    let announce = Some(Announce { port: Some(port), seed: true });
    DhtRequest::Peers { infohash, announce, scrape: false }
}

#[tokio::test]
async fn who_is_announced_at_one_node_is_found_from_another() {
    let engines = nodes(8).await;
    let infohash = InfoHash([0x5a; 20]);
    let (.., outcome) = ask(&engines[3], announce(infohash, 6_001)).await;
    assert!(outcome.stored >= 4, "{outcome:?}");
    let (.., outcome) = ask(&engines[5], announce(infohash, 6_002)).await;
    assert!(outcome.stored >= 4, "{outcome:?}");
    let scrape = DhtRequest::Peers { infohash, announce: None, scrape: true };
    let (mut peers, _, outcome) = ask(&engines[7], scrape).await;
    peers.sort_unstable();
    assert_eq!(peers, [6_001, 6_002].map(|port| SocketAddr::from(([127, 0, 0, 1], port))));
    assert!(outcome.answered >= 4 && outcome.scrape.is_some(), "{outcome:?}");
    let nobody = DhtRequest::Peers { infohash: InfoHash([1; 20]), announce: None, scrape: false };
    assert!(ask(&engines[7], nobody).await.0.is_empty());
    let stored: usize = {
        let mut stored = 0;
        for engine in &engines {
            stored += engine.dht().unwrap().snapshot().await.unwrap().stored_peers.1;
        }
        stored
    };
    assert!(stored >= 8, "{stored}");
}

#[tokio::test]
async fn items_are_read_elsewhere_and_only_the_newest_version_counts() {
    let engines = nodes(8).await;
    let text = Item::immutable("5:hello".into()).unwrap();
    let (.., outcome) = ask(&engines[1], DhtRequest::Put { item: text.clone(), cas: None }).await;
    assert!(outcome.stored >= 4, "{outcome:?}");
    assert_eq!(ask(&engines[6], DhtRequest::Get(text.key())).await.1, [text]);

    let key = generate_key().unwrap();
    let version = |seq, value: &'static str| key.sign("salt".into(), seq, value.into()).unwrap();
    for (seq, value) in [(1, "3:one"), (2, "3:two")] {
        let put = DhtRequest::Put { item: version(seq, value), cas: None };
        assert!(ask(&engines[2], put).await.2.stored >= 4);
    }
    let name = ItemKey::Mutable { public_key: key.public_key(), salt: "salt".into() };
    let found = ask(&engines[4], DhtRequest::Get(name.clone())).await.1;
    assert_eq!(found.last(), Some(&version(2, "3:two")));

    // All but the one that stored it, which has none itself, know better.
    for (late, cas) in [(version(1, "3:one"), None), (version(3, "5:three"), Some(0))] {
        let (.., outcome) = ask(&engines[5], DhtRequest::Put { item: late, cas }).await;
        assert!(outcome.stored <= 1 && outcome.refused.is_some(), "{outcome:?}");
    }
    assert_eq!(ask(&engines[7], DhtRequest::Get(name)).await.1.last(), Some(&version(2, "3:two")));
}

#[tokio::test]
async fn nodes_of_the_last_time_replace_bootstrap_names_that_are_gone() {
    let engines = nodes(3).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state/sprat/dht-nodes");
    let first = node(&[addr(&engines[0]).to_string()], Some(&file)).await;
    assert!(reached(&first).await >= 3);
    within(first.shutdown()).await;
    assert!(file.is_file());

    let gone = [NOWHERE.to_owned(), "no-such-name.invalid:6881".to_owned()];
    let again = node(&gone, Some(&file)).await;
    assert!(reached(&again).await >= 3);
    let infohash = InfoHash([2; 20]);
    assert!(ask(&again, announce(infohash, 6_003)).await.2.stored >= 3);
}

/// The id of an engine's node in IPv4.
async fn id_of(engine: &Engine) -> NodeId {
    engine.dht().unwrap().snapshot().await.unwrap().overlays[0].id
}

#[tokio::test]
async fn a_node_has_the_id_of_the_last_time_and_two_at_once_have_two() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("state/sprat/dht-nodes");
    let first = node(&[], Some(&file)).await;
    let id = id_of(&first).await;
    let beside = node(&[], Some(&file)).await;
    assert_ne!(id_of(&beside).await, id, "another process has that one");
    assert!(reached_through(&beside, &first).await);
    within(first.shutdown()).await;
    within(beside.shutdown()).await;
    let again = node(&[], Some(&file)).await;
    assert_eq!(id_of(&again).await, id);
    drop(again);
}

/// Tells a node of another one; whether that one answers.
async fn reached_through(engine: &Engine, other: &Engine) -> bool {
    engine.dht().unwrap().hint(addr(other)).await.unwrap();
    reached(engine).await > 0
}

#[tokio::test]
async fn a_damaged_state_file_is_replaced_and_one_of_another_version_is_left_alone() {
    let engines = nodes(2).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dht-nodes");
    for (before, is_kept) in [("d5:nodes26:cut", false), ("d7:versioni2ee", true)] {
        fs::write(&file, before).unwrap();
        let engine = node(&[addr(&engines[0]).to_string()], Some(&file)).await;
        assert!(reached(&engine).await > 0);
        within(engine.shutdown()).await;
        assert_eq!(fs::read(&file).unwrap() == before.as_bytes(), is_kept, "{before}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the file and its lock");
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_is_forgotten() {
    let engines = nodes(2).await;
    let dht = engines[1].dht().unwrap();
    drop(dht.start(DhtRequest::Nodes(NodeId([1; 20]))).await.unwrap());
    assert!(reached(&engines[1]).await > 0);
    within(async {
        while dht.snapshot().await.unwrap().lookups > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The bit of BEP 5 in the handshake of an engine.
pub(super) async fn says_dht(engine: &Engine, infohash: InfoHash) -> bool {
    let peer_id = PeerId(*b"-XX0000-abcdefghijkl");
    let ours = Handshake { capabilities: Capabilities::default(), infohash, peer_id };
    let mut socket = TcpStream::connect(addr(engine)).await.unwrap();
    socket.write_all(&ours.encode()).await.unwrap();
    let mut theirs = [0; HANDSHAKE_LEN];
    within(socket.read_exact(&mut theirs)).await.unwrap();
    Handshake::decode(&theirs).unwrap().capabilities.dht
}

#[tokio::test]
async fn peers_hear_of_the_node_but_not_those_of_a_private_torrent() {
    let content = Content::new(&[("file", 100_000)]);
    let infohash = content.metainfo.info.infohash;
    let (with, without) = (node(&[], None).await, super::engine::engine().await);
    let (_with, _without) = (seed(&with, &content).await, seed(&without, &content).await);
    assert!(says_dht(&with, infohash).await);
    assert!(!says_dht(&without, infohash).await);
    let private = Content::private(&[("file", 100_000)]);
    let _private = seed(&with, &private).await;
    assert!(!says_dht(&with, private.metainfo.info.infohash).await);
}

#[tokio::test]
async fn peers_of_one_host_find_each_other_by_the_local_network() {
    let content = Content::new(&[("file", 500_000)]);
    let config = || Config { dht: None, lsd: true, ..config() };
    let seeder = Engine::start(config()).await.unwrap();
    let leecher = Engine::start(config()).await.unwrap();
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let mut torrent = leecher.add(content.download(dir.path())).await.unwrap();
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
}

#[tokio::test]
async fn a_torrent_whose_tracker_is_dead_is_fetched_by_the_nodes_of_the_last_time() {
    let content = Content::new(&[("file", 500_000)]);
    let engines = nodes(5).await;
    let _seed = seed(&engines[2], &content).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dht-nodes");
    let first = node(&[addr(&engines[0]).to_string()], Some(&file)).await;
    assert!(reached(&first).await > 0);
    within(first.shutdown()).await;

    let again = node(&[NOWHERE.to_owned()], Some(&file)).await;
    let trackers = vec![format!("http://{NOWHERE}/announce")];
    let download = AddTorrent { trackers, ..content.download(dir.path()) };
    let mut torrent = again.add(download).await.unwrap();
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
}

#[tokio::test]
async fn a_flood_of_nonsense_holds_no_question_up() {
    let engines = nodes(3).await;
    let flood = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let nonsense: [&[u8]; 4] =
        [b"d", b"d1:y1:qe", &[0xff; 1_400], b"d1:rd2:id20:aaaaaaaaaaaaaaaaaaaae1:t4:aaaa1:y1:re"];
    let send = async {
        loop {
            for bytes in nonsense {
                flood.send_to(bytes, addr(&engines[2])).await.unwrap();
            }
            tokio::task::yield_now().await;
        }
    };
    let questions = async {
        for _ in 0..20 {
            assert!(reached(&engines[2]).await >= 2);
        }
    };
    tokio::select! {
        () = send => {}
        () = questions => {}
    }
    let received = engines[2].dht().unwrap().snapshot().await.unwrap().received.0;
    assert!(received > 100, "{received}");
}

/// Commands in a folder of their own, with the DHT at `names`.
struct Commands {
    dir: tempfile::TempDir,
    names: String,
}

impl Commands {
    fn start(&self, args: &[&str]) -> Sprat {
        let state = self.dir.path().join("state");
        let state = state.to_str().unwrap();
        let args = [&["dht"], args].concat();
        let variables = [("SPRAT_DHT_BOOTSTRAP", self.names.as_str()), ("XDG_STATE_HOME", state)];
        Sprat::start_with(self.dir.path(), &args, &variables)
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.start(args).end()
    }

    fn succeed(&self, args: &[&str]) -> Vec<String> {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
        ended.out
    }

    fn state_file(&self) -> PathBuf {
        self.dir.path().join("state/sprat/dht-nodes")
    }
}

#[test]
fn the_commands_store_and_find_peers_and_items() {
    let mut commands = Commands { dir: tempfile::tempdir().unwrap(), names: "none".to_owned() };
    let mut first = commands.start(&["node", "--port", "0", "--json", "--every", "100ms"]);
    let port = first.event("started")["port"].as_u64().unwrap();
    commands.names = format!("127.0.0.1:{port},[::1]:{port}");
    let mut second = commands.start(&["node", "--port", "0", "--every", "100ms"]);
    second.line("1 node (1 good)");

    let infohash = "50a96681f9854639985a9007b9131206269a0561";
    commands.succeed(&["announce", infohash, "--port", "6007", "--seed"]);
    let peers = commands.succeed(&["peers", &format!("magnet:?xt=urn:btih:{infohash}")]);
    assert!(peers.iter().any(|peer| peer == "127.0.0.1:6007"), "{peers:?}");
    let nobody = commands.run(&["peers", &"0".repeat(40)]);
    assert_eq!((nobody.code, nobody.out.len(), nobody.err.len()), (Some(1), 0, 1), "{nobody:?}");

    let target = commands.succeed(&["put", "Grüße"]);
    assert_eq!(commands.succeed(&["get", &target[0]]), ["Grüße"]);
    let put = |value: &'static str| ["put", value, "--key-file", "my.key", "--salt", "a:b"];
    let name = commands.succeed(&put("one"));
    assert_eq!(commands.succeed(&put("two")), name);
    assert_eq!(commands.succeed(&["get", &name[0], "--seq"]), ["seq 2", "two"]);
    let late = commands.run(&[&put("three")[..], &["--cas", "1"]].concat());
    assert_eq!((late.code, late.err.len()), (Some(1), 1), "{late:?}");

    while first.event("node")["items"] != 2 {}
    for node in [first, second] {
        node.signal("TERM");
        assert_eq!(node.end().code, Some(0));
    }
    assert!(commands.state_file().is_file());
}

#[test]
fn what_is_wrong_with_a_question_is_one_line() {
    let commands = Commands { dir: tempfile::tempdir().unwrap(), names: "none".to_owned() };
    let long = "x".repeat(1_001);
    let cases: [(&[&str], i32, &str); 7] = [
        (&["peers", "50a96681f9854639985a9007b9131206269a056"], 2, "39 characters"),
        (&["announce", "xyz", "--port", "1"], 2, "3 characters"),
        (&["get", "abc"], 2, "40 hexadecimal digits"),
        (&["put", &long], 2, "1000 bytes"),
        (&["put", "x", "--seq", "1"], 2, "--key-file"),
        (&["put", "x", "--key-file", "/"], 1, "directory"),
        (&["peers", "50a96681f9854639985a9007b9131206269a0561", "--timeout", "100ms"], 1, "--timeout"),
    ];
    for (args, code, words) in cases {
        let ended = commands.run(args);
        assert_eq!((ended.code, ended.err.len()), (Some(code), 1), "{args:?}: {ended:?}");
        assert!(ended.err[0].contains(words), "{args:?}: {ended:?}");
    }
    let bad = commands.dir.path().join("bad.key");
    fs::write(&bad, "no key").unwrap();
    let ended = commands.run(&["put", "x", "--key-file", "bad.key"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(fs::read(&bad).unwrap(), b"no key");
}
