//! The tests of `foldback-connectors` as a user of it sees it, in one program: each is linked once.

mod exchanges;
mod http;
mod http_trust;
mod llm;
mod model_servers;
mod process;
mod providers;
mod support;
