-- name: find
SELECT id, name, began, ended, failed, queues, messages, agents, spans, dropped, bytes
FROM traces WHERE tenant = :tenant AND room = :room AND trace = :trace

-- name: insert
INSERT INTO traces
    (tenant, room, trace, name, began, ended, failed, queues, messages, agents, spans, dropped, bytes, changed)
VALUES
    (:tenant, :room, :trace, :name, :began, :ended, :failed, :queues, :messages, :agents, :spans, :dropped, :bytes, :changed)

-- name: update
UPDATE traces SET
    name = :name, began = :began, ended = :ended, failed = :failed, queues = :queues, messages = :messages,
    agents = :agents, spans = :spans, dropped = :dropped, bytes = :bytes, changed = :changed
WHERE id = :id

-- name: add_spans
INSERT INTO spans (trace_id, spans) VALUES (:id, :spans)

-- name: grow
INSERT INTO tenants (tenant, bytes) VALUES (:tenant, :bytes)
ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes

-- name: total
SELECT coalesce(sum(bytes), 0) FROM tenants

-- name: largest
-- The one that has most gives way first.
SELECT tenant FROM tenants ORDER BY bytes DESC, tenant LIMIT 1

-- name: bytes_of
SELECT bytes FROM tenants WHERE tenant = :tenant

-- name: oldest
SELECT id, tenant, bytes FROM traces WHERE tenant = :tenant ORDER BY changed LIMIT 50

-- name: expired
SELECT id, tenant, bytes FROM traces
WHERE tenant IN (SELECT tenant FROM tenants) AND changed < :until LIMIT 250

-- name: of_room
SELECT id, tenant, bytes FROM traces
WHERE tenant = :tenant AND (:room IS NULL OR room = :room) LIMIT 250

-- name: delete
DELETE FROM traces WHERE id = :id

-- name: delete_spans
DELETE FROM spans WHERE trace_id = :id

-- name: shrink
UPDATE tenants SET bytes = bytes - :bytes WHERE tenant = :tenant

-- name: forget_empty
DELETE FROM tenants WHERE bytes <= 0

-- name: list
-- The newest first. An empty filter fits all.
SELECT id, trace, name, began, ended, failed, queues, messages, agents, spans, dropped
FROM traces
WHERE tenant = :tenant AND room = :room AND began > :since
    AND (:before IS NULL OR (began, id) < (:before, :before_id))
    AND (:queue = '' OR instr(queues, :queue) > 0)
    AND (:message = '' OR instr(messages, :message) > 0)
    AND (:agent = '' OR instr(agents, :agent) > 0)
    AND (:failed = 0 OR failed = 1)
    AND ended - began >= :longer
ORDER BY began DESC, id DESC LIMIT :limit

-- name: get
SELECT id, trace, name, began, ended, failed, queues, messages, agents, spans, dropped
FROM traces WHERE tenant = :tenant AND room = :room AND trace = :trace AND began > :since

-- name: spans_of
SELECT spans FROM spans WHERE trace_id = :id ORDER BY id
