-- The agents that shall live on this host. `id` is the host's own; `call` is the call as JSON, with its token.
CREATE TABLE spawns (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    room TEXT NOT NULL,
    path TEXT NOT NULL,
    identity TEXT NOT NULL,
    call TEXT NOT NULL,
    expires_at REAL,
    recorded_at REAL NOT NULL
) STRICT;
