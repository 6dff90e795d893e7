-- The statements of identity.py, by name.

-- name: projects
SELECT id, name, suspended FROM meshhost.projects ORDER BY name, id

-- name: add_project
-- Nothing is added when one of this id is there, was deleted, or another has the name; `why_not_added` says which.
INSERT INTO meshhost.projects (id, name, suspended)
SELECT %(id)s, %(name)s, %(suspended)s
WHERE NOT EXISTS (SELECT FROM meshhost.deleted_projects WHERE id = %(id)s)
ON CONFLICT DO NOTHING

-- name: why_not_added
SELECT
    EXISTS (SELECT FROM meshhost.projects WHERE id = %(id)s),
    EXISTS (SELECT FROM meshhost.deleted_projects WHERE id = %(id)s)

-- name: rename_project
UPDATE meshhost.projects SET name = %(name)s WHERE id = %(id)s

-- name: suspend_project
UPDATE meshhost.projects SET suspended = %(reason)s
WHERE id = %(id)s AND NOT EXISTS (SELECT FROM meshhost.deleted_projects WHERE id = %(id)s)

-- name: quotas
SELECT project_id, name, value FROM meshhost.tenant_quotas

-- name: delete_limits
DELETE FROM meshhost.tenant_quotas WHERE project_id = %(project)s AND name = ANY (%(names)s::text[])

-- name: set_limits
INSERT INTO meshhost.tenant_quotas (project_id, name, value)
SELECT %(project)s, changed.name, changed.value FROM unnest(%(names)s::text[], %(values)s::float8[]) AS changed (name, value)
ON CONFLICT (project_id, name) DO UPDATE SET value = excluded.value

-- name: project_names
SELECT id, name FROM meshhost.projects

-- name: lock_project
SELECT id FROM meshhost.projects WHERE id = %(id)s FOR UPDATE

-- name: add_deleted
INSERT INTO meshhost.deleted_projects (id) VALUES (%(id)s) ON CONFLICT DO NOTHING

-- name: delete_keys
DELETE FROM meshhost.api_keys WHERE project_id = %(project)s

-- name: delete_some_rooms
DELETE FROM meshhost.rooms WHERE id IN (
    SELECT rooms.id FROM meshhost.rooms JOIN meshhost.deleted_projects ON deleted_projects.id = rooms.project_id
    WHERE rooms.project_id = %(project)s LIMIT %(limit)s
)

-- name: delete_project
DELETE FROM meshhost.projects WHERE id = %(id)s AND id IN (SELECT id FROM meshhost.deleted_projects)

-- name: key_version
SELECT version FROM meshhost.key_version

-- name: all_keys
SELECT id, project_id, secret, role, expires_at FROM meshhost.api_keys ORDER BY number

-- name: suspended_projects
SELECT id, suspended FROM meshhost.projects WHERE suspended IS NOT NULL

-- name: deleted_projects
SELECT id FROM meshhost.deleted_projects

-- name: share_project
-- Waits for a deletion of the project that has begun, and holds one off until the key or the limit is there.
SELECT id FROM meshhost.projects
WHERE id = %(id)s AND NOT EXISTS (SELECT FROM meshhost.deleted_projects WHERE deleted_projects.id = projects.id)
FOR SHARE

-- name: add_key
INSERT INTO meshhost.api_keys (id, project_id, secret, name, description, role, expires_at)
VALUES (%(id)s, %(project)s, %(secret)s, %(name)s, %(description)s, %(role)s, %(expires_at)s)

-- name: record_uses
INSERT INTO meshhost.key_uses (key_id, last_used_at)
SELECT used.id, used.time FROM unnest(%(ids)s::text[], %(times)s::float8[]) AS used (id, time)
JOIN meshhost.api_keys ON api_keys.id = used.id ORDER BY used.id
ON CONFLICT (key_id) DO UPDATE SET last_used_at = greatest(key_uses.last_used_at, excluded.last_used_at)

-- name: keys_of_project
SELECT id, name, description, role, expires_at, last_used_at
FROM meshhost.api_keys LEFT JOIN meshhost.key_uses ON key_uses.key_id = api_keys.id
WHERE project_id = %(project)s ORDER BY name, id

-- name: delete_key
DELETE FROM meshhost.api_keys WHERE project_id = %(project)s AND id = %(id)s

-- name: add_room
INSERT INTO meshhost.rooms (id, project_id, name, metadata)
VALUES (%(id)s, %(project)s, %(name)s, %(metadata)s) ON CONFLICT (project_id, name) DO NOTHING

-- name: find_room
SELECT id, name, metadata FROM meshhost.rooms WHERE project_id = %(project)s AND name = %(name)s

-- name: rooms
SELECT id, name, metadata FROM meshhost.rooms
WHERE project_id = %(project)s ORDER BY name LIMIT %(limit)s OFFSET %(offset)s

-- name: change_room
UPDATE meshhost.rooms SET metadata = %(metadata)s
WHERE project_id = %(project)s AND id = %(id)s RETURNING id, name, metadata

-- name: delete_room
DELETE FROM meshhost.rooms WHERE project_id = %(project)s AND id = %(id)s RETURNING id, name, metadata

-- name: begin_room_deletion
INSERT INTO meshhost.deleted_rooms (project_id, name, deleted_at, ended) VALUES (%(project)s, %(name)s, %(now)s, false)
ON CONFLICT (project_id, name) DO UPDATE
SET deleted_at = greatest(deleted_rooms.deleted_at, excluded.deleted_at), ended = false, importing_until = NULL

-- name: end_room_deletion
UPDATE meshhost.deleted_rooms SET ended = true WHERE project_id = %(project)s AND name = %(name)s AND NOT ended

-- name: delete_room_of_name
DELETE FROM meshhost.rooms WHERE project_id = %(project)s AND name = %(name)s

-- name: deleted_rooms
SELECT project_id, name, deleted_at, ended, importing_until FROM meshhost.deleted_rooms

-- name: record_import
INSERT INTO meshhost.deleted_rooms (project_id, name, deleted_at, ended, importing_until)
VALUES (%(project)s, %(name)s, %(at)s, %(ended)s, %(importing_until)s)
ON CONFLICT (project_id, name) DO UPDATE SET
    deleted_at = excluded.deleted_at, ended = excluded.ended, importing_until = excluded.importing_until

-- name: forget_deleted_rooms
DELETE FROM meshhost.deleted_rooms WHERE project_id = %(id)s
