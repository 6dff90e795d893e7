-- One row per UTC hour and (tenant, room, identity, model); the meter adds to it.
CREATE TABLE usage (
    tenant TEXT NOT NULL,
    hour INTEGER NOT NULL,
    room TEXT NOT NULL,
    identity TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,
    unmeasured INTEGER NOT NULL,
    PRIMARY KEY (tenant, hour, room, identity, model)
) STRICT, WITHOUT ROWID;
