//! What a TORRENT argument names, and getting the description it stands for.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::describe;
use super::failure::Failure;
use super::text::{printable, without_number};
use crate::engine::metainfo::METAINFO_LEN_MAX;
use crate::engine::{InfoHash, Magnet, Metainfo, TorrentSource, fetch};

/// A torrent as named on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A .torrent file.
    File(PathBuf),
    /// The HTTP address of one.
    Url(String),
    /// A magnet link.
    Magnet(Box<Magnet>),
    /// Only its name.
    InfoHash(InfoHash),
}

impl Source {
    /// Decides by the form of the text; a file that exists wins over an infohash of the same letters.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("magnet:")) {
            return match text.parse() {
                Ok(magnet) => Ok(Self::Magnet(Box::new(magnet))),
                Err(error) => Err(Failure::Bad(format!("{}: {error}", printable(text)))),
            };
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "http" | "https" => Ok(Self::Url(text.to_owned())),
                _ => Err(Failure::Usage(format!(
                    "unknown scheme `{}`: a torrent is a .torrent file, the http:// or https:// address of one, or a magnet link",
                    printable(scheme)
                ))),
            };
        }
        let path = PathBuf::from(text);
        match text.parse() {
            Ok(infohash) if !path.exists() => Ok(Self::InfoHash(infohash)),
            Err(_) if is_nearly_infohash(text) && !path.exists() => Err(Failure::Bad(format!(
                "{text}: an infohash has 40 hexadecimal digits or 32 base32 letters, this has {} characters, and there \
                 is no such file",
                text.len()
            ))),
            _ => Ok(Self::File(path)),
        }
    }

    /// What the engine starts from: a name as it is, a description from disk or over HTTP.
    pub(crate) async fn open(self) -> Result<TorrentSource, Failure> {
        match self {
            Self::Magnet(magnet) => Ok(TorrentSource::Magnet(*magnet)),
            Self::InfoHash(infohash) => Ok(TorrentSource::Magnet(describe::bare(infohash))),
            Self::File(_) | Self::Url(_) => Ok(TorrentSource::Metainfo(self.load().await?)),
        }
    }

    /// The description, from disk or over HTTP.
    pub(crate) async fn load(&self) -> Result<Metainfo, Failure> {
        match self {
            Self::File(path) => {
                // A pipe may keep us waiting, which is to hold up nothing else.
                let path = path.clone();
                let loaded = tokio::task::spawn_blocking(move || load_file(&path)).await;
                loaded.unwrap_or_else(|_| Err(Failure::Failed("stopped".to_owned())))
            }
            Self::Url(url) => {
                let fetched = fetch::fetch(url).await;
                let bytes = fetched.map_err(|error| {
                    let why = printable(&without_number(&error.to_string()));
                    Failure::Failed(format!(
                        "{}: {why}; check the address, or try again later",
                        printable(url)
                    ))
                })?;
                decode(url, &bytes)
            }
            Self::Magnet(_) | Self::InfoHash(_) => Err(Failure::Usage(
                "a magnet link or infohash only names a torrent: give the .torrent file here".to_owned(),
            )),
        }
    }
}

/// The description in a .torrent file; waits for the disk.
pub(crate) fn load_file(path: &Path) -> Result<Metainfo, Failure> {
    decode(&path.to_string_lossy(), &read(path)?)
}

fn decode(place: &str, bytes: &[u8]) -> Result<Metainfo, Failure> {
    Metainfo::decode(bytes).map_err(|error| {
        let why = printable(&error.to_string());
        let hint = if why.starts_with("not a torrent") { "; get it again, or give another" } else { "" };
        Failure::Bad(format!("{}: {why}{hint}", printable(place)))
    })
}

/// Lengths of what may have been meant for an infohash.
const NEARLY: std::ops::RangeInclusive<usize> = 30..=64;

/// Whether somebody may have meant an infohash, and slipped.
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
    let mut bytes = Vec::new();
    file.take(METAINFO_LEN_MAX as u64 + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() > METAINFO_LEN_MAX {
        return Err(Failure::Bad(format!(
            "{}: longer than {METAINFO_LEN_MAX} bytes, so no torrent",
            printable(&path.to_string_lossy())
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_decides_what_is_meant() {
        assert!(matches!(Source::parse("x.torrent"), Ok(Source::File(_))));
        assert!(matches!(Source::parse("https://example.org/x"), Ok(Source::Url(_))));
        assert!(matches!(Source::parse(&"ab".repeat(20)), Ok(Source::InfoHash(_))));
        assert!(matches!(Source::parse("ftp://example.org/x"), Err(Failure::Usage(_))));
        assert!(matches!(Source::parse("ubuntu"), Ok(Source::File(_))));
        let error = Source::parse(&"a".repeat(39)).unwrap_err();
        assert!(error.text().is_some_and(|text| text.contains("39 characters")), "{error:?}");
    }
}
