//! The house rules, measured over all sources and printed with every run; a rule that is broken
//! fails it.
//!
//! What the compiler and clippy cannot say: how long functions and files may be, which module may
//! use which, which words are not ours, what the pure layers never name, that every dependency has
//! its reason. The rules read text, not syntax trees: comments and literals are blanked first,
//! braces are counted.

#![cfg(test)]

#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/measure.rs"]
mod measure;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/words.rs"]
mod words;

use std::fmt::Write as _;
use std::io::Write as _;

use source::Source;

/// Files longer than [`measure::FILE_LEN_MAX`] without their test module, with their exact lengths.
/// This list only shrinks: a file that grows or shrinks fails until its figure here is right, and
/// none may be added.
const LONG_FILES: &[(&str, usize)] = &[];

/// Folders and files whose comments are not wrapped at [`words::COMMENT_WIDTH_MAX`] columns yet.
/// This list only shrinks: an entry without a wide comment fails, and none may be added.
const WIDE_COMMENTS: &[&str] = &[];

/// Fails with all that is wrong, one line each.
#[track_caller]
fn none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}: {} found\n  {}", broken.len(), broken.join("\n  "));
}

#[test]
fn functions_files_and_structs_keep_their_sizes() {
    let sources = source::all();
    let figures = measure::figures(&sources);
    // Straight to the terminal: the figures are to be seen in every run, not only in one that
    // fails.
    let shown = writeln!(std::io::stdout(), "{}", measure::table(&figures));
    assert!(shown.is_ok());
    none("sizes", &measure::broken(&figures, LONG_FILES));
}

#[test]
fn every_file_says_what_it_is() {
    let silent = source::all().into_iter().filter(|source| !source.text.starts_with("//! "));
    none("opens with //!", &silent.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn modules_use_only_what_their_layer_may() {
    none("layers", &source::all().iter().flat_map(layers::broken).collect::<Vec<_>>());
}

#[test]
fn names_are_the_words_of_the_field() {
    none("names", &source::all().iter().flat_map(words::foreign_names).collect::<Vec<_>>());
}

#[test]
fn the_pure_layers_name_no_clock_entropy_or_runtime() {
    none("purity", &source::all().iter().flat_map(words::impure).collect::<Vec<_>>());
}

#[test]
fn nothing_is_unbounded_unfinished_or_silenced() {
    none("words", &source::all().iter().flat_map(words::unwelcome).collect::<Vec<_>>());
}

#[test]
fn comments_are_wrapped() {
    let sources = source::all();
    none(
        "wide comments",
        &sources.iter().flat_map(|source| words::wide_comments(source, WIDE_COMMENTS)).collect::<Vec<_>>(),
    );
    let is_needed = |of: &&&str| {
        sources
            .iter()
            .any(|source| source.path.starts_with(**of) && !words::wide_comments(source, &[]).is_empty())
    };
    let done =
        WIDE_COMMENTS.iter().filter(|of| !is_needed(of)).map(|of| format!("{of} is exempt without need"));
    none("wide comments", &done.collect::<Vec<_>>());
}

#[test]
fn every_dependency_has_its_reason_in_the_map() {
    let Ok(map) = std::fs::read_to_string(source::root().join("ARCHITECTURE.md")) else {
        panic!("ARCHITECTURE.md is missing: the map of the code, with every dependency and its reason");
    };
    let mut unnamed = String::new();
    for manifest in ["Cargo.toml", "tracker/Cargo.toml"] {
        let text = std::fs::read_to_string(source::root().join(manifest)).expect("the manifest is there");
        for name in words::dependencies(&text).filter(|name| *name != "sprat") {
            if !map.contains(&format!("`{name}`")) {
                let _ = write!(unnamed, "\n  {name} of {manifest}");
            }
        }
    }
    assert!(unnamed.is_empty(), "not named in ARCHITECTURE.md as `name`:{unnamed}");
}

/// A source for the rules' own tests.
fn sample(path: &str, text: &str) -> Source {
    Source::new(path.to_owned(), text.to_owned())
}
