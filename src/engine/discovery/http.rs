//! HTTP and HTTPS trackers: one request, one bounded answer.
//!
//! Knows how to announce by a URL; `proto` knows what the query says, what the answer means and
//! which addresses a URL may lead to.

use reqwest::{Response, StatusCode, Url};
use tokio::time::{Duration, timeout};

use crate::engine::network::web;
use crate::engine::network::web::{FollowError, WebClient, WebError};
use crate::proto::scope::{Origin, Scope};
use crate::proto::tracker::http::{BODY_LEN_MAX, announce_scope, announce_url, decode_reply};
use crate::proto::tracker::{Announce, AnnounceReply, TrackerError};

/// Time for an announce in all, name lookup and redirects included; then the tracker counts as
/// silent.
const TIMEOUT: Duration = Duration::from_secs(30);

/// An answer, and whether it came from a local address.
pub(crate) struct Answer {
    /// What the tracker said.
    pub(crate) reply: Result<AnnounceReply, TrackerError>,
    /// Whether the tracker is on a loopback or private address; false if that is unknown.
    pub(crate) local: bool,
}

/// The client of all torrents. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpClient {
    web: WebClient,
}

impl HttpClient {
    /// Announces to the tracker at `url`, which the user named.
    pub(crate) async fn announce(&self, url: &str, announce: &Announce) -> Answer {
        let fetched = timeout(TIMEOUT, self.fetch(&announce_url(url, announce))).await;
        match fetched.unwrap_or(Err(TrackerError::Timeout)) {
            Ok((body, scope)) => Answer { reply: decode_reply(&body), local: scope != Scope::Public },
            Err(error) => Answer { reply: Err(error), local: false },
        }
    }

    /// The body of the answer, and the scope of the address that gave it.
    async fn fetch(&self, url: &str) -> Result<(Vec<u8>, Scope), TrackerError> {
        let innermost = |origin, url: &Url| announce_scope(origin, url.path());
        let (response, scope) = self.web.follow(parse(url)?, innermost).await.map_err(not_reached)?;
        Ok((body(response).await?, scope))
    }
}

fn parse(url: &str) -> Result<Url, TrackerError> {
    Url::parse(url).map_err(|error| TrackerError::Unreachable(error.to_string()))
}

async fn body(mut response: Response) -> Result<Vec<u8>, TrackerError> {
    if response.status() == StatusCode::GONE {
        return Err(TrackerError::Gone);
    }
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
    Ok(body)
}

fn not_reached(error: FollowError) -> TrackerError {
    match error {
        FollowError::NotReached(WebError::Http(error), _) => unreachable(error),
        FollowError::NotReached(WebError::Inwards(_), Origin::User) => TrackerError::Unreachable(
            "not contacted: on the local network only URLs that end in /announce are trackers".to_owned(),
        ),
        FollowError::NotReached(WebError::Inwards(_), Origin::Server(_)) => {
            TrackerError::Unreachable("not followed: it redirects to the local network".to_owned())
        }
        FollowError::Target(_) => TrackerError::Garbage("it redirects to no HTTP address"),
        FollowError::Count => TrackerError::Garbage("it redirects again and again"),
    }
}

fn unreachable(error: reqwest::Error) -> TrackerError {
    if error.is_timeout() { TrackerError::Timeout } else { TrackerError::Unreachable(web::cause(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::network::web::testing::{redirect as to, served};
    use crate::engine::network::web::{REDIRECT_MAX, USER_AGENT};
    use crate::proto::infohash::InfoHash;
    use crate::proto::peer_id::PeerId;
    use tokio::net::TcpListener;

    fn announce() -> Announce {
        Announce::new(InfoHash([1; 20]), PeerId([2; 20]), 1)
    }

    /// What the client makes of a tracker that answers like this.
    async fn answer(bytes: &str) -> Answer {
        let ask = async |here: &str| {
            HttpClient::default().announce(&format!("http://{here}/announce?key=1"), &announce()).await
        };
        let (answer, asked) = served(&[bytes], ask).await;
        assert!(asked[0].starts_with("GET /announce?key=1&"), "{asked:?}");
        assert!(asked[0].contains(&format!("user-agent: {USER_AGENT}\r\n")), "{asked:?}");
        answer
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn answers_are_read_and_a_neighbour_is_known_as_one() {
        let answer = answer(&ok("d8:intervali60e5:peers6:\x0a\0\0\x01\0\x50e")).await;
        assert_eq!(answer.reply.unwrap().peers, ["10.0.0.1:80".parse().unwrap()]);
        assert!(answer.local);
    }

    #[tokio::test]
    async fn refusals_endless_bodies_and_the_end_of_a_tracker_are_told_apart() {
        let refused = answer("HTTP/1.1 400 Bad\r\n\r\nd14:failure reason2:noe").await;
        assert!(matches!(refused.reply, Err(TrackerError::Refused { .. })));
        let endless = answer(&ok(&"x".repeat(BODY_LEN_MAX + 1))).await;
        assert!(matches!(endless.reply, Err(TrackerError::Garbage(_))));
        let gone = answer("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(gone.reply, Err(TrackerError::Gone));
        let empty = answer("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").await;
        assert!(matches!(empty.reply, Err(TrackerError::Unreachable(words)) if words.contains("500")));
    }

    /// What comes of a tracker at an announce path that gives these answers, and what it was asked.
    async fn redirected(answers: &[String]) -> (Answer, Vec<String>) {
        let ask = async |here: &str| {
            let url = format!("http://user:secret@{here}/announce?passkey=1");
            HttpClient::default().announce(&url, &announce()).await
        };
        served(answers, ask).await
    }

    #[tokio::test]
    async fn a_redirect_is_followed_and_carries_nothing_of_the_announce_before() {
        let found = ok("d8:intervali60e5:peers0:e");
        let (answer, asked) =
            redirected(&[to("http://{here}/x/announce?b"), to("announce.php"), found]).await;
        assert_eq!(answer.reply.map(|reply| reply.peers.len()), Ok(0));
        assert!(asked[1].starts_with("GET /x/announce?b HTTP/1.1\r\n"), "{asked:?}");
        assert!(asked[2].starts_with("GET /x/announce.php HTTP/1.1\r\n"), "{asked:?}");
        for request in &asked[1..] {
            let request = request.to_ascii_lowercase();
            assert!(!request.contains("passkey") && !request.contains("info_hash"), "{request}");
            assert!(!request.contains("referer") && !request.contains("authorization"), "{request}");
        }
    }

    #[tokio::test]
    async fn redirects_end_at_what_is_no_announce_and_after_a_few() {
        for target in [
            "http://{here}/admin/reboot?now=1",
            "/admin/reboot",
            "file:///etc/passwd",
            "udp://{here}/announce",
            "magnet:?xt=urn:btih:0123456789012345678901234567890123456789",
            "ftp://{here}/announce",
            "http://",
            "//",
        ] {
            let (answer, asked) = redirected(&[to(target)]).await;
            assert!(answer.reply.is_err() && !answer.local, "{target}");
            assert_eq!(asked.len(), 1, "{target}: {asked:?}");
        }
        let (answer, asked) = redirected(&vec![to("/announce"); 2 * REDIRECT_MAX]).await;
        assert!(matches!(answer.reply, Err(TrackerError::Garbage(_))));
        assert_eq!(asked.len(), 1 + REDIRECT_MAX);
    }

    #[tokio::test]
    async fn services_of_this_machine_that_are_no_trackers_are_not_asked() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = HttpClient::default();
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
            let url = format!("http://{host}:{port}/admin/reboot?now=1");
            let answer = client.announce(&url, &announce()).await;
            assert!(
                matches!(&answer.reply, Err(TrackerError::Unreachable(why)) if why.contains("local network")),
                "{:?}",
                answer.reply
            );
        }
        assert!(timeout(Duration::ZERO, listener.accept()).await.is_err(), "nothing has connected");
    }
}
