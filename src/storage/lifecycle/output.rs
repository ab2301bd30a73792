//! The outputs of a [`super::Lifecycle`].

use super::{Refusal, Started, Step};
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::{PieceIndex, PieceResult};
use crate::storage::content::LostPiece;
use crate::storage::fault::{JobError, StorageFault};
use crate::storage::pieces::{Spill, WholePiece};

/// A job to run or an event to report. `B` is a block's buffer.
#[derive(Debug)]
pub enum Output<B> {
    /// Work for the disk.
    Job(Job<B>),
    /// Something that happened.
    Event(Event),
}

/// Work for the disk; each variant names the method that takes its result.
#[derive(Debug)]
pub enum Job<B> {
    /// Run a step: [`super::Lifecycle::handle_step`].
    Run(Step),
    /// Hash these pieces: [`super::Lifecycle::handle_checked`].
    Check(Bitfield),
    /// Hash and write a piece: [`super::Lifecycle::handle_stored`].
    Store(WholePiece<B>),
    /// Write blocks of an incomplete piece: [`super::Lifecycle::handle_spilled`].
    Spill(Spill<B>),
}

/// What happened to the content.
#[derive(Debug)]
pub enum Event {
    /// The content is ready.
    Started(Started),
    /// The torrent does not start with the files on the disk; nothing follows.
    Refused(Refusal),
    /// An error that does not clear by itself, in words. Before [`Event::Started`] nothing follows;
    /// after it the torrent must leave.
    Failed(String),
    /// The result of storing a complete piece.
    Piece(PieceIndex, PieceResult),
    /// Pieces are no longer present and must not be uploaded.
    Lost {
        /// The pieces, with reasons.
        lost: Vec<LostPiece>,
        /// Whether they are downloaded again, after [`Event::LossNoted`].
        is_fetching: bool,
    },
    /// The journal no longer names these lost pieces.
    LossNoted(Vec<PieceIndex>),
    /// The disk accepts no data, or accepts it again.
    Storage(Option<StorageFault>),
    /// Every wanted piece is present and durable.
    Completed,
    /// An error whose only effect is that the next start hashes more; for the log.
    Ignored(JobError),
    /// Everything is durable and recorded in the journal, unless there was an error; nothing
    /// follows.
    Closed(Option<JobError>),
}
