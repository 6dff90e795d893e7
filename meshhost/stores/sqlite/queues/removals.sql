-- The statements of removal.py, by name.

-- name: add_removal
INSERT INTO removals (queue_id, dead) VALUES (:queue, :what) ON CONFLICT DO NOTHING;

-- name: next_removal
SELECT queue_id, dead FROM removals LIMIT 1;

-- name: end_removal
DELETE FROM removals WHERE queue_id = :queue AND dead = :what;

-- name: some_messages
SELECT id FROM messages WHERE queue_id = :queue LIMIT :limit;

-- name: some_deads
SELECT id FROM dead_letters WHERE queue_id = :queue LIMIT :limit;

-- name: remove_content
DELETE FROM contents WHERE message_id = :id;

-- name: remove_message
DELETE FROM messages WHERE id = :id;

-- name: remove_dead
DELETE FROM dead_letters WHERE id = :id;

-- name: some_outcomes
SELECT id FROM outcomes WHERE queue_id = :queue LIMIT :limit;

-- name: remove_outcome
DELETE FROM outcomes WHERE id = :id;

-- name: some_queues
SELECT id, ifnull(first_id, id) FROM queues WHERE tenant = :tenant AND (:room IS NULL OR room = :room) LIMIT :limit;

-- name: hide_queue
DELETE FROM queues WHERE id = :queue;
