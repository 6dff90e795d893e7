-- The statements of triggers/store.py, by name.

-- name: counts
SELECT count(*), count(*) FILTER (WHERE room = %(room)s)
FROM meshhost.triggers WHERE tenant = %(tenant)s AND kind = %(kind)s

-- name: add
INSERT INTO meshhost.triggers (id, kind, tenant, room, content, due_at, version)
VALUES (%(id)s, %(kind)s, %(tenant)s, %(room)s, %(content)s, %(due_at)s, %(version)s)
ON CONFLICT DO NOTHING

-- name: find
SELECT id, kind, tenant, room, content, due_at, version FROM meshhost.triggers WHERE id = %(id)s

-- name: list
SELECT id, kind, tenant, room, content, due_at, version FROM meshhost.triggers
WHERE tenant = %(tenant)s AND kind = %(kind)s AND id > %(after)s
    AND (%(room)s::text IS NULL OR room = %(room)s::text)
ORDER BY id LIMIT %(limit)s

-- name: rooms
SELECT DISTINCT room FROM meshhost.triggers WHERE tenant = %(tenant)s ORDER BY room

-- name: replace
UPDATE meshhost.triggers
SET content = %(content)s, room = %(room)s, due_at = %(due_at)s, version = %(version)s
WHERE id = %(id)s AND tenant = %(tenant)s AND version = %(version)s - 1

-- name: add_entry
-- Of a trigger that is deleted at this moment nothing is left: its row is locked until the entry is in.
INSERT INTO meshhost.trigger_log (trigger_id, at, content)
SELECT id, %(at)s, %(content)s FROM meshhost.triggers WHERE id = %(id)s FOR KEY SHARE

-- name: trim
DELETE FROM meshhost.trigger_log WHERE number IN (
    SELECT number FROM meshhost.trigger_log WHERE trigger_id = %(id)s ORDER BY number DESC OFFSET %(keep)s
)

-- name: entries
SELECT at, content FROM meshhost.trigger_log WHERE trigger_id = %(id)s ORDER BY number DESC LIMIT %(keep)s

-- name: delete
DELETE FROM meshhost.triggers WHERE id = %(id)s AND tenant = %(tenant)s

-- name: delete_some
DELETE FROM meshhost.triggers WHERE id IN (
    SELECT id FROM meshhost.triggers
    WHERE tenant = %(tenant)s AND (%(room)s::text IS NULL OR room = %(room)s::text) LIMIT 1000
)

-- name: due
SELECT id, kind, tenant, room, content, due_at, version FROM meshhost.triggers
WHERE kind = %(kind)s AND due_at <= %(until)s ORDER BY due_at, id LIMIT %(limit)s

-- name: next_due
SELECT min(due_at) FROM meshhost.triggers WHERE kind = %(kind)s AND due_at IS NOT NULL

-- name: is_due
SELECT EXISTS (
    SELECT FROM meshhost.triggers
    WHERE tenant = %(tenant)s AND room = %(room)s AND kind = %(kind)s AND due_at <= %(until)s
)
