-- A store as version 2 made it. Never changed: such files are out there.
PRAGMA journal_mode = WAL;
CREATE TABLE shards (
    shard INTEGER PRIMARY KEY,
    head INTEGER NOT NULL,          -- the last position given
    workflows INTEGER NOT NULL,     -- the last workflow number given
    epoch INTEGER NOT NULL,         -- 0: nobody has owned it yet
    owner TEXT,
    forgotten INTEGER NOT NULL DEFAULT 0 -- how many workflows were pruned
) STRICT;
INSERT INTO shards VALUES(0,5,1,1,'user',0);
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
INSERT INTO workflows VALUES(1,'a',0,'',X'5754ab99e1e886cc8813d8807595f20fc6168cb30fe05766e4a3037749a74830','triage 1.0.0',X'6e46dd10defc9b56c29a6ec56b508c21f54c08192194e4df25bf36f0c9c3c279',NULL,0,NULL,'completed',1795638395866442);
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
INSERT INTO log VALUES(1,1,1,X'01a2146383da7222a28e970b975e5312',0,'WorkflowStarted',1,1795638395866442,NULL,NULL,'user','json',NULL,X'd3b0da9c6dcbbd241c395be399a823321cfc42d3eb7f64fbdd81df83f26639cd',X'15e5be7e7b856ebbfb092dc70d32d5fecf9a8317c6ef3fd323dd86b135556a7e','{"definition":"5754ab99e1e886cc8813d8807595f20fc6168cb30fe05766e4a3037749a74830","name":"triage 1.0.0","input":{"inline":{}}}');
INSERT INTO log VALUES(2,1,2,X'01a2146383da714fac13e68d3f890f5e',0,'StepAsked',1,1795638395866442,X'01a2146383da7222a28e970b975e5312',X'01a2146383da7222a28e970b975e5312','engine','json',NULL,X'31d11a50e3a0163d35c2b60b352f12273a3e26fd524a76650a24467d49649742',X'003f0c791ea57f422ca39e661856d1ca34b9af0bcf45aea4b1f8faa6f014d861','{"key":"score","kind":"shell","request":{"command":{"inline":"echo 3"},"return":{"inline":"stdout"}},"request_hash":"22e2f61bda50dde5352a7b282b23e2cd12e4058fdaedb7cf1b6da175ca6a692e","effect":"read","instance":"/do/0/score","finishes":true,"starts":true}');
INSERT INTO log VALUES(3,1,3,X'01a2146383de7baaba40b46a12bf0392',0,'StepCompleted',1,1795638395870769,NULL,X'01a2146383da7222a28e970b975e5312','engine','json',NULL,X'c38f83ad5edaebdca7bfba36676ce25cbd9db24739abbdc93ce53de36e38e10e',X'8c7459532b084d29b01f120689a5480568cf1db5d359640d8cd7e22bd4b47d94','{"key":"score","attempt":1,"output":{"inline":"3"},"latency_ms":2}');
INSERT INTO log VALUES(4,1,4,X'01a2146383de7a529887f64bece54b85',0,'DecisionMade',1,1795638395870769,X'01a2146383de7baaba40b46a12bf0392',X'01a2146383da7222a28e970b975e5312','engine','json',NULL,X'f2ac98a6f2682ce4a7367dceb493cdc63c386136b7ddab53b977a7eab7d485b6',X'524e5403037eb1fd7876d6e908d543507f38cedab70b937e48c3e80fdaeef0c7','{"key":"route","chosen":"short","options":["long","short"],"because":{"inline":[{"case":"long","when":"(. | tonumber) > 4","values":{".":"3"},"result":false}]},"finishes":true}');
INSERT INTO log VALUES(5,1,5,X'01a2146383de7634ac0a122da430af7e',0,'WorkflowCompleted',1,1795638395870769,X'01a2146383de7baaba40b46a12bf0392',X'01a2146383da7222a28e970b975e5312','engine','json',NULL,X'827046f4cbc620e916f4742627dc8f201c9c36e5f16066883cca6d90fc6b86a6',X'd02e74b4698b8370c196c8074ed9403a827f42597690fa30ec52a4e538d49115','{"output":{"inline":"3"}}');
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
INSERT INTO workflow_projections VALUES('decisions',0,'a@0000000004','{"workflow_id":"a","version":4,"at":"2026-11-25T20:26:35.870769Z","key":"route","chosen":"short","options":["long","short"]}');
INSERT INTO workflow_projections VALUES('workflows',0,'a','{"definition":"triage 1.0.0","definition_hash":"5754ab99e1e886cc8813d8807595f20fc6168cb30fe05766e4a3037749a74830","started_at":"2026-11-25T20:26:35.866442Z","ended":"completed","version":5,"steps":1,"ended_at":"2026-11-25T20:26:35.870769Z"}');
CREATE TABLE checkpoints (
    projection TEXT NOT NULL,
    shard INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (projection, shard)
) STRICT, WITHOUT ROWID;
INSERT INTO checkpoints VALUES('decisions',0,5);
INSERT INTO checkpoints VALUES('model_usage',0,5);
INSERT INTO checkpoints VALUES('workflows',0,5);
CREATE TABLE definitions (
    hash BLOB NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    canonical TEXT NOT NULL,
    source TEXT NOT NULL
) STRICT;
INSERT INTO definitions VALUES(X'5754ab99e1e886cc8813d8807595f20fc6168cb30fe05766e4a3037749a74830','ows','triage 1.0.0','{"do":[{"score":{"metadata":{"foldback":{"effect":"read"}},"run":{"shell":{"command":"echo 3"}}}},{"route":{"switch":[{"long":{"then":"end","when":"(. | tonumber) > 4"}},{"short":{"then":"end"}}]}}],"document":{"dsl":"1.0.3","name":"triage","namespace":"shop","version":"1.0.0"}}',replace('document: { dsl: ''1.0.3'', namespace: shop, name: triage, version: ''1.0.0'' }\ndo:\n  - score:\n      run: { shell: { command: ''echo 3'' } }\n      metadata: { foldback: { effect: read } }\n  - route:\n      switch:\n        - long: { when: ''(. | tonumber) > 4'', then: end }\n        - short: { then: end }\n','\n',char(10)));
CREATE TABLE payloads (
    shard INTEGER NOT NULL,
    hash BLOB NOT NULL,
    media_type TEXT NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (shard, hash)
) STRICT;
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
CREATE TABLE wakeups (
    workflow INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
CREATE TABLE tombstones (
    shard INTEGER NOT NULL,
    hash BLOB NOT NULL,
    media_type TEXT NOT NULL,
    bytes INTEGER NOT NULL,         -- how many there were
    erased_at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (shard, hash)
) STRICT;
CREATE TABLE pruned (
    workflow_id TEXT NOT NULL PRIMARY KEY,
    n INTEGER NOT NULL UNIQUE,
    shard INTEGER NOT NULL,
    definition BLOB,
    name TEXT NOT NULL,
    parent TEXT,
    cut INTEGER NOT NULL,
    status TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    first_version INTEGER NOT NULL,
    last_version INTEGER NOT NULL,
    hash BLOB NOT NULL,             -- the chain hash of its last event
    positions TEXT NOT NULL,        -- those that are empty since, as JSON: [[first, last], ...]
    pruned_at INTEGER NOT NULL,
    actor TEXT NOT NULL
) STRICT;
CREATE INDEX workflows_by_status ON workflows (status);
CREATE UNIQUE INDEX log_by_version ON log (workflow, version);
CREATE UNIQUE INDEX log_by_supplied_id ON log (id) WHERE is_id_supplied = 1;
CREATE TRIGGER log_is_never_updated BEFORE UPDATE ON log
BEGIN SELECT RAISE(ABORT, 'the log is append-only: an event is never changed'); END;
CREATE TRIGGER definitions_are_never_updated BEFORE UPDATE ON definitions
BEGIN SELECT RAISE(ABORT, 'a definition is kept by its hash and never changed'); END;
CREATE TRIGGER payloads_are_never_updated BEFORE UPDATE ON payloads
BEGIN SELECT RAISE(ABORT, 'a payload is kept by its hash and never changed'); END;
CREATE INDEX inbox_open ON inbox (shard, n) WHERE answer IS NULL;
CREATE TRIGGER pruned_is_never_updated BEFORE UPDATE ON pruned
BEGIN SELECT RAISE(ABORT, 'what was signed off is never changed'); END;
CREATE TRIGGER pruned_is_never_deleted BEFORE DELETE ON pruned
BEGIN SELECT RAISE(ABORT, 'what was signed off is never deleted'); END;
CREATE INDEX workflows_by_parent ON workflows (parent) WHERE parent IS NOT NULL;
CREATE TRIGGER a_pruned_workflow_never_begins_again BEFORE INSERT ON workflows
WHEN EXISTS (SELECT 1 FROM pruned WHERE workflow_id = new.id)
BEGIN SELECT RAISE(ABORT, 'a pruned workflow never begins again'); END;
CREATE TRIGGER log_is_never_deleted BEFORE DELETE ON log
WHEN NOT EXISTS (SELECT 1 FROM pruned WHERE n = old.workflow)
BEGIN SELECT RAISE(ABORT, 'the log is append-only: an event is never deleted'); END;
CREATE TRIGGER payloads_are_never_deleted BEFORE DELETE ON payloads
WHEN NOT EXISTS (SELECT 1 FROM tombstones WHERE shard = old.shard AND hash = old.hash)
BEGIN SELECT RAISE(ABORT, 'a payload is never deleted, but for a tombstone'); END;
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
PRAGMA user_version = 2;
