//! A million hostile inputs to bencode, metainfo and magnet: none panics, and what is accepted
//! holds its promises.

use sprat::proto::bencode::{Kind, Limits, Value, encode_bytes, scan};
use sprat::proto::infohash::InfoHash;
use sprat::proto::metainfo::Metainfo;
use sprat::proto::metainfo::magnet::Magnet;
use sprat::proto::rng::Rng;

use super::{bep_0003_metainfo, bep_0052_hybrid};

/// What mutations put in: the edges of every rule.
const SNIPPETS: [&str; 24] = [
    "i0e",
    "i-0e",
    "i-1e",
    "i01e",
    "i1e",
    "i9223372036854775807e",
    "i9223372036854775808e",
    "0:",
    "1:/",
    "1:.",
    "2:..",
    "3:a/b",
    "2:\u{e9}",
    "00:",
    "99999999999:",
    "le",
    "de",
    "l",
    "d",
    "e",
    "1:nle",
    "4:pathl1:ae",
    "6:lengthi5e",
    "d6:lengthi0e4:pathl2:..ee",
];

/// A bencode tree that can be changed and stays well-formed.
#[derive(Clone)]
enum Node {
    Leaf(Vec<u8>),
    List(Vec<Node>),
    Dict(Vec<(Vec<u8>, Node)>),
}

impl Node {
    fn of(value: Value<'_>) -> Self {
        match value.kind() {
            Kind::Integer(_) | Kind::Bytes(_) => Self::Leaf(value.span().to_vec()),
            Kind::List(list) => Self::List(list.map(Self::of).collect()),
            Kind::Dict(dict) => {
                Self::Dict(dict.map(|(key, value)| (key.to_vec(), Self::of(value))).collect())
            }
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Leaf(bytes) => out.extend(bytes),
            Self::List(nodes) => {
                out.push(b'l');
                nodes.iter().for_each(|node| node.write(out));
                out.push(b'e');
            }
            Self::Dict(entries) => {
                out.push(b'd');
                for (key, node) in entries {
                    out.extend(format!("{}:", key.len()).as_bytes());
                    out.extend(key);
                    node.write(out);
                }
                out.push(b'e');
            }
        }
    }

    /// Changes one place below, found by going down at random.
    fn mutate(&mut self, rng: &mut Rng) {
        if rng.below(8) == 0 {
            *self = Self::Leaf(SNIPPETS[rng.below(SNIPPETS.len())].into());
            return;
        }
        match self {
            Self::Leaf(bytes) => *bytes = mutated_leaf(rng),
            Self::List(nodes) if !nodes.is_empty() => {
                let at = rng.below(nodes.len());
                match rng.below(6) {
                    0 => drop(nodes.remove(at)),
                    1 => nodes.push(nodes[at].clone()),
                    _ => nodes[at].mutate(rng),
                }
            }
            Self::Dict(entries) if !entries.is_empty() => {
                let at = rng.below(entries.len());
                match rng.below(8) {
                    0 => drop(entries.remove(at)),
                    1 => entries.push(entries[at].clone()),
                    2 => entries.swap(0, at),
                    _ => entries[at].1.mutate(rng),
                }
            }
            Self::List(_) | Self::Dict(_) => *self = Self::Leaf(mutated_leaf(rng)),
        }
    }
}

fn mutated_leaf(rng: &mut Rng) -> Vec<u8> {
    if rng.below(3) == 0 {
        return format!("i{}e", (rng.bits() >> rng.below(64)) as i64).into_bytes();
    }
    let mut string = vec![0; rng.below(24)];
    rng.fill(&mut string);
    for byte in &mut string {
        // Mostly what paths are made of.
        *byte = if rng.below(6) == 0 { *byte } else { b"./\\ab:C\0"[usize::from(*byte) % 8] };
    }
    encode_bytes(&string)
}

/// Changes bytes without regard to structure.
fn scramble(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        let at = rng.below(bytes.len() + 1);
        match rng.below(4) {
            0 => bytes.truncate(at),
            1 => {
                let snippet = SNIPPETS[rng.below(SNIPPETS.len())].as_bytes();
                bytes.splice(at..at, snippet.iter().copied());
            }
            2 => drop(bytes.drain(at..(at + rng.below(6)).min(bytes.len()))),
            _ if at < bytes.len() => bytes[at] = rng.bits() as u8,
            _ => {}
        }
    }
}

/// What every torrent that is accepted promises to the rest of the program.
fn assert_sound(torrent: &Metainfo) {
    let info = &torrent.info;
    assert_eq!(info.infohash, InfoHash::of(&info.bytes));
    assert_eq!(info.piece_hashes.len(), 20 * info.geometry.piece_count() as usize);
    let mut offset = 0;
    for file in &info.files {
        assert_eq!(file.offset, offset);
        offset += file.len;
        assert_eq!(file.path[0], info.name);
        for element in &file.path {
            assert!(!matches!(element.as_str(), "" | "." | "..") && element.len() <= 255, "{element:?}");
            assert!(!element.contains(['/', '\\', '\0']), "{element:?}");
        }
    }
    assert_eq!(offset, info.geometry.total_len());
    let again = Metainfo::decode(&torrent.encode()).unwrap();
    assert_eq!((again.info.bytes, again.trackers), (info.bytes.clone(), torrent.trackers.clone()));
}

#[test]
fn half_a_million_mutated_torrents() {
    let mut rng = Rng::from_number(3);
    let samples = [bep_0003_metainfo::SINGLE, bep_0003_metainfo::FOLDER, bep_0052_hybrid::FOLDER];
    let trees = samples.map(|sample| Node::of(Value::read(sample, &Limits::METAINFO).unwrap()));
    let mut accepted = 0;
    let mut bytes = Vec::new();
    for round in 0..500_000 {
        bytes.clear();
        if round % 2 == 0 {
            let mut tree = trees[round / 2 % trees.len()].clone();
            (0..=rng.below(2)).for_each(|_| tree.mutate(&mut rng));
            tree.write(&mut bytes);
        } else {
            bytes.extend(samples[round / 2 % samples.len()]);
            scramble(&mut bytes, &mut rng);
        }
        if let Ok(torrent) = Metainfo::decode(&bytes) {
            accepted += 1;
            assert_sound(&torrent);
        }
    }
    assert!(accepted > 20_000, "mutations that are always refused test little: {accepted}");
}

#[test]
fn three_hundred_thousand_random_bencodes() {
    let mut rng = Rng::from_number(4);
    let mut accepted = 0;
    let mut bytes = Vec::new();
    for _ in 0..300_000 {
        bytes.clear();
        for _ in 0..rng.below(12) {
            bytes.extend(SNIPPETS[rng.below(SNIPPETS.len())].as_bytes());
        }
        scramble(&mut bytes, &mut rng);
        if let Ok(len) = scan(&bytes, &Limits::EXTENSION) {
            accepted += 1;
            let cut = rng.below(len);
            assert!(
                scan(&bytes[..cut], &Limits::EXTENSION).is_err(),
                "a value begins within a value: {bytes:?}"
            );
            let mut copy = Vec::new();
            Node::of(Value::read(&bytes, &Limits::EXTENSION).unwrap()).write(&mut copy);
            assert_eq!(copy, &bytes[..len], "the reader loses or invents bytes");
        }
    }
    assert!(accepted > 10_000, "{accepted}");
}

#[test]
fn two_hundred_thousand_mutated_magnets() {
    let mut rng = Rng::from_number(5);
    let sample = format!(
        "magnet:?xt=urn:btih:{}&dn=a+b%20c&tr=udp%3A%2F%2Fa%3A1&tr.2=http://b/&x.pe=[::1]:80&ws=http://w/&so=1,3-5",
        "0123456789".repeat(4)
    );
    let words = [
        "&",
        "=",
        "%",
        "%2",
        "%ff",
        "+",
        "xt=",
        "tr=",
        "so=",
        "-",
        ",",
        ":",
        "[",
        "é",
        "amp;",
        "\n",
        "urn:btmh:1220",
    ];
    let mut accepted = 0;
    for _ in 0..200_000 {
        let mut text: Vec<char> = sample.chars().collect();
        for _ in 0..=rng.below(3) {
            let at = rng.below(text.len());
            match rng.below(3) {
                0 => drop(text.remove(at)),
                1 => drop(text.splice(at..at, words[rng.below(words.len())].chars())),
                _ => text[at] = (rng.below(128) as u8).into(),
            }
        }
        if let Ok(mut magnet) = text.into_iter().collect::<String>().parse::<Magnet>() {
            accepted += 1;
            assert!(magnet.ignored.len() <= 16);
            magnet.ignored.clear();
            assert_eq!(magnet.to_string().parse(), Ok(magnet));
        }
    }
    assert!(accepted > 20_000, "{accepted}");
}
