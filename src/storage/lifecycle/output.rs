//! What a [`super::Lifecycle`] asks for and tells.

use super::{Refusal, Started, Step};
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::{PieceIndex, PieceResult};
use crate::storage::content::LostPiece;
use crate::storage::fault::{JobError, StorageFault};
use crate::storage::pieces::{Spill, WholePiece};

/// What is to be done, or known. `B` is a block's buffer.
#[derive(Debug)]
pub enum Output<B> {
    /// Work for the disk.
    Job(Job<B>),
    /// Something that happened.
    Event(Event),
}

/// Work for the disk, and where its end is told.
#[derive(Debug)]
pub enum Job<B> {
    /// Run a step: [`super::Lifecycle::handle_step`].
    Run(Step),
    /// Hash these pieces: [`super::Lifecycle::handle_checked`].
    Check(Bitfield),
    /// Hash and write a piece: [`super::Lifecycle::handle_stored`].
    Store(WholePiece<B>),
    /// Write blocks of a piece that is not whole: [`super::Lifecycle::handle_spilled`].
    Spill(Spill<B>),
}

/// What happened to the content.
#[derive(Debug)]
pub enum Event {
    /// The content is ready.
    Started(Started),
    /// The torrent does not start with what is on the disk; nothing follows.
    Refused(Refusal),
    /// An error that waiting does not mend, in words. Before [`Event::Started`] nothing follows;
    /// after it the torrent is to leave.
    Failed(String),
    /// What became of a piece that was whole.
    Piece(PieceIndex, PieceResult),
    /// Pieces are no longer present: not to be uploaded from now on.
    Lost {
        /// Which, and why.
        lost: Vec<LostPiece>,
        /// Whether they are fetched again, after [`Event::LossNoted`].
        is_fetching: bool,
    },
    /// The journal no longer names these lost pieces.
    LossNoted(Vec<PieceIndex>),
    /// The disk accepts no data, or accepts it again.
    Storage(Option<StorageFault>),
    /// Every wanted piece is present and durable.
    Completed,
    /// An error that changes nothing but that the next start has to hash more; for the log.
    Ignored(JobError),
    /// Everything is durable and the journal says so, unless there was an error; nothing follows.
    Closed(Option<JobError>),
}
