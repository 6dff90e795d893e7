-- The tenants that the operator has frozen. `since` is seconds since the epoch; `reason` is the operator's, '' for none.
CREATE TABLE freezes (
    tenant TEXT PRIMARY KEY,
    since REAL NOT NULL,
    reason TEXT NOT NULL
) STRICT;
