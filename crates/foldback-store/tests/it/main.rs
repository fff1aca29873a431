//! The tests of `foldback-store` as a user of it sees it, in one program: each is linked once.

mod callers;
mod desk;
mod disaster;
mod flips;
mod forgetting;
mod model;
mod place;
mod refuse;
mod sqlite;
mod views;
