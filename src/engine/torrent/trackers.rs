//! The trackers of one torrent: carries announces out and answers back, and keeps what people see
//! of them.
//!
//! When to announce what to whom, the announcer decides. A name is looked up anew for each
//! announce.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Duration, timeout};

use crate::engine::context::Context;
use crate::engine::handle::TrackerStatus;
use crate::engine::http::Answer;
use crate::engine::udp;
use crate::proto::compact;
use crate::proto::scope::Origin;
use crate::proto::time::Instant;
use crate::proto::tracker::announcer::{self, Announcer, Progress, RequestId, TRACKER_MAX};
use crate::proto::tracker::{Announce, AnnounceReply, TrackerError};

/// Time for looking up the name of a UDP tracker; then it counts as unreachable.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the tracker's IPv4 address to answer before its IPv6 address is asked too.
const HEAD_START: Duration = Duration::from_millis(500);

/// The announcer and what its trackers said.
pub(super) struct Trackers {
    /// None: there are no trackers.
    announcer: Option<Box<Announcer>>,
    statuses: Vec<TrackerStatus>,
    /// Requests under way, or waiting for their turn.
    asked: BTreeMap<RequestId, Asked>,
    /// Whether the tracker at a URL is on a local address: then it may name local peers.
    local: BTreeMap<String, bool>,
}

/// An announce on its way.
#[derive(Clone)]
pub(super) struct Asked {
    /// To which tracker.
    pub(super) url: String,
    /// What to say.
    pub(super) announce: Announce,
}

/// An answered request.
pub(super) struct Announced {
    request: RequestId,
    answer: Answer,
}

impl Trackers {
    /// Those of the announcer, none of which has answered yet.
    pub(super) fn new(announcer: Announcer, tiers: &[Vec<String>]) -> Self {
        let status = |url: &String| TrackerStatus { url: url.clone(), ..TrackerStatus::default() };
        let mut seen = BTreeSet::new();
        let used = tiers.iter().flatten().filter(|url| seen.insert(*url)).take(TRACKER_MAX);
        let statuses: Vec<_> = used.map(status).collect();
        let announcer = (!statuses.is_empty()).then(|| Box::new(announcer));
        Self { announcer, statuses, asked: BTreeMap::new(), local: BTreeMap::new() }
    }

    /// The announcer, with the newest figures.
    pub(super) fn announcer(&mut self, progress: Progress) -> Option<&mut Announcer> {
        let announcer = self.announcer.as_deref_mut()?;
        announcer.handle_progress(progress);
        Some(announcer)
    }

    /// When the announcer wants to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.announcer.as_ref()?.poll_timeout()
    }

    /// After `stopped`: whether all is said.
    pub(super) fn is_done(&self) -> bool {
        self.announcer.as_ref().is_none_or(|announcer| announcer.is_done())
    }

    /// The announcer's next decision.
    pub(super) fn poll_output(&mut self) -> Option<announcer::Output> {
        self.announcer.as_mut()?.poll_output()
    }

    /// What people see.
    pub(super) fn statuses(&self) -> &[TrackerStatus] {
        &self.statuses
    }

    /// Whether every tracker has failed, each at its last announce.
    pub(super) fn all_failed(&self) -> bool {
        self.statuses.iter().all(|status| status.error.is_some())
    }

    /// Whether the tracker at this URL answered from a local address.
    pub(super) fn is_local(&self, url: &str) -> bool {
        self.local.get(url).copied().unwrap_or(false)
    }

    /// The status of the tracker at this URL.
    pub(super) fn status(&mut self, url: &str) -> Option<&mut TrackerStatus> {
        self.statuses.iter_mut().find(|status| status.url == url)
    }

    /// An announce is to be sent; `waits`: when it is its turn.
    pub(super) fn asked(&mut self, now: Instant, request: RequestId, asked: Asked, waits: bool) {
        self.asked.insert(request, asked);
        if let Some(announcer) = self.announcer.as_mut().filter(|_| waits) {
            announcer.handle_queued(now, request);
        }
    }

    /// It is the turn of an announce that waited; None: it is not wanted any more.
    pub(super) fn leaves(&mut self, now: Instant, request: RequestId) -> Option<Asked> {
        let is_wanted = self.announcer.as_mut().is_some_and(|announcer| announcer.handle_sent(now, request));
        if !is_wanted {
            self.forget(request);
        }
        self.asked.get(&request).cloned()
    }

    fn forget(&mut self, request: RequestId) -> Option<Asked> {
        let asked = self.asked.remove(&request);
        if self.asked.is_empty() {
            // Left as it is, it keeps the room of eleven until the next announce.
            self.asked = BTreeMap::new();
        }
        asked
    }

    /// An announce was answered: whose answer it is, and how many peers it names, if it went well.
    pub(super) fn answered(
        &mut self,
        now: Instant,
        progress: Progress,
        announced: Announced,
    ) -> Option<(String, usize)> {
        let Announced { request, answer } = announced;
        let url = self.forget(request).map(|asked| asked.url);
        let named = url.zip(answer.reply.as_ref().ok().map(|reply| reply.peers.len()));
        if let Some((url, _)) = &named {
            self.local.insert(url.clone(), answer.local);
        }
        if let Some(announcer) = self.announcer(progress) {
            announcer.handle_reply(now, request, answer.reply);
        }
        named
    }
}

/// Carries one announce to its tracker and the answer back.
pub(super) async fn announce(context: Arc<Context>, request: RequestId, asked: Asked) -> Announced {
    let Asked { url, announce } = asked;
    let answer = if url.starts_with("udp:") {
        match announce_udp(&context, &url, announce).await {
            Ok((reply, ip)) => Answer { reply: Ok(reply), local: compact::is_local(ip) },
            Err(error) => Answer { reply: Err(error), local: false },
        }
    } else {
        context.http.announce(&url, &announce).await
    };
    Announced { request, answer }
}

async fn announce_udp(
    context: &Context,
    url: &str,
    announce: Announce,
) -> Result<(AnnounceReply, IpAddr), TrackerError> {
    let (host, port, url_data) = split_udp(url).ok_or_else(|| unreachable("its URL has no host and port"))?;
    let (tracker, other) = lookup(context, &host, port).await?;
    let first = ask_udp(context, tracker, &url_data, announce.clone());
    let Some(other) = other else { return first.await };
    either(first, async {
        tokio::time::sleep(HEAD_START).await;
        ask_udp(context, other, &url_data, announce).await
    })
    .await
}

async fn ask_udp(
    context: &Context,
    tracker: SocketAddr,
    url_data: &str,
    announce: Announce,
) -> Result<(AnnounceReply, IpAddr), TrackerError> {
    let (reply, answer) = oneshot::channel();
    let request = udp::Request { tracker, url_data: url_data.to_owned(), announce, reply };
    context.udp.send(request).await.map_err(|_| unreachable("stopped"))?;
    let reply = answer.await.map_err(|_| unreachable("stopped"))??;
    Ok((reply, tracker.ip()))
}

/// The result of whoever succeeds first, or the last failure.
async fn either<T, E>(
    first: impl Future<Output = Result<T, E>>,
    second: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    tokio::pin!(first, second);
    tokio::select! {
        result = &mut first => if result.is_ok() { result } else { second.await },
        result = &mut second => if result.is_ok() { result } else { first.await },
    }
}

/// The addresses of a UDP tracker: the first of IPv4, if it has one and we speak it, and of IPv6.
async fn lookup(
    context: &Context,
    host: &str,
    port: u16,
) -> Result<(SocketAddr, Option<SocketAddr>), TrackerError> {
    let found = timeout(LOOKUP_TIMEOUT, tokio::net::lookup_host((host, port))).await;
    let found = found.map_err(|_| unreachable("its name is not found in time"))?;
    let found: Vec<_> =
        found.map_err(|error| unreachable(&error.to_string()))?.map(compact::canonical).collect();
    let listen = &context.config.listen;
    let is_spoken =
        |addr: &SocketAddr| listen.is_empty() || listen.iter().any(|ip| ip.is_ipv4() == addr.is_ipv4());
    let admits = |addr: &SocketAddr| Origin::User.innermost().admits(addr.ip());
    one_of_each_family(found.into_iter().filter(is_spoken).filter(admits).collect())
        .ok_or_else(|| unreachable("it has no address that we can reach"))
}

fn one_of_each_family(mut addrs: Vec<SocketAddr>) -> Option<(SocketAddr, Option<SocketAddr>)> {
    addrs.sort_by_key(SocketAddr::is_ipv6);
    let first = *addrs.first()?;
    Some((first, addrs.into_iter().find(|addr| addr.is_ipv4() != first.is_ipv4())))
}

fn unreachable(words: &str) -> TrackerError {
    TrackerError::Unreachable(words.to_owned())
}

/// Host, port, and path with query of a `udp:` URL.
fn split_udp(url: &str) -> Option<(String, u16, String)> {
    let parsed = reqwest::Url::parse(url).ok()?;
    let host = parsed.host_str()?.trim_matches(['[', ']']).to_owned();
    let mut url_data = parsed.path().to_owned();
    if let Some(query) = parsed.query() {
        url_data = format!("{url_data}?{query}");
    }
    Some((host, parsed.port()?, url_data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tracker_is_asked_at_one_address_of_each_family() {
        let pick =
            |texts: &[&str]| one_of_each_family(texts.iter().map(|text| text.parse().unwrap()).collect());
        let (v4, v6) = ("127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        assert_eq!(pick(&["[::1]:1", "[::2]:1", "127.0.0.1:1"]), Some((v4, Some(v6))));
        assert_eq!(pick(&["[::1]:1"]), Some((v6, None)));
        assert_eq!(pick(&[]), None);
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hide_the_one_that_answers() {
        use std::future::{pending, ready};
        type Answer = Result<u8, u8>;
        assert_eq!(either(pending::<Answer>(), ready(Ok(6))).await, Ok(6));
        assert_eq!(either(ready(Ok(4)), pending::<Answer>()).await, Ok(4));
        assert_eq!(either(ready(Err(4)), ready(Ok(6))).await, Ok(6));
        assert_eq!(either(ready(Ok(4)), ready(Err(6))).await, Ok(4));
        assert!(either(ready(Answer::Err(4)), ready(Err(6))).await.is_err());
    }

    #[test]
    fn udp_urls_give_host_port_and_url_data() {
        let split = |url| split_udp(url).map(|(host, port, data)| format!("{host} {port} {data}"));
        assert_eq!(split("udp://t.example:80/announce?a=b").unwrap(), "t.example 80 /announce?a=b");
        assert_eq!(split("udp://[::1]:6969/announce").unwrap(), "::1 6969 /announce");
        assert_eq!(split("udp://t.example:1").unwrap(), "t.example 1 ");
        assert_eq!(split("udp://t.example/announce"), None);
    }
}
