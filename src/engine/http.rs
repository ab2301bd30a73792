//! HTTP and HTTPS trackers: one request, one bounded answer.
//!
//! Knows how to fetch a URL; what the query says and what the answer means, `proto::tracker::http` knows.

use std::net::IpAddr;
use std::sync::Arc;

use reqwest::{Client, StatusCode, redirect};
use tokio::sync::OnceCell;
use tokio::time::Duration;

use crate::proto::compact;
use crate::proto::tracker::http::{BODY_LEN_MAX, announce_url, decode_reply};
use crate::proto::tracker::{Announce, AnnounceReply, TrackerError};

/// Time for an announce in all, name lookup and redirects included; then the tracker counts as silent.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Redirects followed; one more is an error.
const REDIRECT_MAX: usize = 5;
/// How we call ourselves.
const USER_AGENT: &str = concat!("sprat/", env!("CARGO_PKG_VERSION"));

/// An answer, and whether it came from a local address (None: unknown).
pub(crate) struct Answer {
    /// What the tracker said.
    pub(crate) reply: Result<AnnounceReply, TrackerError>,
    /// Whether the tracker is on a loopback or private address.
    pub(crate) local: bool,
}

/// The client of all torrents, made when the first one needs it: reading the system's certificates takes
/// longer than starting the rest.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpClient {
    client: Arc<OnceCell<Client>>,
}

impl HttpClient {
    /// Announces to the tracker at `url`.
    pub(crate) async fn announce(&self, url: &str, announce: &Announce) -> Answer {
        match self.fetch(&announce_url(url, announce)).await {
            Ok((body, ip)) => Answer { reply: decode_reply(&body), local: ip.is_some_and(compact::is_local) },
            Err(error) => Answer { reply: Err(error), local: false },
        }
    }

    async fn fetch(&self, url: &str) -> Result<(Vec<u8>, Option<IpAddr>), TrackerError> {
        let client = self.client.get_or_try_init(|| async { build() }).await.map_err(unreachable)?;
        let mut response = client.get(url).send().await.map_err(unreachable)?;
        if response.status() == StatusCode::GONE {
            return Err(TrackerError::Gone);
        }
        let ip = response.remote_addr().map(|addr| addr.ip());
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if body.len() + part.len() > BODY_LEN_MAX {
                return Err(TrackerError::Garbage("the answer is too long"));
            }
            body.extend_from_slice(&part);
        }
        if body.is_empty() && !response.status().is_success() {
            return Err(TrackerError::Unreachable(format!("it answers {}", response.status())));
        }
        Ok((body, ip))
    }
}

fn build() -> Result<Client, reqwest::Error> {
    // Another user of the library may have installed a provider already: any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(USER_AGENT)
        .timeout(TIMEOUT)
        .redirect(redirect::Policy::limited(REDIRECT_MAX))
        .pool_max_idle_per_host(0)
        .build()
}

/// The innermost cause is what people can act on; the URL, with its passkey, stays out of the text.
fn unreachable(error: reqwest::Error) -> TrackerError {
    if error.is_timeout() {
        return TrackerError::Timeout;
    }
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    TrackerError::Unreachable(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::infohash::InfoHash;
    use crate::proto::peer_id::PeerId;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// What the client makes of a tracker that answers with these bytes.
    async fn answer(bytes: &[u8]) -> Answer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/announce?key=1", listener.local_addr().unwrap());
        let announce = Announce::new(InfoHash([1; 20]), PeerId([2; 20]), 1);
        let serve = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let len = socket.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..len]).into_owned();
            // The client may hang up before it has read everything.
            let _ = socket.write_all(bytes).await;
            request
        };
        let client = HttpClient::default();
        let (answer, request) = tokio::join!(client.announce(&url, &announce), serve);
        assert!(request.starts_with("GET /announce?key=1&"), "{request}");
        assert!(request.contains(&format!("user-agent: {USER_AGENT}\r\n")), "{request}");
        answer
    }

    fn ok(body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[tokio::test]
    async fn answers_are_read_and_a_neighbour_is_known_as_one() {
        let answer = answer(&ok(b"d8:intervali60e5:peers6:\x0a\0\0\x01\0\x50e")).await;
        assert_eq!(answer.reply.unwrap().peers, ["10.0.0.1:80".parse().unwrap()]);
        assert!(answer.local);
    }

    #[tokio::test]
    async fn refusals_endless_bodies_and_the_end_of_a_tracker_are_told_apart() {
        let refused = answer(b"HTTP/1.1 400 Bad\r\n\r\nd14:failure reason2:noe").await;
        assert!(matches!(refused.reply, Err(TrackerError::Refused { .. })));
        let endless = answer(&ok(&vec![b'x'; BODY_LEN_MAX + 1])).await;
        assert!(matches!(endless.reply, Err(TrackerError::Garbage(_))));
        let gone = answer(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(gone.reply, Err(TrackerError::Gone));
        let empty = answer(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").await;
        assert!(matches!(empty.reply, Err(TrackerError::Unreachable(words)) if words.contains("500")));
    }
}
