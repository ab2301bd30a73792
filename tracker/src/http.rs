//! An HTTP/1.1 worker: one thread that runs all its connections as tasks of a small runtime.
//!
//! Paths: `/announce`, `/scrape`, `/health`, `/stats`. Requests are a head without body;
//! connections stay open until they are idle. A permit is taken before a connection is accepted, so
//! there are never more than [`CONNECTION_MAX`]; a client that is slow to send a head or to read an
//! answer is disconnected.
//!
//! The worker owns the buffers. A connection allocates only for received bytes that cannot be
//! answered yet, and for answers that its socket does not accept; the sum of both is bounded for
//! the process ([`held`](crate::held)).

use std::cell::RefCell;
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sprat::proto::tracker::http::forwarded;
use sprat::proto::tracker::http::server::split_target;
use sprat::proto::tracker::service::Answerer;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::task::{LocalSet, coop};
use tokio::time::{sleep, timeout};

use crate::held::Held;
use crate::{Failure, Tracker, task};

/// Most connections of one worker; further ones wait in the kernel.
const CONNECTION_MAX: usize = 8192;
/// Longest head of a request: a scrape of 100 torrents, percent-encoded, takes 7 KB. A longer one
/// gets status 431.
const HEAD_LEN_MAX: usize = 8192;
/// Bytes read and answered at once: the longest kept part of a head, and as much again.
const INPUT_LEN: usize = 2 * HEAD_LEN_MAX;
/// Most header lines of a request; more get status 431.
const HEADER_MAX: usize = 64;
/// Time for a head from its first byte on, and for an answer to be read.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// Longest silence between requests.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// Bytes of answers to pipelined requests after which they are sent.
const ANSWERS_LEN_MAX: usize = 64 << 10;
/// Time for open connections to end when the tracker stops.
const STOP_MAX: Duration = Duration::from_secs(3);
/// Pause after a failed accept: the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The state that the connections of a worker share.
struct Worker {
    tracker: Arc<Tracker>,
    number: usize,
    answerer: RefCell<Answerer>,
    /// Buffer for bodies.
    body: RefCell<Vec<u8>>,
    /// Never borrowed across an await.
    scratch: RefCell<Scratch>,
}

/// The buffers of the connection that is being served.
struct Scratch {
    /// [`INPUT_LEN`] bytes.
    input: Box<[u8]>,
    output: Vec<u8>,
}

/// The sockets of a worker, opened before the tracker reports that it serves.
pub(crate) struct Sockets {
    runtime: Runtime,
    listeners: Vec<TcpListener>,
}

impl Sockets {
    /// Prepares listeners for the runtime.
    pub(crate) fn new(listeners: Vec<std::net::TcpListener>) -> Result<Self, Failure> {
        let fail = |error| Failure(format!("cannot start a worker: {error}"));
        let runtime = runtime::Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let entered = runtime.enter();
        let listeners = listeners.into_iter().map(TcpListener::from_std).collect::<Result<_, _>>();
        drop(entered);
        Ok(Self { runtime, listeners: listeners.map_err(fail)? })
    }
}

/// Serves until `stopped` is set.
pub(crate) fn serve(
    tracker: Arc<Tracker>,
    number: usize,
    sockets: Sockets,
    answerer: Answerer,
    mut stopped: watch::Receiver<bool>,
) {
    let Sockets { runtime, listeners } = sockets;
    let worker = Worker {
        tracker,
        number,
        answerer: RefCell::new(answerer),
        body: RefCell::new(Vec::new()),
        scratch: RefCell::new(Scratch { input: vec![0; INPUT_LEN].into(), output: Vec::new() }),
    };
    let (worker, permits) = (Rc::new(worker), Arc::new(Semaphore::new(CONNECTION_MAX)));
    runtime.block_on(LocalSet::new().run_until(async {
        for listener in listeners {
            task::spawn(accept(worker.clone(), listener, permits.clone(), stopped.clone()));
        }
        // The sender lives until all workers have ended.
        let _ = stopped.wait_for(|&stop| stop).await;
        let _ = timeout(STOP_MAX, permits.acquire_many(CONNECTION_MAX as u32)).await;
    }));
}

async fn accept(
    worker: Rc<Worker>,
    listener: TcpListener,
    permits: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let next = async {
            let permit = permits.clone().acquire_owned().await.expect("the semaphore is never closed");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = next => accepted,
            _ = stopped.wait_for(|&stop| stop) => return,
        };
        match accepted {
            Ok((stream, from)) => {
                // Answers are complete, so there is no reason to wait for more bytes.
                let _ = stream.set_nodelay(true);
                let (worker, mut stopped) = (worker.clone(), stopped.clone());
                task::spawn(async move {
                    serve_connection(&worker, stream, from.ip(), &mut stopped).await;
                    drop(permit);
                });
            }
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Answers the requests of one connection until either side ends it.
async fn serve_connection(
    worker: &Worker,
    stream: TcpStream,
    from: IpAddr,
    stopped: &mut watch::Receiver<bool>,
) {
    let clock = worker.tracker.clock;
    let mut connection = Connection::new(worker, stream, from);
    let mut deadline = clock.uptime() + HEAD_TIME_MAX;
    // Reset only when it fires: most requests arrive long before.
    let timer = sleep(HEAD_TIME_MAX);
    tokio::pin!(timer);
    loop {
        // A client that sends without pause yields to others.
        coop::consume_budget().await;
        tokio::select! {
            biased;
            ready = connection.stream.readable() => if ready.is_err() { return },
            () = &mut timer => {
                let left = deadline.saturating_sub(clock.uptime());
                if left.is_zero() {
                    return;
                }
                timer.set(sleep(left));
                continue;
            }
            _ = stopped.wait_for(|&stop| stop) => return,
        }
        let was_empty = connection.input.bytes().is_empty();
        let mut step = connection.receive();
        let mut answered = step.answered;
        while !connection.output.bytes().is_empty() {
            if !connection.send_rest().await {
                return;
            }
            if step.next != Next::Answer {
                break;
            }
            step = connection.answer_rest();
            answered |= step.answered;
        }
        match step.next {
            Next::Close => {
                let _ = connection.stream.shutdown().await;
                return;
            }
            Next::End => return,
            Next::Read | Next::Answer => {}
        }
        if connection.input.bytes().is_empty() {
            deadline = clock.uptime() + IDLE_MAX;
        } else if was_empty || answered {
            deadline = clock.uptime() + HEAD_TIME_MAX;
            timer.set(sleep(HEAD_TIME_MAX));
        }
    }
}

/// One connection. Bytes are read into and answered from the worker's [`Scratch`]; only bytes that
/// cannot be answered or sent yet stay here, so a connection without any needs no buffer.
struct Connection<'a> {
    worker: &'a Worker,
    stream: TcpStream,
    from: IpAddr,
    /// A partial head, or requests behind answers that the socket has not accepted.
    input: Held<'a>,
    /// Answers that the socket has not accepted.
    output: Held<'a>,
}

impl<'a> Connection<'a> {
    fn new(worker: &'a Worker, stream: TcpStream, from: IpAddr) -> Self {
        let held_len = &worker.tracker.held_len;
        Self { worker, stream, from, input: Held::new(held_len), output: Held::new(held_len) }
    }

    /// Reads the received bytes and answers them.
    fn receive(&mut self) -> Step {
        let mut scratch = self.worker.scratch.borrow_mut();
        let Scratch { input, output } = &mut *scratch;
        let held_len = self.input.bytes().len();
        input[..held_len].copy_from_slice(self.input.bytes());
        match self.stream.try_read(&mut input[held_len..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Step { next: Next::Read, answered: false },
            Ok(0) | Err(_) => Step { next: Next::End, answered: false },
            Ok(len) => self.answer_input(&input[..held_len + len], output),
        }
    }

    /// Answers the bytes received before the socket accepted the earlier answers.
    fn answer_rest(&mut self) -> Step {
        let mut scratch = self.worker.scratch.borrow_mut();
        let Scratch { input, output } = &mut *scratch;
        let held_len = self.input.bytes().len();
        input[..held_len].copy_from_slice(self.input.bytes());
        self.answer_input(&input[..held_len], output)
    }

    /// Answers the complete requests of `input` as far as the socket accepts the answers, and keeps
    /// the rest of both.
    fn answer_input(&mut self, input: &[u8], output: &mut Vec<u8>) -> Step {
        let mut used = 0;
        loop {
            output.clear();
            let (len, mut next) = answer_all(self.worker, self.from, &input[used..], output);
            used += len;
            let sent = if output.is_empty() { 0 } else { self.stream.try_write(output).unwrap_or(0) };
            if sent == output.len() && next == Next::Answer {
                continue;
            }
            if !self.output.keep(&output[sent..]) {
                next = Next::End;
            } else if !self.input.keep(&input[used..]) {
                output.clear();
                write(output, 503, TEXT, b"too many unfinished requests\n", true);
                let _ = self.stream.try_write(output);
                next = Next::End;
            }
            return Step { next, answered: used > 0 };
        }
    }

    /// Sends the kept answers; false if the client did not read them in time, or is gone.
    async fn send_rest(&mut self) -> bool {
        let sent = timeout(HEAD_TIME_MAX, self.stream.write_all(self.output.bytes())).await;
        self.output.clear();
        matches!(sent, Ok(Ok(())))
    }
}

/// The result of received bytes.
#[derive(Clone, Copy, Debug)]
struct Step {
    next: Next,
    /// Whether at least one request was complete.
    answered: bool,
}

/// What follows an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Read more bytes.
    Read,
    /// Answer received requests, once the socket has accepted these answers.
    Answer,
    /// Close the connection, once the socket has accepted these answers.
    Close,
    /// Close the connection at once: the client is gone, or connections keep too many bytes.
    End,
}

/// Answers every complete request at the start of `input`; returns the bytes used, and what
/// follows.
fn answer_all(worker: &Worker, from: IpAddr, input: &[u8], output: &mut Vec<u8>) -> (usize, Next) {
    let mut used = 0;
    while used < input.len() {
        if output.len() >= ANSWERS_LEN_MAX {
            return (used, Next::Answer);
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADER_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&input[used..]) {
            Ok(httparse::Status::Complete(len)) if len <= HEAD_LEN_MAX => {
                used += len;
                if answer(worker, from, &request, output) == Next::Close {
                    return (used, Next::Close);
                }
            }
            Ok(httparse::Status::Partial) if input.len() - used <= HEAD_LEN_MAX => break,
            Ok(_) | Err(httparse::Error::TooManyHeaders) => {
                write(output, 431, TEXT, b"request head too large\n", true);
                return (used, Next::Close);
            }
            Err(_) => {
                write(output, 400, TEXT, b"not HTTP\n", true);
                return (used, Next::Close);
            }
        }
    }
    (used, Next::Read)
}

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

fn answer(worker: &Worker, from: IpAddr, request: &httparse::Request<'_, '_>, output: &mut Vec<u8>) -> Next {
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| header.value)
    };
    let has_body = header("transfer-encoding").is_some()
        || header("content-length").is_some_and(|len| len.iter().any(|&digit| digit != b'0'));
    if has_body {
        write(output, 413, TEXT, b"no bodies, please\n", true);
        return Next::Close;
    }
    let connection = header("connection").unwrap_or_default();
    let close = match request.version {
        Some(1) => connection.eq_ignore_ascii_case(b"close"),
        Some(_) | None => !connection.eq_ignore_ascii_case(b"keep-alive"),
    };
    let start = output.len();
    if request.method != Some("GET") && request.method != Some("HEAD") {
        write(output, 405, TEXT, b"GET only\n", close);
    } else {
        let target = request.path.unwrap_or_default();
        match split_target(target).0 {
            "health" => write(output, 200, TEXT, b"ok\n", close),
            "stats" => write(output, 200, JSON, stats(&worker.tracker).as_bytes(), close),
            _ => answer_target(worker, client(worker, from, request), target, close, output),
        }
    }
    if request.method == Some("HEAD") {
        let head_len = output[start..].windows(4).position(|end| end == b"\r\n\r\n").map_or(0, |at| at + 4);
        output.truncate(start + head_len);
    }
    if close { Next::Close } else { Next::Read }
}

/// Returns the address of the client, as trusted proxies report it.
fn client(worker: &Worker, from: IpAddr, request: &httparse::Request<'_, '_>) -> IpAddr {
    let lines = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("x-forwarded-for"));
    forwarded::client(from, &worker.tracker.trusted_proxies, lines.map(|header| header.value))
}

fn answer_target(worker: &Worker, from: IpAddr, target: &str, close: bool, output: &mut Vec<u8>) {
    let (mut answerer, mut body) = (worker.answerer.borrow_mut(), worker.body.borrow_mut());
    let Tracker { clock, shards, stats, .. } = &*worker.tracker;
    let status = answerer.answer_http(clock.now(), from, target, &mut &*shards, &mut body);
    stats.publish(worker.number, answerer.counts());
    if status == 404 {
        write(output, 404, TEXT, b"not found: there are /announce, /scrape, /health and /stats\n", close);
    } else {
        write(output, status, TEXT, &body, close);
    }
}

/// Returns the figures as a JSON object.
fn stats(tracker: &Tracker) -> String {
    let (totals, counts) = (tracker.shards.totals(), tracker.stats.counts());
    format!(
        "{{\"torrents\":{},\"peers\":{},\"seeders\":{},\"announces\":{},\"scrapes\":{},\"connects\":{},\
         \"errors\":{},\"uptime\":{}}}\n",
        totals.torrents,
        totals.peers,
        totals.seeders,
        counts.announces,
        counts.scrapes,
        counts.connects,
        counts.errors,
        tracker.clock.uptime().as_secs()
    )
}

/// Appends an answer.
fn write(output: &mut Vec<u8>, status: u16, content_type: &str, body: &[u8], close: bool) {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        _ => "Error",
    };
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let connection = if close { "close" } else { "keep-alive" };
    let head = write!(
        output,
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
         Connection: {connection}\r\n\r\n",
        body.len()
    );
    head.expect("writing to a Vec does not fail");
    output.extend_from_slice(body);
}
