//! The tests of `foldback-ows` as a user of it sees it, in one program: each is linked once.

mod branching;
mod errors_apart;
mod jq;
mod linear;
mod loading;
mod profile;
mod projection;
mod retry;
mod runaway;
mod spec;
mod stories;
mod warnings;
