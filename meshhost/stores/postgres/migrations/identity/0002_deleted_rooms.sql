-- Rooms that were deleted, and when (seconds since the epoch): tokens and file addresses from before open no room that is made
-- again under the name. `ended` is false while what the room held is being deleted, which a start goes on with.
CREATE TABLE meshhost.deleted_rooms (
    project_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    deleted_at double precision NOT NULL,
    ended boolean NOT NULL,
    PRIMARY KEY (project_id, name)
);

CREATE TRIGGER room_deleted AFTER INSERT OR UPDATE ON meshhost.deleted_rooms
FOR EACH STATEMENT EXECUTE FUNCTION meshhost.count_key_version();
