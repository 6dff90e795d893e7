-- The statements of identity.py, by name.

-- name: projects
SELECT id, name FROM project ORDER BY name, id;

-- name: add_project
INSERT INTO project (id, name) VALUES (:id, :name) ON CONFLICT DO NOTHING;

-- name: find_project
SELECT id FROM project WHERE id = :id;

-- name: key_version
SELECT version FROM key_version;

-- name: all_keys
SELECT id, project_id, secret FROM api_key ORDER BY rowid;

-- name: add_key
INSERT INTO api_key (id, project_id, secret, name, description)
VALUES (:id, :project, :secret, :name, :description);

-- name: keys_of_project
SELECT id, name, description FROM api_key WHERE project_id = :project ORDER BY name, id;

-- name: delete_key
DELETE FROM api_key WHERE project_id = :project AND id = :id;

-- name: add_room
INSERT INTO room (id, project_id, name, metadata) VALUES (:id, :project, :name, :metadata) ON CONFLICT DO NOTHING;

-- name: find_room
SELECT id, name, metadata FROM room WHERE project_id = :project AND name = :name;

-- name: rooms
SELECT id, name, metadata FROM room WHERE project_id = :project ORDER BY name LIMIT :limit OFFSET :offset;

-- name: delete_room
DELETE FROM room WHERE project_id = :project AND id = :id RETURNING id, name, metadata;
