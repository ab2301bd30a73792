//! Words that are not to be found: foreign names, impure calls in pure layers, what is unbounded or
//! unfinished.

use std::iter;

use crate::layers::tree;
use crate::source::{Source, is_word, line_of, places};

/// Names of modules that say nothing of what is in them.
const EMPTY_NAMES: [&str; 7] = ["util", "utils", "helper", "helpers", "manager", "common", "misc"];
/// Beginnings of function names that say nothing either.
const EMPTY_VERBS: [&str; 3] = ["get_", "do_", "process_"];
/// The methods of others that are named with the word that is not ours: pieces have blocks.
const OTHERS_WORDS: [&str; 17] = [
    "chunk",
    "chunks",
    "chunks_mut",
    "chunks_exact",
    "chunks_exact_mut",
    "rchunks",
    "array_chunks",
    "chunk_by",
    "as_chunks",
    "as_chunks_mut",
    "as_rchunks",
    "first_chunk",
    "last_chunk",
    "split_first_chunk",
    "split_last_chunk",
    "chunks_vectored",
    "utf8_chunks",
];

/// Folders that are pure: time and randomness are arguments, everything happens in one thread.
const PURE: [&str; 2] = ["src/proto/", "src/sim/"];
/// Paths below `std::` that the pure layers never name.
const IMPURE_PATHS: [&str; 9] = [
    "time::Instant",
    "time::SystemTime",
    "thread",
    "fs",
    "env",
    "process",
    "net::TcpStream",
    "net::TcpListener",
    "net::UdpSocket",
];
/// Words that the pure layers never say.
const IMPURE_WORDS: [&str; 5] = ["tokio", "getrandom", "async", "await", "thread_rng"];
/// Words that proto, besides, never says: it shares nothing and locks nothing.
const SHARING_WORDS: [&str; 6] = ["Arc", "Mutex", "RwLock", "mpsc", "AtomicU64", "OnceLock"];

/// Most columns of a comment: prose in longer lines is hard to read.
pub(crate) const COMMENT_WIDTH_MAX: usize = 100;

/// Code that is nowhere: with what is wrong about it.
const UNWELCOME: [(&str, &str); 6] = [
    ("unbounded_channel", "every channel has a capacity"),
    ("UnboundedSender", "every channel has a capacity"),
    ("UnboundedReceiver", "every channel has a capacity"),
    ("#[ignore]", "a test is ignored for a reason that it gives"),
    ("#[allow", "a lint is silenced by #[expect(..., reason = ...)]"),
    ("#![allow", "a lint is silenced by #![expect(..., reason = ...)]"),
];
/// Macros that stand for code that is not there.
const UNFINISHED: [&str; 2] = ["todo", "unimplemented"];
/// Notes of the kind that outlive their writers, put together so that this list is no such note.
const NOTES: [&str; 3] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

fn told(source: &Source, code: &str, at: usize, what: &str) -> String {
    format!("{}:{} {what}", source.path, line_of(code, at))
}

/// Names that are not the field's.
pub(crate) fn foreign_names(source: &Source) -> Vec<String> {
    let code = &source.code;
    let mut found = Vec::new();
    for (at, name) in names(code) {
        let before = code[..at].trim_end();
        let is_verb = EMPTY_VERBS.iter().any(|verb| name.starts_with(verb)) && before.ends_with("fn");
        let is_empty = EMPTY_NAMES.contains(&name) && before.ends_with("mod");
        let others = before.ends_with(['.', ':']) && OTHERS_WORDS.contains(&name);
        let foreign = name.to_ascii_lowercase().contains("chunk") && !others;
        if is_verb || is_empty || foreign {
            found.push(told(source, code, at, name));
        }
    }
    let stem = source.path.rsplit('/').find_map(|part| part.strip_suffix(".rs").or(Some(part)));
    if stem.is_some_and(|stem| EMPTY_NAMES.contains(&stem)) {
        found.push(format!("{}: the file's name", source.path));
    }
    found
}

/// Every name and keyword with its place.
fn names(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    iter::from_fn(move || {
        let start = at + code[at..].find(is_word)?;
        let len = code[start..].find(|c| !is_word(c)).unwrap_or(code.len() - start);
        at = start + len;
        Some((start, &code[start..at]))
    })
}

/// Clocks, entropy, threads and runtimes in the pure layers, tests included.
pub(crate) fn impure(source: &Source) -> Vec<String> {
    let code = &source.code;
    let mut found = Vec::new();
    if PURE.iter().any(|folder| source.path.starts_with(folder)) {
        for at in places(code, "std").filter(|at| code[at + 3..].starts_with("::")) {
            let paths = tree("", &code[at + 5..]);
            let is_impure = |path: &String| {
                IMPURE_PATHS.iter().any(|impure| *path == *impure || path.starts_with(&format!("{impure}::")))
            };
            found
                .extend(paths.iter().filter(|path| is_impure(path)).map(|path| told(source, code, at, path)));
        }
        let sharing = if source.path.starts_with("src/proto/") { &SHARING_WORDS[..] } else { &[] };
        for word in IMPURE_WORDS.iter().chain(sharing) {
            found.extend(places(code, word).map(|at| told(source, code, at, word)));
        }
    }
    found
}

/// What is unbounded, unfinished, silenced without a reason, or waits for time to pass.
pub(crate) fn unwelcome(source: &Source) -> Vec<String> {
    let (code, mut found) = (&source.code, Vec::new());
    for (word, why) in UNWELCOME {
        found.extend(code.match_indices(word).map(|(at, _)| told(source, code, at, why)));
    }
    for word in UNFINISHED {
        let macros = places(code, word).filter(|at| code[at + word.len()..].starts_with('!'));
        found.extend(macros.map(|at| told(source, code, at, "unfinished")));
    }
    for word in NOTES {
        found.extend(
            places(&source.prose, word).map(|at| told(source, &source.prose, at, "an issue instead")),
        );
    }
    let tests = source.tests();
    let sleeps = places(&tests, "sleep").filter(|at| tests[at + "sleep".len()..].starts_with('('));
    found.extend(
        sleeps.map(|at| told(source, &tests, at, "a test waits for what happens, not for time to pass")),
    );
    found
}

/// Lines of comments wider than [`COMMENT_WIDTH_MAX`], except in files below `exempt` paths. A line
/// of one word, such as an address, cannot be wrapped.
pub(crate) fn wide_comments(source: &Source, exempt: &[&str]) -> Vec<String> {
    if exempt.iter().any(|path| source.path.starts_with(path)) {
        return Vec::new();
    }
    let is_wide = |line: &str| {
        let comment = line.trim_start();
        comment.starts_with("//")
            && line.chars().count() > COMMENT_WIDTH_MAX
            && comment.split_whitespace().count() > 2
    };
    let wide = source.prose.lines().enumerate().filter(|(_, line)| is_wide(line));
    wide.map(|(at, _)| format!("{}:{}", source.path, at + 1)).collect()
}

/// The names of a manifest's dependencies.
pub(crate) fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    manifest.lines().filter_map(move |line| {
        if line.starts_with('[') {
            inside = line.trim_end().ends_with("dependencies]");
            return None;
        }
        let (name, _) = line.split_once('=').filter(|_| inside && !line.starts_with('#'))?;
        // `name.workspace = true` names one as well.
        name.trim().split('.').next()
    })
}

#[test]
fn tells_foreign_names() {
    for (text, wrong) in [
        ("fn get_it() {} fn do_it() {} fn process_it() {}", 3),
        ("fn getter() {} fn x() { map.get_mut(1); self.get_it(); }", 0),
        ("mod util; mod manager {} fn common() {}", 2),
        ("let chunk = 1; struct ChunkIndex;", 2),
        ("bytes.chunks(2); bytes.as_chunks::<4>(); buf.chunk(); // a chunk", 0),
    ] {
        assert_eq!(foreign_names(&crate::sample("src/a.rs", text)).len(), wrong, "{text}");
    }
    assert_eq!(foreign_names(&crate::sample("src/proto/util.rs", "")).len(), 1);
    assert_eq!(foreign_names(&crate::sample("src/helper/mod.rs", "")).len(), 0);
}

#[test]
fn tells_wide_comments() {
    let wide = format!("/// {}", "word ".repeat(20));
    for (path, text, wrong) in [
        ("src/a.rs", format!("{wide}\n    {wide}\n"), 2),
        ("src/b/a.rs", wide, 0),
        ("src/a.rs", format!("// {}\n// a: {}", "word ".repeat(19), "w".repeat(90)), 0),
        ("src/a.rs", format!("let a = \"{}\";\n/// {}", "// a b ".repeat(20), "w".repeat(120)), 0),
    ] {
        assert_eq!(wide_comments(&crate::sample(path, &text), &["src/b/"]).len(), wrong, "{text}");
    }
}

#[test]
fn tells_what_is_impure() {
    for (path, text, wrong) in [
        ("src/proto/a.rs", "use std::time::{Duration, Instant}; std::fs::read(x);", 2),
        (
            "src/proto/a.rs",
            "use std::time::Duration; use crate::proto::time::Instant; use std::net::IpAddr;",
            0,
        ),
        ("src/proto/a.rs", "async fn a() { tokio::spawn(b).await } static A: Mutex<Arc<u8>>;", 5),
        ("src/sim/a.rs", "Arc::new(1); std::thread::spawn(f);", 1),
        ("src/engine/a.rs", "tokio::spawn(std::time::Instant::now())", 0),
    ] {
        assert_eq!(impure(&crate::sample(path, text)).len(), wrong, "{path}: {text}");
    }
}

#[test]
fn tells_what_is_unbounded_unfinished_or_silenced() {
    for (path, text, wrong) in [
        ("src/a.rs", "fn a() { todo!() } fn todo() {} \"todo!()\"", 1),
        ("src/a.rs", "mpsc::unbounded_channel(); #[allow(dead_code)]", 2),
        ("src/a.rs", concat!("// TO", "DO: later\n// XX", "X"), 2),
        ("src/a.rs", "#[expect(dead_code, reason = \"a\")] tokio::time::sleep(x)", 0),
        ("src/a.rs", "#[cfg(test)]\nmod tests {\nfn a() { sleep(x) }\n}", 1),
        ("tests/a.rs", "#[ignore]\n#[ignore = \"slow\"] fn a() { tokio::time::sleep(x) }", 2),
    ] {
        assert_eq!(unwelcome(&crate::sample(path, text)).len(), wrong, "{path}: {text}");
    }
}

#[test]
fn reads_the_dependencies_of_a_manifest() {
    let manifest = "[package]\nname = \"a\"\n[dependencies]\n# why\nbytes = \"1\"\nrand = { version = \"1\" }\n\
        [target.'cfg(unix)'.dependencies]\nrustix.workspace = true\n[[bin]]\npath = \"x\"\n[dev-dependencies]\ntempfile = \"3\"\n";
    assert_eq!(dependencies(manifest).collect::<Vec<_>>(), ["bytes", "rand", "rustix", "tempfile"]);
}
