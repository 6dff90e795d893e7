-- What tenants configured: secrets (encrypted), services and webhooks. `room` is '' for what is for all rooms of the tenant.
CREATE TABLE configuration (
    number INTEGER PRIMARY KEY,  -- the order in which they were added
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    room TEXT NOT NULL,
    name TEXT NOT NULL,
    content TEXT NOT NULL,
    created_at REAL NOT NULL,
    changed_at REAL NOT NULL,
    version INTEGER NOT NULL,
    UNIQUE (tenant, kind, room, name)
) STRICT;

-- What happened to each, the newest few.
CREATE TABLE configuration_log (
    number INTEGER PRIMARY KEY,
    item_id TEXT NOT NULL,
    at REAL NOT NULL,
    content TEXT NOT NULL
) STRICT;

CREATE INDEX configuration_log_of_item ON configuration_log (item_id, number);

-- One row, which grows with every change of an item: servers look at it to learn of each other's changes.
CREATE TABLE configuration_version (
    version INTEGER NOT NULL
) STRICT;

INSERT INTO configuration_version (version) VALUES (1);

CREATE TRIGGER configuration_added AFTER INSERT ON configuration BEGIN
    UPDATE configuration_version SET version = version + 1;
END;

CREATE TRIGGER configuration_changed AFTER UPDATE ON configuration BEGIN
    UPDATE configuration_version SET version = version + 1;
END;

-- The log goes with its item.
CREATE TRIGGER configuration_deleted AFTER DELETE ON configuration BEGIN
    UPDATE configuration_version SET version = version + 1;
    DELETE FROM configuration_log WHERE item_id = OLD.id;
END;
