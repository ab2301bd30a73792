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
