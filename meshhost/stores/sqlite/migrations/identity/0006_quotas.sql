-- The limits that the operator set for single tenants, by the names of ServerQuota; NULL is no limit.
CREATE TABLE tenant_quota (
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    value REAL,
    PRIMARY KEY (project_id, name)
) STRICT, WITHOUT ROWID;

-- Servers read limits and names of tenants with the keys, whose version therefore changes with them.
CREATE TRIGGER quota_added AFTER INSERT ON tenant_quota BEGIN
    UPDATE key_version SET version = version + 1;
END;

CREATE TRIGGER quota_deleted AFTER DELETE ON tenant_quota BEGIN
    UPDATE key_version SET version = version + 1;
END;

CREATE TRIGGER project_renamed AFTER UPDATE OF name ON project BEGIN
    UPDATE key_version SET version = version + 1;
END;

CREATE TRIGGER quota_of_deleted_project AFTER DELETE ON project BEGIN
    DELETE FROM tenant_quota WHERE project_id = OLD.id;
END;
