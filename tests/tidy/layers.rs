//! Which module may use which: the layers of the repository, and the three kinds of module in
//! `proto`.

use crate::source::{Source, is_word, line_of, places};

/// A folder, and the paths below `crate::` that it may name.
struct Layer {
    under: &'static str,
    may: &'static [&'static str],
}

/// The layers; what is not below one of these (the roots of library and command) may name all.
const LAYERS: [Layer; 9] = [
    Layer { under: "src/proto/", may: &["proto"] },
    Layer { under: "src/storage/", may: &["proto", "storage"] },
    Layer { under: "src/transfer/", may: TRANSFER },
    Layer { under: "src/sim/", may: SIM },
    Layer { under: "src/datagram.rs", may: &[] },
    Layer { under: "src/usage.rs", may: &[] },
    Layer { under: "src/engine/", may: &["datagram", "proto", "storage", "transfer", "engine"] },
    // What a user sees of proto and storage is re-exported by the engine.
    Layer { under: "src/cli/", may: &["engine", "sim", "cli", "usage"] },
    Layer { under: "src/main.rs", may: &["cli"] },
];

/// The simulator has the core of storage, and none of its threads.
const SIM: &[&str] = &[
    "proto",
    "sim",
    "storage::content",
    "storage::fault",
    "storage::foreign",
    "storage::fs",
    "storage::journal",
    "storage::lifecycle",
    "storage::pieces",
    "storage::resume",
    "storage::span",
    "storage::store",
    "transfer",
];

/// The machines of a torrent, and what they exchange.
const TRANSFER: &[&str] = &["proto", "storage::lifecycle", "storage::pieces", "transfer"];

/// What the tracker may name of the library.
const TRACKER: Layer = Layer { under: "tracker/src/", may: &["datagram", "proto", "usage"] };

/// What a module of proto is, and so whom it may know.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Knows leaves.
    Leaf,
    /// Knows leaves and codecs.
    Codec,
    /// Knows leaves, codecs, and of other machines the values in their `event` modules.
    Machine,
}

/// The modules of proto; the longest name counts. Last: what else of other machines one may know,
/// values all.
const PROTO: &[(&str, Kind, &[&str])] = &[
    ("proto::time", Kind::Leaf, &[]),
    ("proto::rng", Kind::Leaf, &[]),
    ("proto::infohash", Kind::Leaf, &[]),
    ("proto::peer_id", Kind::Leaf, &[]),
    ("proto::bitfield", Kind::Leaf, &[]),
    ("proto::piece", Kind::Leaf, &[]),
    ("proto::block", Kind::Leaf, &[]),
    ("proto::bencode", Kind::Leaf, &[]),
    ("proto::compact", Kind::Leaf, &[]),
    ("proto::scope", Kind::Leaf, &[]),
    ("proto::crc32c", Kind::Leaf, &[]),
    ("proto::bandwidth", Kind::Leaf, &[]),
    ("proto::rate", Kind::Leaf, &[]),
    ("proto::connection", Kind::Codec, &[]),
    ("proto::dht", Kind::Machine, &[]),
    ("proto::dht::node_id", Kind::Leaf, &[]),
    ("proto::dht::bloom", Kind::Leaf, &[]),
    ("proto::dht::token", Kind::Leaf, &[]),
    ("proto::dht::item", Kind::Codec, &[]),
    ("proto::dht::krpc", Kind::Codec, &[]),
    ("proto::dht::saved", Kind::Codec, &[]),
    // The announcer is a part of it; a demand tells whether the torrent needs peers.
    ("proto::discovery", Kind::Machine, &["proto::session::Demand", "proto::tracker::announcer"]),
    ("proto::lsd", Kind::Machine, &[]),
    ("proto::metainfo", Kind::Codec, &[]),
    ("proto::wire", Kind::Codec, &[]),
    // An answer's peers, already in their compact form.
    ("proto::tracker", Kind::Codec, &["proto::tracker::swarm::Chosen"]),
    ("proto::tracker::announcer", Kind::Machine, &[]),
    ("proto::tracker::udp_client", Kind::Machine, &["proto::tracker::announcer::RequestId"]),
    ("proto::tracker::swarm", Kind::Machine, &[]),
    // The swarms are a part of the service.
    ("proto::tracker::service", Kind::Machine, &["proto::tracker::swarm"]),
    ("proto::session", Kind::Machine, &[]),
    ("proto::peer", Kind::Machine, &[]),
    // Its answers have the budget of the DHT's.
    ("proto::utp", Kind::Machine, &["proto::dht::budget"]),
    // A torrent owns the state of its connections; leases and demands are what it exchanges with
    // the session.
    ("proto::torrent", Kind::Machine, &["proto::peer", "proto::session::Demand", "proto::session::Lease"]),
];

/// The uses of this file that its layer, or its kind of module, does not allow.
pub(crate) fn broken(source: &Source) -> Vec<String> {
    let own = module_of(&source.path);
    let mut broken = Vec::new();
    for (at, path) in used(source, &own) {
        let allowed = layer_allows(&source.path, &path) && proto_allows(&own, &path);
        if !allowed {
            broken.push(format!("{}:{} may not use {path}", source.path, line_of(&source.production, at)));
        }
    }
    let in_proto = own.starts_with("proto::");
    if in_proto && entry(&own).is_none() {
        broken.push(format!("{}: {own} is in no table: leaf, codec or machine?", source.path));
    }
    broken
}

/// Whether `path` is `prefix` or below it.
fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn layer_allows(file: &str, path: &str) -> bool {
    let layer = LAYERS.iter().chain([&TRACKER]).find(|layer| file.starts_with(layer.under));
    layer.is_none_or(|layer| layer.may.iter().any(|may| is_below(path, may)))
}

fn entry(module: &str) -> Option<&'static (&'static str, Kind, &'static [&'static str])> {
    let entries = PROTO.iter().filter(|(name, ..)| is_below(module, name));
    entries.max_by_key(|(name, ..)| name.len())
}

fn proto_allows(own: &str, path: &str) -> bool {
    let (Some((own_name, own_kind, also)), Some((name, kind, _))) = (entry(own), entry(path)) else {
        return true;
    };
    let known = match (own_kind, kind) {
        (Kind::Leaf, Kind::Leaf) | (Kind::Codec | Kind::Machine, Kind::Leaf | Kind::Codec) => true,
        (Kind::Machine, Kind::Machine) => path.split("::").any(|segment| segment == "event"),
        (Kind::Leaf, Kind::Codec | Kind::Machine) | (Kind::Codec, Kind::Machine) => false,
    };
    known || own_name == name || also.iter().any(|also| is_below(path, also))
}

/// The module that a file is: `proto::wire::message`; empty for a crate's root.
fn module_of(file: &str) -> String {
    let path = file.trim_start_matches("tracker/").trim_start_matches("src/").trim_end_matches(".rs");
    let path = path.trim_end_matches("/mod");
    if matches!(path, "lib" | "main") { String::new() } else { path.replace('/', "::") }
}

/// Every path that the file names from its crate's root, `super` and `self` resolved, with its
/// place. In the tracker, those of the library.
fn used(source: &Source, own: &str) -> Vec<(usize, String)> {
    let code = &source.production;
    let mut found = Vec::new();
    let roots: &[&str] =
        if source.path.starts_with("src/lib.rs") { &[] } else { &["crate", "super", "self"] };
    let of_library = source.path.starts_with("tracker/") || source.path == "src/main.rs";
    for root in if of_library { &["sprat"] } else { roots } {
        for at in places(code, root) {
            // In the middle of a path it was followed from the start of it.
            if !code[at + root.len()..].starts_with("::") || code[..at].ends_with("::") {
                continue;
            }
            let Some((base, rest)) = resolve(own, &code[at..]) else { continue };
            found.extend(tree(&base, rest).into_iter().map(|path| (at, path)));
        }
    }
    found
}

/// What the first words of a path stand for, and what follows them.
fn resolve<'a>(own: &str, path: &'a str) -> Option<(String, &'a str)> {
    let (first, mut rest) = path.split_once("::")?;
    let mut base: Vec<&str> = own.split("::").filter(|segment| !segment.is_empty()).collect();
    match first {
        "self" => {}
        "super" => {
            base.pop();
            while let Some(further) = rest.strip_prefix("super::") {
                base.pop();
                rest = further;
            }
        }
        _ => base.clear(),
    }
    Some((base.join("::"), rest))
}

/// The paths of a use tree, or of a path in an expression: `a::{b, c::d}` gives `a::b` and
/// `a::c::d`.
pub(crate) fn tree(base: &str, rest: &str) -> Vec<String> {
    let len = rest.find(|c: char| !is_word(c)).unwrap_or(rest.len());
    let (segment, after) = rest.split_at(len);
    let path = match (base, segment) {
        (_, "" | "self") => base.to_owned(),
        ("", _) => segment.to_owned(),
        _ => format!("{base}::{segment}"),
    };
    if segment.is_empty() && rest.starts_with('{') {
        let end = crate::source::body_end(rest, 0);
        return branches(rest[1..end].trim_end_matches('}'))
            .flat_map(|branch| tree(&path, branch.trim()))
            .collect();
    }
    match after.strip_prefix("::") {
        Some(further) if further.starts_with(|c: char| is_word(c) || c == '{') => tree(&path, further),
        _ => vec![path],
    }
}

/// Splits at the commas that stand in no braces.
fn branches(tree: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let split = move |character: char| {
        depth += i32::from(character == '{') - i32::from(character == '}');
        character == ',' && depth == 0
    };
    tree.split(split).filter(|branch| !branch.trim().is_empty())
}

#[test]
fn follows_paths_to_their_ends() {
    let ends = |text: &str| tree("", text).join(" ");
    assert_eq!(ends("proto::bencode::scan(x)"), "proto::bencode::scan");
    assert_eq!(
        ends("proto::{self, wire::{a, b::C}, time::Instant};"),
        "proto proto::wire::a proto::wire::b::C proto::time::Instant"
    );
    assert_eq!(ends("proto::wire::*;"), "proto::wire");
    let source = crate::sample(
        "src/proto/wire/message.rs",
        "use super::super::time;\nuse super::decoder;\nself::x();",
    );
    let used: Vec<_> = used(&source, &module_of(&source.path)).into_iter().map(|(_, path)| path).collect();
    assert_eq!(used, ["proto::time", "proto::wire::decoder", "proto::wire::message::x"]);
}

#[test]
fn tells_what_a_module_may_not_use() {
    for (path, text, allowed) in [
        ("src/proto/time.rs", "use crate::proto::rng::Rng;", true),
        ("src/proto/time.rs", "use super::wire::message;", false),
        ("src/proto/time.rs", "use crate::storage::fs;", false),
        ("src/proto/wire/message.rs", "use crate::proto::{bencode, metainfo};", true),
        ("src/proto/wire/message.rs", "use crate::proto::torrent::event::ConnId;", false),
        ("src/proto/tracker/http.rs", "use super::AnnounceReply;", true),
        ("src/proto/tracker/http.rs", "use super::announcer::Announcer;", false),
        ("src/proto/peer/mod.rs", "use crate::proto::torrent::event::ConnId;", true),
        ("src/proto/peer/mod.rs", "use crate::proto::torrent::Torrent;", false),
        ("src/proto/torrent/picker.rs", "use super::pieces::Pieces; use crate::proto::session::Lease;", true),
        ("src/proto/torrent/picker.rs", "use crate::proto::session::Session;", false),
        ("src/proto/util.rs", "", false),
        ("src/storage/disk.rs", "use crate::engine::Engine;", false),
        ("src/sim/mod.rs", "use crate::storage::{content::Content, fs::FileSystem};", true),
        ("src/sim/mod.rs", "use crate::storage::{content::Content, disk::Disk};", false),
        ("src/cli/mod.rs", "fn a() { crate::proto::time::Instant::default() }", false),
        ("src/cli/mod.rs", "use crate::engine::{Engine, File};", true),
        ("src/main.rs", "sprat::cli::run()", true),
        ("tracker/src/main.rs", "use crate::config; use sprat::proto::time;", true),
        ("tracker/src/main.rs", "use sprat::{proto, engine};", false),
    ] {
        assert_eq!(broken(&crate::sample(path, text)).is_empty(), allowed, "{path}: {text}");
    }
}
