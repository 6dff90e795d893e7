-- Rooms that were deleted, and when (seconds since the epoch): tokens and file addresses from before open no room that is made
-- again under the name. `ended` is 0 while what the room held is being deleted, which a start goes on with.
CREATE TABLE deleted_room (
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    deleted_at REAL NOT NULL,
    ended INTEGER NOT NULL,
    PRIMARY KEY (project_id, name)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER room_deletion_begun AFTER INSERT ON deleted_room BEGIN
    UPDATE key_version SET version = version + 1;
END;

CREATE TRIGGER room_deletion_changed AFTER UPDATE ON deleted_room BEGIN
    UPDATE key_version SET version = version + 1;
END;
