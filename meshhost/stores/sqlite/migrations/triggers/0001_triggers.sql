-- Schedules and hooks; content is JSON that only meshhost.triggers reads.
CREATE TABLE triggers (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    room TEXT NOT NULL,
    content TEXT NOT NULL,
    due_at REAL,
    version INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX triggers_of_room ON triggers (tenant, kind, room, id);
CREATE INDEX triggers_due ON triggers (kind, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX triggers_due_in_room ON triggers (tenant, room, kind, due_at) WHERE due_at IS NOT NULL;

-- What happened to each, the newest few.
CREATE TABLE trigger_log (
    number INTEGER PRIMARY KEY,
    trigger_id TEXT NOT NULL,
    at REAL NOT NULL,
    content TEXT NOT NULL
) STRICT;

CREATE INDEX trigger_log_of_trigger ON trigger_log (trigger_id, number);

-- The log goes with its trigger.
CREATE TRIGGER triggers_deleted AFTER DELETE ON triggers BEGIN
    DELETE FROM trigger_log WHERE trigger_id = OLD.id;
END;
