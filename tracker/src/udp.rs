//! A UDP worker: one thread, one socket, one datagram at a time, without allocation.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::Tracker;
use sprat::datagram::{self, Control, Received};
use sprat::proto::tracker::service::Answerer;

/// Longest request that is read in full: a scrape of 74 torrents, or an announce with a kilobyte of
/// options.
const REQUEST_LEN_MAX: usize = 2048;
/// Length of the answer buffer, so that it is allocated once.
const ANSWER_LEN_MAX: usize = 1500;
/// Pause after a socket error, so that a persistent one does not use up the processor.
const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// Answers datagrams until the tracker stops and wakes the socket.
pub(crate) fn serve(tracker: &Tracker, worker: usize, socket: &UdpSocket, mut answerer: Answerer) {
    let mut request = [0; REQUEST_LEN_MAX];
    let mut answer = Vec::with_capacity(ANSWER_LEN_MAX);
    let mut control = Control::default();
    let mut shards = &tracker.shards;
    loop {
        let received = datagram::receive(socket, &mut request, &mut control);
        if tracker.stopping.load(Ordering::Relaxed) {
            return;
        }
        match received {
            Ok(Received { len, from, local }) => {
                let now = tracker.clock.now();
                if answerer.answer_datagram(now, from, &request[..len], &mut shards, &mut answer) {
                    // The client repeats a request whose answer is lost.
                    let _ = datagram::send(socket, &answer, from, local);
                }
                tracker.stats.publish(worker, answerer.counts());
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => (),
            Err(_) => std::thread::sleep(ERROR_PAUSE),
        }
    }
}
