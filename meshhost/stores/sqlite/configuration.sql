-- The statements of configuration/store.py, by name.

-- name: count
SELECT count(*) FROM configuration WHERE tenant = :tenant AND kind = :kind

-- name: add
INSERT INTO configuration (id, kind, tenant, room, name, content, created_at, changed_at, version)
VALUES (:id, :kind, :tenant, :room, :name, :content, :created_at, :changed_at, :version)
ON CONFLICT DO NOTHING

-- name: find
SELECT id, kind, tenant, name, content, created_at, changed_at, room, version FROM configuration
WHERE tenant = :tenant AND id = :id

-- name: list
SELECT id, kind, tenant, name, content, created_at, changed_at, room, version FROM configuration
WHERE tenant = :tenant AND kind = :kind ORDER BY room, name

-- name: other_of_name
SELECT id FROM configuration
WHERE tenant = :tenant AND kind = :kind AND room = :room AND name = :name AND id <> :id

-- name: replace
UPDATE configuration SET name = :name, content = :content, changed_at = :changed_at, version = :version
WHERE id = :id AND tenant = :tenant AND version = :version - 1

-- name: delete
DELETE FROM configuration WHERE id = :id AND tenant = :tenant

-- name: delete_all
DELETE FROM configuration WHERE tenant = :tenant AND (:room IS NULL OR room = :room)

-- name: version
SELECT version FROM configuration_version

-- name: all
SELECT id, kind, tenant, name, content, created_at, changed_at, room, version FROM configuration
WHERE kind = :kind ORDER BY created_at, id

-- name: add_entry
INSERT INTO configuration_log (item_id, at, content) SELECT id, :at, :content FROM configuration WHERE id = :id

-- name: trim
DELETE FROM configuration_log WHERE number IN (
    SELECT number FROM configuration_log WHERE item_id = :id ORDER BY number DESC LIMIT -1 OFFSET :keep
)

-- name: entries
SELECT at, content FROM configuration_log WHERE item_id = :id ORDER BY number DESC
