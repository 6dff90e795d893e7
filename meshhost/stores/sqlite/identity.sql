-- The statements of identity.py, by name.

-- name: projects
SELECT id, name, suspended FROM project ORDER BY name, id;

-- name: add_project
INSERT INTO project (id, name, suspended) VALUES (:id, :name, :suspended);

-- name: find_project
SELECT id FROM project WHERE id = :id;

-- name: find_open_project
SELECT id FROM project WHERE id = :id AND id NOT IN (SELECT id FROM deleted_project);

-- name: find_other_name
SELECT id FROM project WHERE name = :name AND id <> :id;

-- name: rename_project
UPDATE project SET name = :name WHERE id = :id;

-- name: suspend_project
UPDATE project SET suspended = :reason WHERE id = :id AND id NOT IN (SELECT id FROM deleted_project);

-- name: quotas
SELECT project_id, name, value FROM tenant_quota;

-- name: delete_limit
DELETE FROM tenant_quota WHERE project_id = :project AND name = :name;

-- name: add_limit
INSERT INTO tenant_quota (project_id, name, value) VALUES (:project, :name, :value);

-- name: suspended_projects
SELECT id, suspended FROM project WHERE suspended IS NOT NULL;

-- name: find_deleted
SELECT id FROM deleted_project WHERE id = :id;

-- name: deleted_projects
SELECT id FROM deleted_project;

-- name: add_deleted
INSERT INTO deleted_project (id) VALUES (:id);

-- name: delete_uses
DELETE FROM key_use WHERE key_id IN (SELECT id FROM api_key WHERE project_id = :project);

-- name: delete_keys
DELETE FROM api_key WHERE project_id = :project;

-- name: delete_some_rooms
DELETE FROM room WHERE id IN (
    SELECT room.id FROM room JOIN deleted_project ON deleted_project.id = room.project_id
    WHERE room.project_id = :project LIMIT :limit
);

-- name: delete_project
DELETE FROM project WHERE id = :id AND id IN (SELECT id FROM deleted_project);

-- name: key_version
SELECT version FROM key_version;

-- name: all_keys
SELECT id, project_id, secret, role, expires_at FROM api_key ORDER BY rowid;

-- name: add_key
INSERT INTO api_key (id, project_id, secret, name, description, role, expires_at)
VALUES (:id, :project, :secret, :name, :description, :role, :expires_at);

-- name: keys_of_project
SELECT id, name, description, role, expires_at, last_used_at
FROM api_key LEFT JOIN key_use ON key_use.key_id = api_key.id
WHERE project_id = :project ORDER BY name, id;

-- name: record_use
INSERT INTO key_use (key_id, last_used_at) SELECT id, :time FROM api_key WHERE id = :id
ON CONFLICT (key_id) DO UPDATE SET last_used_at = max(last_used_at, excluded.last_used_at);

-- name: delete_use
DELETE FROM key_use WHERE key_id = :id;

-- name: delete_key
DELETE FROM api_key WHERE project_id = :project AND id = :id;

-- name: add_room
INSERT INTO room (id, project_id, name, metadata) VALUES (:id, :project, :name, :metadata) ON CONFLICT DO NOTHING;

-- name: find_room
SELECT id, name, metadata FROM room WHERE project_id = :project AND name = :name;

-- name: rooms
SELECT id, name, metadata FROM room WHERE project_id = :project ORDER BY name LIMIT :limit OFFSET :offset;

-- name: change_room
UPDATE room SET metadata = :metadata WHERE project_id = :project AND id = :id RETURNING id, name, metadata;

-- name: delete_room
DELETE FROM room WHERE project_id = :project AND id = :id RETURNING id, name, metadata;

-- name: begin_room_deletion
INSERT INTO deleted_room (project_id, name, deleted_at, ended) VALUES (:project, :name, :now, 0)
ON CONFLICT (project_id, name) DO UPDATE SET
    deleted_at = max(deleted_at, excluded.deleted_at), ended = 0, importing_until = NULL;

-- name: end_room_deletion
UPDATE deleted_room SET ended = 1 WHERE project_id = :project AND name = :name AND ended = 0;

-- name: delete_room_of_name
DELETE FROM room WHERE project_id = :project AND name = :name;

-- name: deleted_rooms
SELECT project_id, name, deleted_at, ended, importing_until FROM deleted_room;

-- name: record_import
INSERT INTO deleted_room (project_id, name, deleted_at, ended, importing_until)
VALUES (:project, :name, :at, :ended, :importing_until)
ON CONFLICT (project_id, name) DO UPDATE SET
    deleted_at = excluded.deleted_at, ended = excluded.ended, importing_until = excluded.importing_until;

-- name: forget_deleted_rooms
DELETE FROM deleted_room WHERE project_id = :id;
