//! libFuzzer around the five targets: `FOLDBACK_FUZZ` names the one. Started by scripts/fuzz.sh.
//!
//! One program for all five: what takes long to build is what they share.
#![no_main]

mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

static TARGET: OnceLock<targets::Target> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let target = TARGET.get_or_init(|| {
        let name = std::env::var("FOLDBACK_FUZZ").unwrap_or_default();
        let found = targets::TARGETS.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("FOLDBACK_FUZZ={name} is no target")).1
    });
    target(data);
});
