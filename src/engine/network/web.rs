//! HTTP requests that contact only those networks which the origin of a URL, the user or a server,
//! may name.
//!
//! `proto::scope` decides whether an address may be asked; this module resolves names, checks every
//! address and connects to an address that was checked. A name is not resolved twice, so a DNS
//! server cannot answer differently in between. Each redirect is a request of its own that is
//! checked like the first one, by a rule of the caller, and carries nothing of the request before
//! it, such as a `Referer` with a passkey.
//!
//! Behind a proxy the proxy resolves the names, and only addresses that are written in the URL can
//! be checked. Which address answered is unknown then, and counts as public.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response, Url, header, redirect};
use tokio::sync::OnceCell;
use tokio::time::Duration;

use crate::proto::scope::{Origin, Scope};

/// Redirects followed, one after the other; one more is an error.
pub(crate) const REDIRECT_MAX: usize = 5;
/// Longest time until a connection stands.
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// How we call ourselves.
pub(crate) const USER_AGENT: &str = concat!("sprat/", env!("CARGO_PKG_VERSION"));

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    /// The host's addresses belong to a network where this URL may not lead.
    #[error(transparent)]
    Inwards(#[from] Inwards),
    /// The connection, or something about it, failed.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

/// Why following redirects brought no answer.
#[derive(Debug)]
pub(crate) enum FollowError {
    /// There is no answer from a URL that was named like this.
    NotReached(WebError, Origin),
    /// A redirect to something else than http and https: its target, as the server said it.
    Target(String),
    /// There are more than [`REDIRECT_MAX`].
    Count,
}

/// The URL leads to an address that whoever named it may not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not asked: it leads to an address of the local network")]
pub(crate) struct Inwards;

/// Clients for all requests, made when they are first needed: reading the system's certificates
/// takes longer than starting the rest. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct WebClient {
    /// By how far inwards they go; [`slot`] says which is where.
    clients: Arc<[OnceCell<Client>; 4]>,
    proxies: Arc<Proxies>,
}

impl WebClient {
    /// Requests what stands at the URL, which the user named, and follows redirects. `innermost`
    /// says how far inwards a URL may lead that the user or a server named. Returns the answer,
    /// with the scope of the address that gave it.
    ///
    /// # Errors
    /// A URL leads further inwards, there is no answer, or the redirects lead nowhere.
    pub(crate) async fn follow(
        &self,
        mut url: Url,
        innermost: impl Fn(Origin, &Url) -> Scope,
    ) -> Result<(Response, Scope), FollowError> {
        let mut origin = Origin::User;
        for _ in 0..=REDIRECT_MAX {
            let got = self.get(&url, innermost(origin, &url)).await;
            let (response, scope) = got.map_err(|error| FollowError::NotReached(error, origin))?;
            let Some(target) = redirect_target(&response) else { return Ok((response, scope)) };
            url = match url.join(&target) {
                Ok(next) if matches!(next.scheme(), "http" | "https") => next,
                Ok(_) | Err(_) => return Err(FollowError::Target(target)),
            };
            origin = Origin::Server(scope);
        }
        Err(FollowError::Count)
    }

    /// Requests what stands at the URL, if it leads no further inwards than `innermost`. With the
    /// scope of the address that answered; public if it is unknown.
    ///
    /// # Errors
    /// The URL leads further inwards, or there is no answer.
    async fn get(&self, url: &Url, innermost: Scope) -> Result<(Response, Scope), WebError> {
        let literal = literal(url);
        match literal {
            Some(ip) if !innermost.admits(ip) => return Err(Inwards.into()),
            None if innermost != Scope::Loopback && self.proxies.names(url) => return Err(Inwards.into()),
            Some(_) | None => {}
        }
        let build = || async { build(Guard { innermost, proxies: self.proxies.clone() }) };
        let client = self.clients[slot(innermost)].get_or_try_init(build).await?;
        let response = client.get(url.clone()).send().await.map_err(refused)?;
        let from = response.remote_addr().map(|addr| addr.ip().to_canonical());
        let is_known = literal == from || self.proxies.hosts.is_empty();
        let scope = from.filter(|_| is_known).and_then(Scope::of).unwrap_or(Scope::Public);
        Ok((response, scope))
    }
}

/// Where the response redirects to, as it says it; None: it is the answer.
fn redirect_target(response: &Response) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let target = response.headers().get(header::LOCATION)?;
    Some(String::from_utf8_lossy(target.as_bytes()).trim().to_owned())
}

/// The innermost cause is what people can act on; the URL, with its passkey, stays out of the text.
pub(crate) fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn slot(innermost: Scope) -> usize {
    match innermost {
        Scope::Public => 0,
        Scope::Private => 1,
        Scope::LinkLocal => 2,
        Scope::Loopback => 3,
    }
}

fn build(guard: Guard) -> Result<Client, reqwest::Error> {
    // Another user of the library may have installed a provider already: any will do.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIME_MAX)
        .redirect(redirect::Policy::none())
        .referer(false)
        .pool_max_idle_per_host(0)
        .dns_resolver(Arc::new(guard))
        .build()
}

/// The address that the URL's host is written as, in whatever form.
fn literal(url: &Url) -> Option<IpAddr> {
    let host = url.host_str()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// An error of the guard is one of its own, however deep it lies.
fn refused(error: reqwest::Error) -> WebError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(current) = cause {
        if let Some(inwards) = current.downcast_ref::<Inwards>() {
            return (*inwards).into();
        }
        cause = current.source();
    }
    error.into()
}

/// Resolves names for a client, and leaves out addresses that are further inwards than it may go.
struct Guard {
    innermost: Scope,
    proxies: Arc<Proxies>,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        // The user named the proxy.
        let innermost = if self.proxies.hosts.contains(name.as_str()) { None } else { Some(self.innermost) };
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let admits = |addr: &SocketAddr| innermost.is_none_or(|innermost| innermost.admits(addr.ip()));
            let mut admitted = found.filter(admits).peekable();
            if admitted.peek().is_none() {
                return Err(Inwards.into());
            }
            let addrs: Addrs = Box::new(admitted.collect::<Vec<_>>().into_iter());
            Ok(addrs)
        })
    }
}

/// The hosts of the proxies that the environment names: the HTTP client may use them in place of a
/// URL's own host.
#[derive(Debug)]
struct Proxies {
    hosts: BTreeSet<String>,
}

impl Proxies {
    fn new(values: impl Iterator<Item = String>) -> Self {
        let url = |value: String| Url::parse(&value).or_else(|_| Url::parse(&format!("http://{value}"))).ok();
        let hosts = values.filter_map(url).filter_map(|url| url.host_str().map(str::to_owned));
        Self { hosts: hosts.collect() }
    }

    fn names(&self, url: &Url) -> bool {
        url.host_str().is_some_and(|host| self.hosts.contains(host))
    }
}

impl Default for Proxies {
    fn default() -> Self {
        let names = ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
        Self::new(
            names.into_iter().filter_map(|name| std::env::var(name).ok()).filter(|value| !value.is_empty()),
        )
    }
}

/// A server for tests of what is made of its answers.
#[cfg(test)]
pub(crate) mod testing {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// What `ask` returns, which is given the address of a server, and the requests that the server
    /// got. The server gives these answers one after the other; `{here}` in them stands for its
    /// address.
    pub(in crate::engine) async fn served<T>(
        answers: &[impl AsRef<str>],
        ask: impl AsyncFnOnce(&str) -> T,
    ) -> (T, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let mut asked = Vec::new();
        let serve = async {
            for answer in answers {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4_096];
                let len = socket.read(&mut request).await.unwrap();
                asked.push(String::from_utf8_lossy(&request[..len]).into_owned());
                // The client may hang up before it has read everything.
                let _ = socket.write_all(answer.as_ref().replace("{here}", &here).as_bytes()).await;
            }
            std::future::pending::<()>().await;
        };
        let result = tokio::select! {
            result = ask(&here) => result,
            () = serve => unreachable!("it serves for ever"),
        };
        (result, asked)
    }

    /// An answer that redirects.
    pub(in crate::engine) fn redirect(target: &str) -> String {
        format!("HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_an_address_is_that_address() {
        for text in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0x7f000001/",
            "http://0177.0.0.01/",
            "http://%31%32%37.0.0.1/",
            "http://127.0.0.1./",
            "http://①②⑦.0.0.1/",
            "http://user:pass@127.0.0.1:80/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
        ] {
            let ip = literal(&Url::parse(text).unwrap());
            assert_eq!(ip, Some("127.0.0.1".parse().unwrap()), "{text}");
        }
        assert_eq!(literal(&Url::parse("http://[::1]:80/").unwrap()), Some("::1".parse().unwrap()));
        assert_eq!(literal(&Url::parse("http://localhost/").unwrap()), None);
    }

    #[tokio::test]
    async fn names_and_addresses_of_this_machine_are_refused_to_servers() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = WebClient::default();
        for host in ["127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0", "0"] {
            let url = Url::parse(&format!("http://{host}:{port}/announce")).unwrap();
            for innermost in [Scope::Public, Scope::Private, Scope::LinkLocal] {
                let answer = client.get(&url, innermost).await;
                assert!(matches!(answer, Err(WebError::Inwards(_))), "{host}: {answer:?}");
            }
        }
        let metadata = Url::parse("http://169.254.169.254/announce").unwrap();
        assert!(matches!(client.get(&metadata, Scope::Loopback).await, Err(WebError::Inwards(_))));
        let asked = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
        assert!(asked.is_err(), "nothing has connected");
    }

    #[test]
    fn proxies_of_the_environment_are_known_with_a_scheme_and_without() {
        let values = ["http://proxy.lan:3128", "127.0.0.1:8080", "socks5://[::1]:1080", ""];
        let proxies = Proxies::new(values.iter().map(|&value| value.to_owned()));
        let expected = ["127.0.0.1", "[::1]", "proxy.lan"];
        assert_eq!(proxies.hosts.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        assert!(proxies.names(&Url::parse("http://proxy.lan/x").unwrap()));
    }
}
