-- The statements of dead_letters.py, by name.

-- name: dead_letters
-- One row without an id when there is none; no row when there is no queue.
WITH target AS MATERIALIZED (
    SELECT id FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s
), page AS (
    SELECT dead.id, body, headers, failures, reason, sent_at, died_at
    FROM meshhost.dead_letters AS dead JOIN meshhost.contents ON contents.message_id = dead.id
    WHERE queue = (SELECT id FROM target) AND (died_at, dead.id) < (%(died_at)s, %(id)s)
    ORDER BY died_at DESC, dead.id DESC LIMIT %(limit)s
)
SELECT page.* FROM target LEFT JOIN page ON true ORDER BY died_at DESC, page.id DESC

-- name: last_death
SELECT max(died_at) FROM meshhost.dead_letters WHERE queue = %(queue)s

-- name: some_dead
SELECT dead.id FROM meshhost.dead_letters AS dead JOIN meshhost.queues ON queues.id = dead.queue
WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s AND died_at <= %(until)s
ORDER BY died_at LIMIT %(limit)s

-- name: keys_of_dead
SELECT DISTINCT key_hash FROM meshhost.dead_letters AS dead JOIN meshhost.queues ON queues.id = dead.queue
WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s AND dead.id = ANY (%(ids)s::bigint[]) AND key_hash IS NOT NULL

-- name: replay
-- Runs under the locks of their keys.
WITH revived AS (
    DELETE FROM meshhost.dead_letters WHERE queue = %(queue)s AND id = ANY (%(ids)s::bigint[]) RETURNING *
)
INSERT INTO meshhost.messages
(id, lane, sent_at, ended, token, priority, key, key_hash, began_at, leased_by, history, held_back)
SELECT
    id, %(lane)s, sent_at, ended, token, priority, key, key_hash, began_at, leased_by, history,
    key_hash IS NOT NULL AND (
        row_number() OVER (PARTITION BY key_hash, key ORDER BY id) > 1 OR EXISTS (
            SELECT FROM meshhost.messages
            WHERE messages.lane = %(lane)s AND messages.key_hash = revived.key_hash AND messages.key = revived.key
        )
    )
FROM revived
