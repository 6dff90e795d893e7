-- The statements of starts.py, by name. `:first` is the id that the queue was made with.

-- name: find
SELECT until, wake_at FROM starts WHERE queue_id = :first AND key = :key;

-- name: keep
INSERT INTO starts (queue_id, key, until, wake_at) VALUES (:first, :key, :until, :wake_at)
ON CONFLICT DO UPDATE SET until = :until, wake_at = :wake_at, put_off = NULL;

-- name: put_off
UPDATE starts SET put_off = :until WHERE queue_id = :first AND key = :key;

-- name: let_go
-- The messages that were put off are ready.
UPDATE messages SET ready = 1, due = NULL, since = :now WHERE id IN (
    SELECT messages.id FROM starts CROSS JOIN messages INDEXED BY messages_waiting
    ON messages.queue_id = :queue AND messages.ready = 0 AND messages.due = starts.put_off
    WHERE starts.queue_id = :first AND starts.put_off IS NOT NULL
    AND messages.holder IS NULL AND starts.key = 'k' || messages.key
);

-- name: begin_anew
DELETE FROM starts WHERE queue_id = :first AND key = '';

-- name: begin_keys_anew
DELETE FROM starts WHERE queue_id = :first AND key > '';

-- name: sweep
UPDATE starts SET wake_at = NULL WHERE wake_at <= :now RETURNING queue_id;

-- name: queues_of_firsts
SELECT tenant, room, name FROM queues WHERE ifnull(first_id, id) IN (SELECT value FROM json_each(:firsts));

-- name: next_wake
-- What is being deleted is never due.
SELECT wake_at FROM starts INDEXED BY starts_waking
WHERE wake_at IS NOT NULL AND queue_id IN (SELECT ifnull(first_id, id) FROM queues) ORDER BY wake_at LIMIT 1;

-- name: forget
DELETE FROM starts WHERE (queue_id, key) IN (
    SELECT queue_id, key FROM starts INDEXED BY starts_old WHERE until <= :now AND wake_at IS NULL ORDER BY until LIMIT :limit
);

-- name: move
UPDATE starts SET until = until + :seconds, wake_at = wake_at + :seconds, put_off = put_off + :seconds;

-- name: bound
UPDATE starts SET wake_at = :latest WHERE wake_at > :latest;
