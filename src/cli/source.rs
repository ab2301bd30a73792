//! What a TORRENT argument names, and reading the torrent or link that it stands for.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::describe;
use super::failure::Failure;
use super::runtime;
use super::text::{printable, without_number};
use crate::engine::fetch::Fetched;
use crate::engine::metainfo::METAINFO_LEN_MAX;
use crate::engine::metainfo::magnet::is_magnet;
use crate::engine::{InfoHash, Magnet, Metainfo, TorrentSource, fetch};

/// What stands for standard input, and for standard output.
pub(crate) const STANDARD: &str = "-";

/// A torrent as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A .torrent file.
    File(PathBuf),
    /// One from standard input.
    Input,
    /// The HTTP address of one.
    Url(String),
    /// A magnet link.
    Magnet(Box<Magnet>),
    /// Only its name.
    InfoHash(InfoHash),
}

impl Source {
    /// Decides by the form of the text; a file that exists wins over an infohash of the same
    /// letters. What is no text is the path of a file.
    pub(crate) fn parse(typed: &OsStr) -> Result<Self, Failure> {
        let path = PathBuf::from(typed);
        let Some(text) = typed.to_str() else { return Ok(Self::File(path)) };
        if text == STANDARD {
            return Ok(Self::Input);
        }
        if is_magnet(text) {
            return parse_magnet(text, text).map(|magnet| Self::Magnet(Box::new(magnet)));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return match scheme.trim_start().to_ascii_lowercase().as_str() {
                "http" | "https" => Ok(Self::Url(text.trim().to_owned())),
                _ => Err(Failure::Usage(format!(
                    "unknown scheme `{}`: a torrent is a .torrent file, the http:// or https:// address of one, or a magnet link",
                    printable(scheme)
                ))),
            };
        }
        match text.trim().parse() {
            Ok(infohash) if !path.exists() => Ok(Self::InfoHash(infohash)),
            Err(_) if is_nearly_infohash(text) && !path.exists() => Err(Failure::Bad(format!(
                "{text}: an infohash has 40 hexadecimal digits or 32 base32 letters, this has {} characters, and there \
                 is no such file",
                text.len()
            ))),
            _ => Ok(Self::File(path)),
        }
    }

    /// What the engine starts from: a link as it is, or a torrent from disk, standard input or over
    /// HTTP.
    pub(crate) async fn open(self) -> Result<TorrentSource, Failure> {
        match self {
            Self::Magnet(magnet) => Ok(TorrentSource::Magnet(*magnet)),
            Self::InfoHash(infohash) => Ok(TorrentSource::Magnet(describe::bare(infohash))),
            // On a thread: reading from a pipe may wait without end.
            Self::File(path) => {
                let place = path.to_string_lossy().into_owned();
                decode(&place, &runtime::on_a_thread(move || read(&path)).await?)
            }
            Self::Input => {
                let read = || read_all(std::io::stdin().lock(), INPUT.as_ref());
                decode(INPUT, &runtime::on_a_thread(read).await?)
            }
            Self::Url(url) => open_url(&url).await,
        }
    }
}

/// What standard input is called.
const INPUT: &str = "standard input";

async fn open_url(url: &str) -> Result<TorrentSource, Failure> {
    let fetched = fetch::fetch(url).await.map_err(|error| {
        let why = printable(&without_number(&error.to_string()));
        Failure::Failed(format!("{}: {why}; check the address, or try again later", printable(url)))
    })?;
    match fetched {
        Fetched::File(bytes) => decode(url, &bytes),
        Fetched::Magnet(link) => parse_magnet(url, &link).map(TorrentSource::Magnet),
    }
}

fn parse_magnet(place: &str, link: &str) -> Result<Magnet, Failure> {
    link.parse().map_err(|error| Failure::Bad(format!("{}: {error}", printable(place))))
}

/// The torrent in a .torrent file; waits for the disk.
pub(crate) fn load_file(path: &Path) -> Result<Metainfo, Failure> {
    decode_metainfo(&path.to_string_lossy(), &read(path)?)
}

/// A torrent, or the magnet link that a text file holds.
fn decode(place: &str, bytes: &[u8]) -> Result<TorrentSource, Failure> {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_magnet(text) => parse_magnet(place, text).map(TorrentSource::Magnet),
        Ok(_) | Err(_) => decode_metainfo(place, bytes).map(TorrentSource::Metainfo),
    }
}

fn decode_metainfo(place: &str, bytes: &[u8]) -> Result<Metainfo, Failure> {
    Metainfo::decode(bytes).map_err(|error| {
        let why = printable(&error.to_string());
        let hint = if why.starts_with("not a torrent") { "; get it again, or give another" } else { "" };
        Failure::Bad(format!("{}: {why}{hint}", printable(place)))
    })
}

/// Lengths of what may have been meant for an infohash.
const NEARLY: std::ops::RangeInclusive<usize> = 30..=64;

/// Whether the text may be an infohash with a digit too many, too few or mistyped.
fn is_nearly_infohash(text: &str) -> bool {
    NEARLY.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A file that can be a torrent: no folder, not too long.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let fault = |error: std::io::Error| Failure::io(path, &error, "");
    let file = std::fs::File::open(path).map_err(fault)?;
    if file.metadata().map_err(fault)?.is_dir() {
        return Err(Failure::Usage(format!(
            "{} is a folder; a .torrent file is wanted here",
            printable(&path.to_string_lossy())
        )));
    }
    read_all(file, path)
}

/// All there is, unless it is too long for a torrent.
fn read_all(from: impl Read, place: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = from.take(METAINFO_LEN_MAX as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io(place, &error, ""))?;
    if bytes.len() > METAINFO_LEN_MAX {
        return Err(Failure::Bad(format!(
            "{}: longer than {METAINFO_LEN_MAX} bytes, so no torrent",
            printable(&place.to_string_lossy())
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn the_form_decides_what_is_meant() {
        let parse = |text: &str| Source::parse(text.as_ref());
        assert!(matches!(parse("x.torrent"), Ok(Source::File(_))));
        assert!(matches!(parse("https://example.org/x"), Ok(Source::Url(_))));
        assert!(matches!(parse(&"ab".repeat(20)), Ok(Source::InfoHash(_))));
        assert!(matches!(parse(&format!(" {}\n", "ab".repeat(20))), Ok(Source::InfoHash(_))));
        assert!(matches!(parse("ftp://example.org/x"), Err(Failure::Usage(_))));
        assert!(matches!(parse("ubuntu"), Ok(Source::File(_))));
        assert!(matches!((parse("-"), parse("./-")), (Ok(Source::Input), Ok(Source::File(_)))));
        let link = format!("\n magnet:?xt=urn:btih:{} ", "ab".repeat(20));
        assert!(matches!(parse(&link), Ok(Source::Magnet(_))));
        let no_text = OsStr::from_bytes(b"\xff.torrent");
        assert_eq!(Source::parse(no_text).unwrap(), Source::File(PathBuf::from(no_text)));
        let error = parse(&"a".repeat(39)).unwrap_err();
        assert!(error.text().is_some_and(|text| text.contains("39 characters")), "{error:?}");
    }

    #[test]
    fn a_text_file_may_hold_a_magnet_link() {
        let link = format!("magnet:?xt=urn:btih:{}\n", "ab".repeat(20));
        assert!(matches!(decode("x", link.as_bytes()), Ok(TorrentSource::Magnet(_))));
        let failure = decode("x", b"magnet:?dn=x").unwrap_err();
        assert!(failure.text().is_some_and(|text| text.contains("no infohash")), "{failure:?}");
    }
}
