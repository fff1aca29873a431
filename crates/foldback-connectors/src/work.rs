//! A step kind of this crate, written as an `async fn` over its revealed request.

use std::future::Future;
use std::sync::Arc;

use foldback_core::{Failure, Outcome};
use foldback_engine::kind::{Call, Looking, Performing, StepKind};
use serde_json::Value;

/// One kind's work.
pub(crate) trait Work: Send + Sync + 'static {
    /// See [`StepKind::run_ahead`].
    const RUN_AHEAD: u32;

    /// See [`StepKind::timeout_ms`].
    const TIMEOUT_MS: u64 = foldback_core::limits::STEP_TIMEOUT_MS;

    /// See [`StepKind::files`].
    const FILES: usize;

    /// See [`StepKind::end_orphans`].
    fn end_orphans(&self, _attempt_id: &str) -> Option<Looking> {
        None
    }

    /// Performs one attempt. `request` is taken out of the call, with its secrets filled in.
    fn work(self: Arc<Self>, call: Call, request: Value) -> impl Future<Output = Outcome> + Send;
}

/// A kind that does its work.
pub(crate) struct Working<W>(pub(crate) Arc<W>);

impl<W: Work> StepKind for Working<W> {
    fn perform(&self, mut call: Call) -> Performing {
        let request = std::mem::take(&mut call.request);
        Box::pin(self.0.clone().work(call, request))
    }

    fn end_orphans(&self, attempt_id: &str) -> Option<Looking> {
        self.0.end_orphans(attempt_id)
    }

    fn files(&self) -> usize {
        W::FILES
    }

    fn run_ahead(&self) -> u32 {
        W::RUN_AHEAD
    }

    fn timeout_ms(&self) -> u64 {
        W::TIMEOUT_MS
    }
}

/// A failed outcome without more to say than its failure.
pub(crate) fn failed(error: Failure) -> Outcome {
    Outcome::Failed { error, retry_after_ms: None, usage: None }
}
