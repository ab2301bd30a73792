//! Fetching a .torrent file over HTTP: bounded in bytes and time, so that no server can hold us up.

use std::time::Duration;

use crate::proto::metainfo::METAINFO_LEN_MAX;

/// Longest time for the whole answer; then it is given up.
const FETCH_TIME_MAX: Duration = Duration::from_secs(30);
/// Longest time until the connection stands; then it is given up.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Most redirects that are followed; then it is given up.
const REDIRECT_MAX: usize = 5;

/// Why a .torrent file could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The server said no: its status.
    #[error("the server answered {0}")]
    Status(u16),
    /// Longer than any torrent: bytes allowed.
    #[error("longer than {0} bytes, so no torrent")]
    TooLong(usize),
    /// There was no connection in time.
    #[error("no connection within {0:?}: its name has no address, or nothing answers there")]
    NotConnected(Duration),
    /// It took too long.
    #[error("no whole answer within {0:?}")]
    TimedOut(Duration),
    /// The connection, or something about it, failed.
    #[error("{0}")]
    Http(String),
}

/// The bytes at `url` (http or https), at most [`METAINFO_LEN_MAX`].
///
/// # Errors
/// The server is at fault, or the way to it.
pub async fn fetch(url: &str) -> Result<Vec<u8>, FetchError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .timeout(FETCH_TIME_MAX)
        .connect_timeout(CONNECT_TIME_MAX)
        .redirect(reqwest::redirect::Policy::limited(REDIRECT_MAX))
        .build()
        .map_err(told)?;
    let mut response = client.get(url).send().await.map_err(told)?;
    if !response.status().is_success() {
        return Err(FetchError::Status(response.status().as_u16()));
    }
    let mut bytes = Vec::new();
    while let Some(part) = response.chunk().await.map_err(told)? {
        if bytes.len() + part.len() > METAINFO_LEN_MAX {
            return Err(FetchError::TooLong(METAINFO_LEN_MAX));
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

/// The innermost cause says what happened; the layers above repeat the address.
fn told(error: reqwest::Error) -> FetchError {
    if error.is_timeout() && error.is_connect() {
        return FetchError::NotConnected(CONNECT_TIME_MAX);
    }
    if error.is_timeout() {
        return FetchError::TimedOut(FETCH_TIME_MAX);
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    FetchError::Http(cause.to_string())
}
