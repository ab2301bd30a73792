//! Whole machines against each other, and one machine against peers that break the rules.

mod gossip;
mod rules;
mod swarm;
mod transfer;
