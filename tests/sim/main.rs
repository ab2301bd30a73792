//! Swarms of production peers in virtual time: each scenario runs in seconds and repeats bit for
//! bit.

mod corpora;
mod dht;
mod golden;
mod outages;
mod power;
mod sample;
mod swarm;
