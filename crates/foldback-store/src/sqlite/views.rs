//! Views for people: the log and the projections under names and columns that `docs/sql.md` explains.
//!
//! Nothing here is read by the program itself. The names of events and of fields in their payloads stand
//! here as text: a view only shows; what an event *means* is `foldback-core`'s to say, and a test of
//! the crate `foldback` holds `steps` against its report.

/// The log, with the text ids of workflows.
pub(crate) fn events() -> String {
    let uuid = |column: &str| {
        let part = |from: u32, length: u32| format!("substr(hex({column}), {from}, {length})");
        let parts = [part(1, 8), part(9, 4), part(13, 4), part(17, 4), part(21, 12)];
        // hex() makes a text of NULL too.
        format!("CASE WHEN {column} IS NOT NULL THEN lower({}) END", parts.join(" || '-' || "))
    };
    format!(
        "
CREATE VIEW workflow_events AS
SELECT
    log.position AS position,
    {id} AS id,
    workflows.id AS workflow_id,
    log.version AS version,
    log.type AS type,
    log.schema_version AS schema_version,
    log.payload AS payload,
    log.timestamp AS timestamp,
    {causation_id} AS causation_id,
    {correlation_id} AS correlation_id,
    log.actor AS actor,
    workflows.tenant AS tenant,
    log.codec AS codec,
    log.key_id AS key_id,
    lower(hex(log.payload_hash)) AS payload_hash,
    lower(hex(log.hash)) AS hash
FROM log JOIN workflows ON workflows.n = log.workflow;
",
        id = uuid("log.id"),
        causation_id = uuid("log.causation_id"),
        correlation_id = uuid("log.correlation_id"),
    )
}

/// A time in µs as `2026-01-31T09:15:00.123456Z`.
macro_rules! iso {
    ($column:literal) => {
        concat!(
            "strftime('%Y-%m-%dT%H:%M:%S', ",
            $column,
            " / 1000000, 'unixepoch') || printf('.%06dZ', ",
            $column,
            " % 1000000)"
        )
    };
}

/// Steps, and the projections with real columns; since version 3.
///
/// `steps` makes one row of each ask, of the facts of its key up to the next ask. By windows and not by
/// GROUP BY, so that SQLite carries `workflow_id = 'a'` down to the index. The last fact that says
/// where a step stands is found as the greatest text of version and word. A cancelled `write`
/// that may have changed the world goes on to its outcome, as in `report/steps.rs`.
pub(crate) const REPORTS: &str = concat!(
    "
CREATE VIEW steps AS
WITH facts AS (
    SELECT
        workflows.id AS workflow_id, workflows.status AS workflow_status,
        log.version AS version, log.type AS type, log.timestamp AS at, log.payload AS payload,
        log.payload ->> '$.key' AS key,
        count(CASE WHEN log.type = 'StepAsked' THEN 1 END) OVER (
            PARTITION BY workflows.id, log.payload ->> '$.key' ORDER BY log.version
        ) AS ask
    FROM log JOIN workflows ON workflows.n = log.workflow
    WHERE log.type IN ('StepAsked', 'AttemptStarted', 'AttemptFailed', 'StepCompleted', 'StepFailed',
        'OutcomeUnknown', 'OutcomeResolved', 'OutcomeReconciled', 'StepCancelled', 'StepReused', 'WriteHeld', 'WriteSettled')
),
marked AS (
    SELECT *,
        CASE type
            WHEN 'StepAsked' THEN iif(payload ->> '$.starts', 'running', 'pending')
            WHEN 'AttemptStarted' THEN 'running'
            WHEN 'AttemptFailed' THEN 'backing off'
            WHEN 'StepCompleted' THEN 'completed'
            WHEN 'StepFailed' THEN 'failed'
            WHEN 'OutcomeUnknown' THEN 'unknown'
            WHEN 'OutcomeResolved' THEN iif(payload -> '$.landed' IS NULL, 'not landed', 'completed')
            WHEN 'OutcomeReconciled' THEN CASE payload ->> '$.found'
                WHEN 'landed' THEN 'completed' WHEN 'didnt' THEN 'not landed' ELSE 'unknown' END
            WHEN 'StepReused' THEN 'reused'
            WHEN 'WriteHeld' THEN 'pending'
            WHEN 'WriteSettled' THEN CASE payload ->> '$.verdict'
                WHEN 'stub' THEN 'completed' WHEN 'deny' THEN 'failed' ELSE 'pending' END
        END AS word
    FROM facts
),
grouped AS (
    SELECT
        workflow_id, key, workflow_status, type, version AS asked_version, at AS asked_at,
        payload ->> '$.kind' AS kind,
        payload ->> '$.effect' AS effect,
        min(CASE WHEN word = 'running' THEN version END) OVER step AS started_version,
        min(CASE WHEN word = 'running' THEN at END) OVER step AS started_at,
        count(CASE WHEN word = 'running' THEN 1 END) OVER step AS attempts,
        substr(max(printf('%019d ', version) || word) OVER step, 21) AS word,
        max(CASE WHEN word IN ('completed', 'failed', 'reused', 'not landed') THEN version END) OVER step
            AS ended_version,
        max(CASE WHEN word IN ('completed', 'failed', 'reused', 'not landed') THEN at END) OVER step AS ended_at,
        max(CASE type WHEN 'StepCancelled' THEN version END) OVER step AS cancelled_version,
        max(CASE type WHEN 'StepCancelled' THEN at END) OVER step AS cancelled_at,
        max(CASE type WHEN 'StepCancelled' THEN payload ->> '$.attempt' WHEN 'AttemptFailed' THEN
            iif(payload ->> '$.unknown', 1, NULL) END) OVER step AS in_doubt,
        coalesce(sum(payload ->> '$.usage.input_tokens') OVER step, 0) AS input_tokens,
        coalesce(sum(payload ->> '$.usage.output_tokens') OVER step, 0) AS output_tokens,
        coalesce(sum(payload ->> '$.usage.micro_usd') OVER step, 0) AS micro_usd,
        max(payload -> '$.usage' IS NOT NULL AND payload ->> '$.usage.micro_usd' IS NULL) OVER step AS is_unpriced,
        substr(max(printf('%019d ', version) || (payload ->> '$.usage.model')) OVER step, 21) AS model
    FROM marked
    WINDOW step AS (PARTITION BY workflow_id, key, ask)
),
judged AS (
    SELECT *,
        cancelled_version IS NOT NULL AND NOT (effect = 'write' AND in_doubt IS NOT NULL) AS is_cancelled,
        -- What has ended starts nothing more; what was under way may still report.
        workflow_status IN ('completed', 'failed', 'cancelled', 'compensating', 'compensated', 'stuck', 'parked')
            -- but for what takes a step back, or looks whether it happened.
            AND instr(key, '!undo/') = 0 AND instr(key, '!reconcile/') = 0 AS is_over
    FROM grouped
    WHERE type = 'StepAsked'
),
told AS (
    SELECT *,
        CASE
            WHEN is_cancelled OR (word = 'not landed' AND cancelled_version IS NOT NULL) THEN 'cancelled'
            WHEN word IN ('pending', 'backing off', 'not landed') AND is_over THEN 'cancelled'
            WHEN word = 'running' AND workflow_status = 'cancelled' AND effect <> 'write' AND is_over THEN 'cancelled'
            WHEN word = 'backing off' THEN 'running'
            WHEN word = 'not landed' THEN 'pending'
            ELSE word
        END AS status,
        CASE
            WHEN is_cancelled THEN cancelled_at
            WHEN word IN ('completed', 'failed', 'reused') THEN ended_at
            WHEN word = 'not landed' AND cancelled_version IS NOT NULL THEN ended_at
        END AS end_at
    FROM judged
)
SELECT
    workflow_id, key, kind, effect, status, attempts, asked_version, started_version,
    iif(end_at IS NULL, NULL, iif(is_cancelled, cancelled_version, ended_version)) AS ended_version,
    ", iso!("asked_at"), " AS asked_at,
    ", iso!("end_at"), " AS ended_at,
    max(end_at - started_at, 0) / 1000 AS duration_ms,
    input_tokens, output_tokens,
    -- What is known is worth saying; nothing known is not the same as free.
    iif(micro_usd > 0 OR is_unpriced IS NOT 1, micro_usd, NULL) AS micro_usd,
    model
FROM told;

CREATE VIEW workflow_projections AS
SELECT projections.name AS projection, shard, key, value
FROM projections JOIN projection_rows ON projection_rows.projection = projections.rows
WHERE is_live;

CREATE VIEW workflow_summaries AS
SELECT
    key AS workflow_id,
    -- What a fork follows stands in its row, not in an event of its own.
    coalesce(value ->> '$.definition', (SELECT name FROM workflows WHERE id = key)) AS definition,
    coalesce(value ->> '$.definition_hash', (SELECT lower(hex(definition)) FROM workflows WHERE id = key))
        AS definition_hash,
    value ->> '$.version' AS version,
    value ->> '$.started_at' AS started_at,
    value ->> '$.ended' AS ended,
    value ->> '$.ended_at' AS ended_at,
    coalesce(value ->> '$.steps', 0) AS steps,
    coalesce(value ->> '$.failed_steps', 0) AS failed_steps,
    coalesce(value ->> '$.input_tokens', 0) AS input_tokens,
    coalesce(value ->> '$.output_tokens', 0) AS output_tokens,
    coalesce(value ->> '$.micro_usd', 0) AS micro_usd
FROM workflow_projections WHERE projection = 'workflows';

CREATE VIEW model_usage AS
SELECT
    value ->> '$.day' AS day,
    value ->> '$.model' AS model,
    value ->> '$.calls' AS calls,
    value ->> '$.input_tokens' AS input_tokens,
    value ->> '$.output_tokens' AS output_tokens,
    value ->> '$.micro_usd' AS micro_usd,
    value ->> '$.unpriced_calls' AS unpriced_calls
FROM workflow_projections WHERE projection = 'model_usage';

CREATE VIEW decisions AS
SELECT
    value ->> '$.workflow_id' AS workflow_id,
    value ->> '$.version' AS version,
    value ->> '$.at' AS at,
    value ->> '$.key' AS key,
    value ->> '$.chosen' AS chosen,
    value -> '$.options' AS options
FROM workflow_projections WHERE projection = 'decisions';
"
);
