-- The ids of the signatures of calls that were answered, so that a recorded call is no new one after a restart. The newest have the
-- highest rowid; no times, which a clock that is set back would make wrong.
CREATE TABLE signatures (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE
) STRICT;
