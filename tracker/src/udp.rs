//! A worker of UDP: one thread, one socket, one datagram at a time, without allocation.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::Tracker;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recvfrom};
use sprat::proto::tracker::service::Answerer;

/// Longest request that is read whole: a scrape of 74 torrents, or an announce with a kilobyte of options.
const REQUEST_LEN_MAX: usize = 2048;
/// Longest answer, so that its buffer is allocated once.
const ANSWER_LEN_MAX: usize = 1500;
/// Pause after an error of the socket, so that one that stays does not use up the processor.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Answers until the tracker stops and the socket wakes.
pub(crate) fn serve(tracker: &Tracker, worker: usize, socket: &UdpSocket, mut answerer: Answerer) {
    let mut request = [0; REQUEST_LEN_MAX];
    let mut answer = Vec::with_capacity(ANSWER_LEN_MAX);
    let mut shards = &tracker.shards;
    loop {
        // Not that of std, which panics when waking up brings no address.
        let received = recvfrom(socket, &mut request[..], RecvFlags::empty());
        if tracker.stopping.load(Ordering::Relaxed) {
            return;
        }
        match received {
            Ok((len, _, from)) => {
                let Some(from) = from.and_then(|from| SocketAddr::try_from(from).ok()) else {
                    continue;
                };
                let now = tracker.clock.now();
                if answerer.answer_datagram(now, from, &request[..len], &mut shards, &mut answer) {
                    // A lost answer is asked for again.
                    let _ = socket.send_to(&answer, from);
                }
                tracker.stats.publish(worker, answerer.counts());
            }
            Err(Errno::INTR) => (),
            Err(_) => std::thread::sleep(ERROR_PAUSE),
        }
    }
}
