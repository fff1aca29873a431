//! `noop`: answers the `value` of its request, or `null`, at once. Touches nothing; for benchmarks.

use std::sync::Arc;

use foldback_core::{Outcome, limits};
use foldback_engine::kind::Call;
use serde_json::Value;

use crate::work::Work;

/// The kind `noop`.
pub(crate) struct Noop;

impl Work for Noop {
    const RUN_AHEAD: u32 = limits::RUN_AHEAD_OTHER;
    const FILES: usize = 0;

    async fn work(self: Arc<Self>, _: Call, mut request: Value) -> Outcome {
        let output = request.get_mut("value").map(Value::take).unwrap_or_default();
        Outcome::Completed { output, usage: None }
    }
}
