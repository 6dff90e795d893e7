-- The statements of triggers/store.py, by name.

-- name: counts
SELECT count(*), count(*) FILTER (WHERE room = :room) FROM triggers WHERE tenant = :tenant AND kind = :kind

-- name: add
INSERT INTO triggers (id, kind, tenant, room, content, due_at, version)
VALUES (:id, :kind, :tenant, :room, :content, :due_at, :version)
ON CONFLICT DO NOTHING

-- name: find
SELECT id, kind, tenant, room, content, due_at, version FROM triggers WHERE id = :id

-- name: list
SELECT id, kind, tenant, room, content, due_at, version FROM triggers
WHERE tenant = :tenant AND kind = :kind AND id > :after AND (:room IS NULL OR room = :room)
ORDER BY id LIMIT :limit

-- name: rooms
SELECT DISTINCT room FROM triggers WHERE tenant = :tenant ORDER BY room

-- name: replace
UPDATE triggers SET content = :content, room = :room, due_at = :due_at, version = :version
WHERE id = :id AND tenant = :tenant AND version = :version - 1

-- name: add_entry
INSERT INTO trigger_log (trigger_id, at, content) SELECT id, :at, :content FROM triggers WHERE id = :id

-- name: trim
DELETE FROM trigger_log WHERE number IN (
    SELECT number FROM trigger_log WHERE trigger_id = :id ORDER BY number DESC LIMIT -1 OFFSET :keep
)

-- name: entries
SELECT at, content FROM trigger_log WHERE trigger_id = :id ORDER BY number DESC

-- name: delete
DELETE FROM triggers WHERE id = :id AND tenant = :tenant

-- name: delete_some
DELETE FROM triggers WHERE id IN (
    SELECT id FROM triggers WHERE tenant = :tenant AND (:room IS NULL OR room = :room) LIMIT 100
)

-- name: due
SELECT id, kind, tenant, room, content, due_at, version FROM triggers
WHERE kind = :kind AND due_at <= :until ORDER BY due_at, id LIMIT :limit

-- name: next_due
SELECT min(due_at) FROM triggers WHERE kind = :kind AND due_at IS NOT NULL

-- name: is_due
SELECT EXISTS (
    SELECT 1 FROM triggers WHERE tenant = :tenant AND room = :room AND kind = :kind AND due_at <= :until
)
