-- The statements of life.py, by name: what is known of messages, in the columns of `_Row`. `:first` is the id that the queue was
-- made with. Each page is of ids below `:before`, the newest first.

-- name: message
SELECT
    id, NULL AS state, sent_at, priority, key, failures, ended, ready, due, delayed_until, expires_at, holder IS NOT NULL,
    began_at, worker, progress, is_cancelled, NULL AS result, NULL AS ended_at, NULL AS reason, history, body, headers
FROM messages CROSS JOIN contents ON message_id = id WHERE id = :id AND queue_id = :queue;

-- name: dead
SELECT
    id, 'dead', sent_at, priority, key, failures, ended, NULL, NULL, NULL, NULL, 0,
    began_at, worker, NULL, 0, NULL, died_at, reason, history, body, headers
FROM dead_letters CROSS JOIN contents ON message_id = id WHERE id = :id AND queue_id = :first;

-- name: outcome
SELECT
    id, state, sent_at, priority, key, failures, ended, NULL, NULL, NULL, NULL, 0,
    began_at, worker, NULL, 0, result, ended_at, NULL, history, NULL, NULL
FROM outcomes WHERE id = :id AND queue_id = :first AND forget_at > :now;

-- name: messages
SELECT
    id, NULL AS state, sent_at, priority, key, failures, ended, ready, due, delayed_until, expires_at, holder IS NOT NULL,
    began_at, worker, progress, is_cancelled, NULL AS result, NULL AS ended_at, NULL AS reason, NULL, body, headers
FROM messages INDEXED BY messages_by_id CROSS JOIN contents ON message_id = id
WHERE queue_id = :queue AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: waiting_messages
-- Those that are not ready, which may be few among many that are.
SELECT
    id, NULL AS state, sent_at, priority, key, failures, ended, ready, due, delayed_until, expires_at, holder IS NOT NULL,
    began_at, worker, progress, is_cancelled, NULL AS result, NULL AS ended_at, NULL AS reason, NULL, body, headers
FROM messages CROSS JOIN contents ON message_id = id
WHERE id IN (
    SELECT id FROM messages INDEXED BY messages_in_order
    WHERE queue_id = :queue AND ready IN (0, 2) AND id < :before ORDER BY id DESC LIMIT :limit
)
ORDER BY id DESC;

-- name: next_messages
-- In two parts, as each has an index of its own: what is ready, and what time has made ready and nobody has looked at since.
SELECT
    id, NULL AS state, sent_at, priority, key, failures, ended, ready, due, delayed_until, expires_at, holder IS NOT NULL,
    began_at, worker, progress, is_cancelled, NULL AS result, NULL AS ended_at, NULL AS reason, NULL, body, headers
FROM messages CROSS JOIN contents ON message_id = id
WHERE id IN (
    SELECT id FROM (
        SELECT id FROM messages INDEXED BY messages_in_order
        WHERE queue_id = :queue AND ready = 1 ORDER BY priority DESC, id LIMIT :limit
    ) UNION ALL SELECT id FROM (
        SELECT id FROM messages INDEXED BY messages_waiting
        WHERE queue_id = :queue AND ready = 0 AND due <= :now ORDER BY priority DESC, id LIMIT :limit
    )
)
ORDER BY priority DESC, id LIMIT :limit;

-- name: messages_of_key
SELECT
    id, NULL AS state, sent_at, priority, key, failures, ended, ready, due, delayed_until, expires_at, holder IS NOT NULL,
    began_at, worker, progress, is_cancelled, NULL AS result, NULL AS ended_at, NULL AS reason, NULL, body, headers
FROM messages INDEXED BY messages_of_key CROSS JOIN contents ON message_id = id
WHERE queue_id = :queue AND key = :key AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: deads
SELECT
    id, 'dead', sent_at, priority, key, failures, ended, NULL, NULL, NULL, NULL, 0,
    began_at, worker, NULL, 0, NULL, died_at, reason, NULL, body, headers
FROM dead_letters INDEXED BY dead_letters_by_id CROSS JOIN contents ON message_id = id
WHERE queue_id = :first AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: outcomes
SELECT
    id, state, sent_at, priority, key, failures, ended, NULL, NULL, NULL, NULL, 0,
    began_at, worker, NULL, 0, result, ended_at, NULL, NULL, NULL, NULL
FROM outcomes INDEXED BY outcomes_by_id
WHERE queue_id = :first AND id < :before AND forget_at > :now ORDER BY id DESC LIMIT :limit;

-- name: cancel_leased
-- Its holder learns it when it extends the lease.
UPDATE messages SET is_cancelled = 1 WHERE id = :id;

-- name: last_delivery
SELECT holder IS NOT NULL, history FROM messages WHERE id = :id;

-- name: referred
-- As the indexes of the large ones say it.
SELECT substr(body, 2, 32) FROM contents
WHERE substr(body, 1, 1) = '@' AND substr(body, 2, 32) IN (SELECT value FROM json_each(:names))
UNION
SELECT substr(result, 2, 32) FROM outcomes
WHERE substr(result, 1, 1) = '@' AND substr(result, 2, 32) IN (SELECT value FROM json_each(:names));
