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
INSERT INTO messages (id, queue_id, sent_at, ended, token)
SELECT id, :queue, sent_at, ended, token FROM dead_letters
WHERE +queue_id = :first AND id IN (SELECT value FROM json_each(:ids));

-- name: forget_replayed
DELETE FROM dead_letters WHERE +queue_id = :first AND id IN (SELECT value FROM json_each(:ids));
