-- The statements of dead_letters.py, by name. `:first` is the id that the queue was made with.

-- name: dead_letters
-- The newest first; `:died_at` and `:id` are those of the last one seen.
SELECT dead.id, contents.body, contents.headers, dead.failures, dead.reason, dead.sent_at, dead.died_at
FROM dead_letters AS dead JOIN contents ON contents.message_id = dead.id
WHERE dead.queue_id = :first AND (dead.died_at, dead.id) < (:died_at, :id)
ORDER BY dead.died_at DESC, dead.id DESC LIMIT :limit;

-- name: last_death
SELECT max(died_at) FROM dead_letters WHERE queue_id = :first;

-- name: some_dead
SELECT id FROM dead_letters WHERE queue_id = :first AND died_at <= :until ORDER BY died_at LIMIT :limit;

-- name: replay
-- The plus keeps the planner from reading all letters of the queue for each batch.
INSERT INTO messages (id, queue_id, sent_at, ended, token, priority, began_at, worker, history)
SELECT id, :queue, sent_at, ended, token, priority, began_at, worker, history FROM dead_letters
WHERE +queue_id = :first AND key IS NULL AND id IN (SELECT value FROM json_each(:ids));

-- name: keyed
SELECT id, key FROM dead_letters
WHERE +queue_id = :first AND key IS NOT NULL AND id IN (SELECT value FROM json_each(:ids)) ORDER BY id;

-- name: replay_keyed
INSERT INTO messages (id, queue_id, sent_at, ended, token, priority, key, ready, began_at, worker, history)
SELECT id, :queue, sent_at, ended, token, priority, key, :ready, began_at, worker, history FROM dead_letters WHERE id = :id;

-- name: forget_replayed
DELETE FROM dead_letters WHERE +queue_id = :first AND id IN (SELECT value FROM json_each(:ids));
