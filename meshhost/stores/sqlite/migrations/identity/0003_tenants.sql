-- Why the keys and tokens of a project are refused; NULL when they are not.
ALTER TABLE project ADD COLUMN suspended TEXT;

-- Keys of before could do everything and did not expire.
ALTER TABLE api_key ADD COLUMN role TEXT NOT NULL DEFAULT 'admin';
ALTER TABLE api_key ADD COLUMN expires_at REAL;

-- Apart from api_key, whose every change makes all servers read all keys again.
CREATE TABLE key_use (
    key_id TEXT PRIMARY KEY,
    last_used_at REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- The ids of projects that were deleted: a key in a file of some server's user must not bring one back.
CREATE TABLE deleted_project (
    id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- Names become unique: the oldest project of a name keeps it.
UPDATE project SET name = name || '-' || substr(id, 1, 8)
WHERE EXISTS (SELECT 1 FROM project AS older WHERE older.name = project.name AND older.rowid < project.rowid);

UPDATE project SET name = id
WHERE EXISTS (SELECT 1 FROM project AS older WHERE older.name = project.name AND older.rowid < project.rowid);

CREATE UNIQUE INDEX project_names ON project (name);

CREATE TRIGGER project_suspended AFTER UPDATE OF suspended ON project BEGIN
    UPDATE key_version SET version = version + 1;
END;

CREATE TRIGGER project_deleted AFTER INSERT ON deleted_project BEGIN
    UPDATE key_version SET version = version + 1;
END;
