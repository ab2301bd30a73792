//! The sources as the rules read them: with comments and literals blanked, and the tests told
//! apart.

use std::ops::Range;
use std::path::{Path, PathBuf};

/// Folders of sources, from the root of the repository.
const FOLDERS: [&str; 6] = ["src", "tracker/src", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"];

/// One file.
pub(crate) struct Source {
    /// From the root of the repository.
    pub(crate) path: String,
    /// As it is.
    pub(crate) text: String,
    /// Comments and the inside of literals blanked; the lines are the same.
    pub(crate) code: String,
    /// The inside of literals blanked, comments kept.
    pub(crate) prose: String,
    /// `code` without its test modules; empty in a file of tests.
    pub(crate) production: String,
    /// Lines without the test modules.
    pub(crate) len: usize,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let (code, prose) = blank(&text);
        let mut production = code.clone();
        let mut test_lines = 0;
        for range in test_modules(&code) {
            test_lines += code[range.clone()].lines().count();
            let blanked: String = code[range.clone()].chars().map(to_blank).collect();
            production.replace_range(range, &blanked);
        }
        let of_tests = path.starts_with("tests/")
            || path.starts_with("fuzz/")
            || ["/tests.rs", "_tests.rs"].iter().any(|end| path.ends_with(end))
            || path.contains("/tests/");
        if of_tests {
            production.clear();
        }
        let len = text.lines().count() - test_lines;
        Self { path, text, code, prose, production, len }
    }

    /// `code` that is tests: the whole file, or its test modules.
    pub(crate) fn tests(&self) -> String {
        if self.production.is_empty() {
            return self.code.clone();
        }
        let lines = self.code.lines().zip(self.production.lines());
        lines
            .map(|(code, production)| if code == production { "\n".into() } else { format!("{code}\n") })
            .collect()
    }
}

/// The repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every source, by path.
pub(crate) fn all() -> Vec<Source> {
    let mut paths = Vec::new();
    FOLDERS.iter().for_each(|folder| collect(&root().join(folder), &mut paths));
    paths.sort();
    assert!(paths.len() > 10, "the sources are where this test was built");
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
            let own = path.strip_prefix(root()).expect("collected below the root");
            Source::new(own.to_string_lossy().replace('\\', "/"), text)
        })
        .collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.is_dir() {
            collect(&path, paths);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
}

/// Blanked to (code, prose): one byte for each blanked character, lines as they were.
fn blank(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut prose) = (String::new(), String::new());
    let mut at = 0;
    while at < chars.len() {
        let (kind, len) = token(&chars[at..], at.checked_sub(1).map(|before| chars[before]));
        for &character in &chars[at..at + len] {
            code.push(if kind == Kind::Code { character } else { to_blank(character) });
            prose.push(if kind == Kind::Literal { to_blank(character) } else { character });
        }
        at += len;
    }
    (code, prose)
}

fn to_blank(character: char) -> char {
    if character == '\n' { '\n' } else { ' ' }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// What stands at the front, and how many characters of it.
fn token(chars: &[char], before: Option<char>) -> (Kind, usize) {
    let in_word = before.is_some_and(is_word);
    match chars {
        ['/', '/', ..] => (Kind::Comment, chars.iter().position(|c| *c == '\n').unwrap_or(chars.len())),
        ['/', '*', ..] => (Kind::Comment, block_comment_len(chars)),
        ['"', ..] => (Kind::Literal, quoted_len(chars, '"')),
        ['\'', '\\', ..] => (Kind::Literal, quoted_len(chars, '\'')),
        // A character; else a lifetime.
        ['\'', _, '\'', ..] => (Kind::Literal, 3),
        ['r', '"' | '#', ..] if !in_word => {
            raw_len(&chars[1..]).map_or((Kind::Code, 1), |len| (Kind::Literal, 1 + len))
        }
        ['b' | 'c', 'r', ..] if !in_word => {
            raw_len(&chars[2..]).map_or((Kind::Code, 1), |len| (Kind::Literal, 2 + len))
        }
        _ => (Kind::Code, 1),
    }
}

/// Whether the character can be part of a name.
pub(crate) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn quoted_len(chars: &[char], quote: char) -> usize {
    let mut at = 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            character if character == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// A raw string after its `r`: as many hashes behind the closing quote as before the opening one.
fn raw_len(chars: &[char]) -> Option<usize> {
    let hashes = chars.iter().take_while(|c| **c == '#').count();
    if chars.get(hashes) != Some(&'"') {
        return None;
    }
    let closed =
        |at: &usize| chars[*at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    Some((hashes + 1..chars.len()).find(closed).map_or(chars.len(), |at| at + 1 + hashes))
}

fn block_comment_len(chars: &[char]) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < chars.len() {
        match chars[at..] {
            ['/', '*', ..] => (at, depth) = (at + 2, depth + 1),
            ['*', '/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Where the modules under `#[cfg(test)]` lie in blanked code.
fn test_modules(code: &str) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for (start, attribute) in code.match_indices("#[cfg(test)]") {
        let rest = &code[start + attribute.len()..];
        let inside = ranges.last().is_some_and(|last| start < last.end);
        let item = rest.trim_start();
        if inside || !item.starts_with("mod ") {
            continue;
        }
        // `mod tests;` has its body in a file of its own.
        if let Some(open) = item.find(['{', ';']).filter(|open| item[*open..].starts_with('{')) {
            ranges.push(start..body_end(code, code.len() - item.len() + open));
        }
    }
    ranges
}

/// The end of the braces that open at `open`, in blanked code.
pub(crate) fn body_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

/// Every place where `word` stands alone in blanked code.
pub(crate) fn places<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| !code[..at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word))
}

/// The line, from 1, of a place.
pub(crate) fn line_of(code: &str, at: usize) -> usize {
    1 + code[..at].matches('\n').count()
}

#[test]
fn blanks_comments_and_literals_and_nothing_else() {
    let text = r##"let a = "// {"; // "no" {
        let b = '{'; let c = '\''; let d: &'static str = r#"}"{"#; /* { /* } */ } */ fn x<'a>() {}"##;
    let source = crate::sample("src/a.rs", text);
    assert_eq!(source.code.lines().count(), 2);
    assert_eq!(
        source.code.split_whitespace().collect::<Vec<_>>().join(" "),
        "let a = ; let b = ; let c = ; let d: &'static str = ; fn x<'a>() {}"
    );
    assert!(source.prose.contains("// \"no\" {") && !source.prose.contains("// {"));
}

#[test]
fn tells_tests_from_the_rest() {
    let text =
        "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { { } }\n}\nfn c() {}\n#[cfg(test)]\nmod tests;\n";
    let source = crate::sample("src/a.rs", text);
    assert!(source.production.contains("fn a") && source.production.contains("fn c"));
    assert!(!source.production.contains("fn b") && source.tests().contains("fn b"));
    assert!(!source.tests().contains("fn c"));
    assert_eq!(source.len, 4);
    assert!(crate::sample("tests/a.rs", "fn a() {}").production.is_empty());
}
