//! The tests of `foldback` as a user of it sees it, in one program: each is linked once.

mod attempts;
mod branching;
mod by_hand;
mod code;
mod code_undo;
mod conversation;
mod emits;
mod engine;
mod exchange;
mod fuzz;
mod going_back;
mod kept;
mod limits;
mod models;
mod no_room;
mod own_kind;
mod own_projections;
mod projections;
mod snapshots;
