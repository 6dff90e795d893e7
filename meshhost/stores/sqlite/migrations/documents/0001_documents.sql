CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    room TEXT NOT NULL,
    path TEXT NOT NULL,
    snapshot BLOB NOT NULL,
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    UNIQUE (tenant, room, path)
) STRICT;

-- Edits since the snapshot, in the order in which they were taken.
CREATE TABLE updates (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    document INTEGER NOT NULL REFERENCES documents (id),
    content BLOB NOT NULL
) STRICT;

CREATE INDEX updates_of_document ON updates (document, id);
