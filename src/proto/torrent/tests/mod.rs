//! Whole machines against each other, and one machine against peers that break the rules.

mod early;
mod first_copies;
mod gossip;
mod handover;
mod have_batch;
mod metadata;
mod metadata_fetch;
mod order;
mod played;
mod rejects;
mod retraction;
mod rules;
mod swarm;
mod transfer;
