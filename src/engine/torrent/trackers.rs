//! One announce on its way to its tracker, by HTTP or UDP, and the answer. A name is looked up anew
//! for each.

use std::net::{IpAddr, SocketAddr};

use tokio::sync::oneshot;
use tokio::time::{Duration, timeout};

use crate::engine::context::Context;
use crate::engine::discovery::http::Answer;
use crate::engine::discovery::udp;
use crate::proto::compact;
use crate::proto::scope::Origin;
use crate::proto::tracker::{Announce, AnnounceReply, TrackerError};

/// Time for looking up the name of a UDP tracker; then it counts as unreachable.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for the tracker's IPv4 address to answer before its IPv6 address is asked too.
const HEAD_START: Duration = Duration::from_millis(500);

/// Carries one announce to its tracker and the answer back.
pub(super) async fn announce(context: &Context, url: &str, announce: Announce) -> Answer {
    if !url.starts_with("udp:") {
        return context.http.announce(url, &announce).await;
    }
    match announce_udp(context, url, announce).await {
        Ok((reply, ip)) => Answer { reply: Ok(reply), local: compact::is_local(ip) },
        Err(error) => Answer { reply: Err(error), local: false },
    }
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
