//! Fetching what stands at a URL that the user typed: a .torrent file, or a redirect to a magnet
//! link. Bounded in bytes, time and redirects, so that no server can hold us up.
//!
//! The user may name a server anywhere; a redirect leads no further inwards than the server that
//! sent it.

use std::time::Duration;

use reqwest::{Response, Url};

use crate::engine::network::web;
use crate::engine::network::web::{CONNECT_TIME_MAX, FollowError, REDIRECT_MAX, WebClient, WebError};
use crate::proto::metainfo::METAINFO_LEN_MAX;
use crate::proto::metainfo::magnet;
use crate::proto::scope::{Origin, Scope};

/// Longest time for the whole answer; then it is given up.
const FETCH_TIME_MAX: Duration = Duration::from_secs(30);

/// What a URL leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The bytes of a .torrent file, or of what should be one.
    File(Vec<u8>),
    /// A magnet link, as the server gave it.
    Magnet(String),
}

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
    /// More redirects than are followed: how many are.
    #[error("more than {0} redirects")]
    RedirectCount(usize),
    /// A redirect to something that is not fetched, such as `file:`.
    #[error("redirected to `{0}`, which is neither http, https nor a magnet link")]
    RedirectTarget(String),
    /// A redirect from a public server, or one of the local network, to a place that it cannot
    /// reach itself.
    #[error("redirected to an address of the local network, which is not followed")]
    RedirectInwards,
    /// The connection, or something about it, failed.
    #[error("{0}")]
    Http(String),
}

/// What stands at `url` (http or https): at most [`METAINFO_LEN_MAX`] bytes, or a magnet link.
///
/// # Errors
/// The server is at fault, or the way to it.
pub async fn fetch(url: &str) -> Result<Fetched, FetchError> {
    let fetching = tokio::time::timeout(FETCH_TIME_MAX, follow(url));
    fetching.await.unwrap_or(Err(FetchError::TimedOut(FETCH_TIME_MAX)))
}

/// Goes from redirect to redirect.
async fn follow(url: &str) -> Result<Fetched, FetchError> {
    let url = Url::parse(url).map_err(|error| FetchError::Http(error.to_string()))?;
    let innermost = |origin, _: &Url| match origin {
        Origin::User => Scope::Loopback,
        Origin::Server(scope) => scope,
    };
    match WebClient::default().follow(url, innermost).await {
        Ok((response, _)) => body(response).await,
        Err(FollowError::Target(target)) if magnet::is_magnet(&target) => Ok(Fetched::Magnet(target)),
        Err(FollowError::Target(target)) => Err(FetchError::RedirectTarget(target)),
        Err(FollowError::Count) => Err(FetchError::RedirectCount(REDIRECT_MAX)),
        Err(FollowError::NotReached(WebError::Inwards(_), _)) => Err(FetchError::RedirectInwards),
        Err(FollowError::NotReached(WebError::Http(error), _)) => Err(told(error)),
    }
}

async fn body(mut response: Response) -> Result<Fetched, FetchError> {
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
    Ok(Fetched::File(bytes))
}

fn told(error: reqwest::Error) -> FetchError {
    if error.is_timeout() {
        // The whole has its limit elsewhere.
        return FetchError::NotConnected(CONNECT_TIME_MAX);
    }
    FetchError::Http(web::cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::network::web::testing::{redirect as to, served};

    /// What is fetched from a server that gives these answers, and what it was asked.
    async fn fetched(answers: &[&str]) -> (Result<Fetched, FetchError>, Vec<String>) {
        served(answers, async |here| fetch(&format!("http://{here}/a/b?passkey=1")).await).await
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nde";

    #[tokio::test]
    async fn redirects_are_followed_without_telling_where_from() {
        let (result, asked) = fetched(&[&to("c"), &to("/d"), &to("http://{here}/e"), OK]).await;
        assert_eq!(result.unwrap(), Fetched::File(b"de".to_vec()));
        let lines: Vec<_> = asked.iter().filter_map(|request| request.lines().next()).collect();
        assert_eq!(
            lines,
            ["GET /a/b?passkey=1 HTTP/1.1", "GET /a/c HTTP/1.1", "GET /d HTTP/1.1", "GET /e HTTP/1.1"]
        );
        for request in &asked {
            let request = request.to_ascii_lowercase();
            assert!(
                request.contains(&format!("user-agent: {}\r\n", web::USER_AGENT))
                    && !request.contains("referer")
            );
        }
    }

    #[tokio::test]
    async fn a_redirect_may_lead_to_a_magnet_link() {
        for link in ["magnet:?xt=urn:btih:aa", "MAGNET:?xt=x"] {
            let (result, _) = fetched(&[&to("/c"), &to(link)]).await;
            assert_eq!(result.unwrap(), Fetched::Magnet(link.to_owned()));
        }
    }

    #[tokio::test]
    async fn other_targets_loops_and_refusals_are_errors() {
        for target in ["file:///etc/passwd", "ftp://h/x", "data:,x", "http://", "javascript:1"] {
            let (result, _) = fetched(&[&to(target)]).await;
            assert!(matches!(&result, Err(FetchError::RedirectTarget(told)) if told == target), "{result:?}");
        }
        let here = to("http://{here}/a/b");
        let (result, asked) = fetched(&[here.as_str(); 7]).await;
        assert!(matches!(result, Err(FetchError::RedirectCount(REDIRECT_MAX))), "{result:?}");
        assert_eq!(asked.len(), REDIRECT_MAX + 1);
        let (result, _) = fetched(&["HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"]).await;
        assert!(matches!(result, Err(FetchError::Status(302))), "{result:?}");
        let (result, _) = fetched(&["HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"]).await;
        assert!(matches!(result, Err(FetchError::Status(403))), "{result:?}");
    }
}
