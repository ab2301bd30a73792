//! Files that do not fit a torrent, in words and as JSON.

use std::path::Path;

use serde_json::{Value, json};

use super::failure::Failure;
use super::report::Report;
use super::size::show_len;
use super::text::{listed, printable};
use crate::engine::{Misfit, Obstacle, Refusal, Why};

/// Files that one line names; further ones are counted.
const NAMED_MAX: usize = 100;

/// Why a torrent does not begin, with `name` and folder.
pub(crate) fn refused(refusal: &Refusal, is_seed: bool, name: &str, dir: &Path, report: &Report) -> Failure {
    match refusal {
        Refusal::Obstacle { path, obstacle } if is_seed => Failure::Bad(seed_obstacle(path, *obstacle)),
        Refusal::Obstacle { path, obstacle } => Failure::Failed(format!(
            "{}: {obstacle}; move it away, or choose another folder with -d",
            printable(&path.to_string_lossy())
        )),
        Refusal::Foreign(foreign) => {
            report.event(&json!({"event": "foreign", "files": objects(foreign)}));
            Failure::Failed(format!(
                "files that are not an earlier download of {} are in its place and were not touched: {}; \
                 --overwrite writes over them, -d chooses another folder",
                printable(name),
                list(foreign)
            ))
        }
        Refusal::Incomplete { missing_len, misfits } => {
            report.event(&json!({"event": "incomplete", "missing": missing_len, "files": objects(misfits)}));
            let what = format!(
                "{}: {} of the content in {} is missing or damaged",
                printable(name),
                show_len(*missing_len),
                printable(&dir.to_string_lossy())
            );
            Failure::Bad(if misfits.iter().any(|misfit| !misfit.is_ours) {
                format!("{what} ({}); {}", list(misfits), advice(true))
            } else {
                format!("{what}; {}, then seeds with --seed", advice(false))
            })
        }
    }
}

/// What stands in the place of a file or folder of the content that is to be seeded, and what to
/// do.
pub(crate) fn seed_obstacle(path: &Path, obstacle: Obstacle) -> String {
    let follow = if obstacle.is_followable() { "give --follow-links to read through it, " } else { "" };
    let advice = "move it away and fetch the content with `sprat download`, or say where it is with -d";
    format!("{}: {obstacle}; {follow}{advice}", printable(&path.to_string_lossy()))
}

/// What fetches what is missing.
pub(crate) fn advice(has_foreign: bool) -> &'static str {
    if has_foreign {
        "`sprat download --overwrite` writes over what is not the torrent's and fetches what is missing"
    } else {
        "`sprat download` fetches what is missing"
    }
}

/// Warns of seeded files that are longer than the torrent says.
pub(crate) fn warn_longer(misfits: &[Misfit], report: &Report) {
    report.event(&json!({"event": "longer", "files": objects(misfits)}));
    if !report.is_json() {
        report.warn(&format!(
            "longer than the torrent says (what is beyond is not uploaded): {}",
            list(misfits)
        ));
    }
}

fn list(misfits: &[Misfit]) -> String {
    listed(misfits, NAMED_MAX, describe)
}

fn describe(misfit: &Misfit) -> String {
    let path = printable(&misfit.path.to_string_lossy());
    match misfit.why {
        Why::Longer => {
            let (actual, len) = (show_len(misfit.actual_len), show_len(misfit.len));
            if actual == len {
                format!("{path} ({} bytes longer than the torrent says)", misfit.actual_len - misfit.len)
            } else {
                format!("{path} ({actual}, the torrent says {len})")
            }
        }
        Why::OtherContent => format!("{path} (other content)"),
    }
}

fn objects(misfits: &[Misfit]) -> Vec<Value> {
    let object = |misfit: &Misfit| {
        let why = match misfit.why {
            Why::Longer => "longer",
            Why::OtherContent => "other_content",
        };
        json!({
            "path": misfit.path.to_string_lossy(), "why": why,
            "length": misfit.len, "actual_length": misfit.actual_len,
        })
    };
    misfits.iter().map(object).collect()
}
