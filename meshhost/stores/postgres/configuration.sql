-- The statements of configuration/store.py, by name.

-- name: count
SELECT count(*) FROM meshhost.configuration WHERE tenant = %(tenant)s AND kind = %(kind)s

-- name: add
INSERT INTO meshhost.configuration (id, kind, tenant, room, name, content, created_at, changed_at, version)
VALUES (%(id)s, %(kind)s, %(tenant)s, %(room)s, %(name)s, %(content)s, %(created_at)s, %(changed_at)s, %(version)s)
ON CONFLICT DO NOTHING

-- name: find
SELECT id, kind, tenant, name, content, created_at, changed_at, room, version FROM meshhost.configuration
WHERE tenant = %(tenant)s AND id = %(id)s

-- name: list
SELECT id, kind, tenant, name, content, created_at, changed_at, room, version FROM meshhost.configuration
WHERE tenant = %(tenant)s AND kind = %(kind)s ORDER BY room, name

-- name: replace
UPDATE meshhost.configuration SET
    name = %(name)s, content = %(content)s, changed_at = %(changed_at)s, version = %(version)s
WHERE id = %(id)s AND tenant = %(tenant)s AND version = %(version)s - 1

-- name: delete
DELETE FROM meshhost.configuration WHERE id = %(id)s AND tenant = %(tenant)s

-- name: delete_all
DELETE FROM meshhost.configuration WHERE tenant = %(tenant)s AND (%(room)s::text IS NULL OR room = %(room)s::text)

-- name: version
SELECT version FROM meshhost.configuration_version

-- name: all
SELECT id, kind, tenant, name, content, created_at, changed_at, room, version FROM meshhost.configuration
WHERE kind = %(kind)s ORDER BY created_at, id

-- name: add_entry
-- Of an item that is deleted at this moment nothing is left: its row is locked until the entry is in.
INSERT INTO meshhost.configuration_log (item_id, at, content)
SELECT id, %(at)s, %(content)s FROM meshhost.configuration WHERE id = %(id)s FOR KEY SHARE

-- name: trim
DELETE FROM meshhost.configuration_log WHERE number IN (
    SELECT number FROM meshhost.configuration_log WHERE item_id = %(id)s ORDER BY number DESC OFFSET %(keep)s
)

-- name: entries
SELECT at, content FROM meshhost.configuration_log WHERE item_id = %(id)s ORDER BY number DESC LIMIT %(keep)s
