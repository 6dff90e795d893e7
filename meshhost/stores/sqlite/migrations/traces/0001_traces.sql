-- A trace of a room, with what it is found by. `queues`, `messages` and `agents` are lists of names, each between line feeds.
-- `changed` is when its last spans came (wall clock); `bytes` is about what its spans take.
CREATE TABLE traces (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    room TEXT NOT NULL,
    trace TEXT NOT NULL,
    name TEXT NOT NULL,
    began REAL NOT NULL,
    ended REAL NOT NULL,
    failed INTEGER NOT NULL,
    queues TEXT NOT NULL,
    messages TEXT NOT NULL,
    agents TEXT NOT NULL,
    spans INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    changed REAL NOT NULL,
    UNIQUE (tenant, room, trace)
) STRICT;
CREATE INDEX traces_by_beginning ON traces (tenant, room, began, id);
CREATE INDEX traces_by_change ON traces (tenant, changed);

-- The spans of a trace that came together, as a JSON array.
CREATE TABLE spans (
    id INTEGER PRIMARY KEY,
    trace_id INTEGER NOT NULL,
    spans TEXT NOT NULL
) STRICT;
CREATE INDEX spans_by_trace ON spans (trace_id);

-- What each tenant has.
CREATE TABLE tenants (
    tenant TEXT PRIMARY KEY,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
