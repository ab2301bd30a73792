//! Ctrl-C and SIGTERM: the first asks a command to leave in order, the second ends it at once.

use tokio::signal::unix::{self, SignalKind};

use super::failure::Failure;

/// Who wants us to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM, as service managers send it.
    Terminate,
}

/// The stream of requests to stop.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Interrupts {
    /// From now on signals no longer end the process by themselves.
    pub(crate) fn catch() -> Result<Self, Failure> {
        let listen = |kind| {
            unix::signal(kind).map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))
        };
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }

    /// Finishes `farewell` unless another signal comes meanwhile.
    pub(crate) async fn unless(&mut self, farewell: impl Future<Output = ()>) {
        tokio::select! {
            () = farewell => {}
            _ = self.next() => {}
        }
    }
}
