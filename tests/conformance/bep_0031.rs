//! BEP 31: a tracker that refuses says when to come back, in minutes, or never.

use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::tracker::Progress;
use sprat::proto::tracker::announcer::{Announcer, Config, Output};
use sprat::proto::tracker::http::decode_reply;

/// What an announcer does about this body: when it asks again.
fn retry_after(body: &[u8]) -> Option<Duration> {
    let tiers = vec![vec!["http://t/announce".to_owned()]];
    let config =
        Config { infohash: InfoHash([1; 20]), peer_id: PeerId([2; 20]), port: 3, tiers, numwant: 50 };
    let mut machine = Announcer::new(config, Progress::default(), Rng::from_number(1), Instant::ZERO);
    machine.handle_timeout(Instant::ZERO);
    let Some(Output::Announce { request, .. }) = machine.poll_output() else { panic!() };
    machine.handle_reply(Instant::ZERO, request, decode_reply(body));
    let Some(Output::Failed { retry_at, .. }) = machine.poll_output() else { panic!() };
    assert_eq!(machine.poll_timeout(), retry_at);
    retry_at.map(|at| at.since(Instant::ZERO))
}

#[test]
fn retry_in_is_obeyed() {
    let minutes = retry_after(b"d14:failure reason10:overloaded8:retry ini15ee");
    assert_eq!(minutes, Some(Duration::from_secs(15 * 60)));
    assert_eq!(retry_after(b"d14:failure reason9:not yours8:retry in5:nevere"), None);
}

#[test]
fn without_it_or_with_nonsense_the_usual_pause_follows() {
    for body in [&b"d14:failure reason2:noe"[..], b"d14:failure reason2:no8:retry in4:soone"] {
        let pause = retry_after(body).unwrap();
        assert!(pause <= Duration::from_secs(2), "{pause:?}");
    }
    let ages = retry_after(b"d14:failure reason2:no8:retry ini9223372036854775807ee").unwrap();
    assert!(ages <= Duration::from_secs(24 * 3600), "nobody may keep us away for years");
}
