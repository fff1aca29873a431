-- A store as version 1 made it. Never changed: such files are out there.
PRAGMA journal_mode = WAL;
CREATE TABLE shards (
    shard INTEGER PRIMARY KEY,
    head INTEGER NOT NULL,          -- the last position given
    workflows INTEGER NOT NULL,     -- the last workflow number given
    epoch INTEGER NOT NULL,         -- 0: nobody has owned it yet
    owner TEXT
) STRICT;
INSERT INTO shards VALUES (0, 0, 0, 0, NULL);

CREATE TABLE workflows (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    shard INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    definition BLOB,
    name TEXT NOT NULL,
    input_hash BLOB,
    parent TEXT,
    cut INTEGER NOT NULL DEFAULT 0,
    cut_hash BLOB,
    status TEXT NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;
CREATE INDEX workflows_by_status ON workflows (status);

CREATE TABLE log (
    position INTEGER PRIMARY KEY,
    workflow INTEGER NOT NULL,
    version INTEGER NOT NULL,
    id BLOB NOT NULL,
    is_id_supplied INTEGER NOT NULL,
    type TEXT NOT NULL,
    schema_version INTEGER NOT NULL,
    timestamp INTEGER NOT NULL,
    causation_id BLOB,
    correlation_id BLOB,
    actor TEXT NOT NULL,
    codec TEXT NOT NULL,
    key_id TEXT,
    payload_hash BLOB NOT NULL,
    hash BLOB NOT NULL,
    payload TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX log_by_version ON log (workflow, version);
CREATE UNIQUE INDEX log_by_supplied_id ON log (id) WHERE is_id_supplied = 1;

CREATE TRIGGER log_is_never_updated BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the log is append-only: an event is never changed'); END;
CREATE TRIGGER log_is_never_deleted BEFORE DELETE ON log
BEGIN SELECT RAISE(ABORT, 'the log is append-only: an event is never deleted'); END;

CREATE TABLE workflow_snapshots (
    workflow_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    event_hash BLOB NOT NULL,
    state_schema INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (workflow_id, version)
) STRICT;

CREATE TABLE workflow_projections (
    projection TEXT NOT NULL,
    shard INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (projection, shard, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoints (
    projection TEXT NOT NULL,
    shard INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (projection, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE definitions (
    hash BLOB NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    canonical TEXT NOT NULL,
    source TEXT NOT NULL
) STRICT;
CREATE TRIGGER definitions_are_never_updated BEFORE UPDATE ON definitions
BEGIN SELECT RAISE(ABORT, 'a definition is kept by its hash and never changed'); END;

CREATE TABLE payloads (
    shard INTEGER NOT NULL,
    hash BLOB NOT NULL,
    media_type TEXT NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (shard, hash)
) STRICT;
CREATE TRIGGER payloads_are_never_updated BEFORE UPDATE ON payloads
BEGIN SELECT RAISE(ABORT, 'a payload is kept by its hash and never changed'); END;

CREATE TABLE inbox (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    shard INTEGER NOT NULL,
    actor TEXT NOT NULL,
    body TEXT NOT NULL,
    sent_at INTEGER NOT NULL,
    answer TEXT,
    answered_at INTEGER
) STRICT;
CREATE INDEX inbox_open ON inbox (shard, n) WHERE answer IS NULL;

CREATE TABLE wakeups (
    workflow INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;

CREATE VIEW workflow_events AS
SELECT
    log.position AS position,
    CASE WHEN log.id IS NOT NULL THEN lower(substr(hex(log.id), 1, 8) || '-' || substr(hex(log.id), 9, 4) || '-' || substr(hex(log.id), 13, 4) || '-' || substr(hex(log.id), 17, 4) || '-' || substr(hex(log.id), 21, 12)) END AS id,
    workflows.id AS workflow_id,
    log.version AS version,
    log.type AS type,
    log.schema_version AS schema_version,
    log.payload AS payload,
    log.timestamp AS timestamp,
    CASE WHEN log.causation_id IS NOT NULL THEN lower(substr(hex(log.causation_id), 1, 8) || '-' || substr(hex(log.causation_id), 9, 4) || '-' || substr(hex(log.causation_id), 13, 4) || '-' || substr(hex(log.causation_id), 17, 4) || '-' || substr(hex(log.causation_id), 21, 12)) END AS causation_id,
    CASE WHEN log.correlation_id IS NOT NULL THEN lower(substr(hex(log.correlation_id), 1, 8) || '-' || substr(hex(log.correlation_id), 9, 4) || '-' || substr(hex(log.correlation_id), 13, 4) || '-' || substr(hex(log.correlation_id), 17, 4) || '-' || substr(hex(log.correlation_id), 21, 12)) END AS correlation_id,
    log.actor AS actor,
    workflows.tenant AS tenant,
    log.codec AS codec,
    log.key_id AS key_id,
    lower(hex(log.payload_hash)) AS payload_hash,
    lower(hex(log.hash)) AS hash
FROM log JOIN workflows ON workflows.n = log.workflow;

PRAGMA application_id = 1181508706;
PRAGMA user_version = 1;
