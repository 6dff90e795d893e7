-- The statements of archive.py, by name. `:first` is the id that the queue was made with.

-- name: stored_page
-- In two parts, as each has an index of its own.
SELECT * FROM (
    SELECT
        id, sent_at, failures, interruptions, ended, CASE WHEN holder IS NULL THEN ifnull(due, delayed_until) END AS due,
        NULL AS reason, NULL AS died_at, priority, key, expires_at
    FROM messages INDEXED BY messages_by_id WHERE queue_id = :queue AND id > :after ORDER BY id LIMIT :limit
) UNION ALL SELECT * FROM (
    SELECT id, sent_at, failures, 0, ended, NULL, reason, died_at, priority, key, NULL
    FROM dead_letters INDEXED BY dead_letters_by_id WHERE queue_id = :first AND id > :after ORDER BY id LIMIT :limit
) ORDER BY 1 LIMIT :limit;

-- name: restore_counts
UPDATE messages SET failures = :failures, interruptions = :interruptions, ended = :ended WHERE id = :id;
