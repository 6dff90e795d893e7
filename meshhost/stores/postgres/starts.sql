-- The statements of messages/starts.py, by name.

-- name: limits
-- How many more messages of the queue may be in progress (null: any number), its settings, and its row of starts.
SELECT
    CASE WHEN concurrency IS NOT NULL THEN concurrency - (
        SELECT count(*) FROM meshhost.messages
        WHERE messages.lane = queues.lane AND NOT ready AND NOT held_back AND num_nonnulls(holder) = 1 AND due > %(now)s
    ) END,
    settings::text, id, lane, until, wake_at
FROM meshhost.queues LEFT JOIN meshhost.starts ON starts.queue = queues.id AND starts.key = ''
WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: put_off
-- Of the messages that come first, those whose keys have no start left wait for one. As in the statement `lease`, but for those that are
-- not to be handed out. `ahead` is a whole burst of the rate in seconds, `behind` one start less, `slack` as in `stores/rates.py`.
WITH due AS MATERIALIZED (
    SELECT id, priority, key, holder, is_cancelled, expires_at, interruptions FROM meshhost.messages
    WHERE lane = %(lane)s AND NOT ready AND NOT held_back
    AND num_nonnulls(holder) IN (0, 1) AND due <= %(now)s AND id <> ALL (%(found)s::bigint[])
    ORDER BY priority DESC, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT id, priority, key, holder, is_cancelled, expires_at, interruptions FROM meshhost.messages
    WHERE lane = %(lane)s AND ready AND NOT held_back
    ORDER BY priority DESC, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT * FROM (SELECT * FROM due UNION ALL SELECT * FROM fresh) AS both_kinds ORDER BY priority DESC, id LIMIT %(limit)s
), late AS MATERIALIZED (
    SELECT chosen.id, starts.key, least(until, %(now)s + %(ahead)s) - %(behind)s AS next_at
    FROM chosen JOIN meshhost.starts ON starts.queue = %(queue)s AND starts.key = 'k'::bytea || chosen.key
    WHERE NOT is_cancelled AND coalesce(expires_at > %(now)s, true) AND (holder IS NULL OR interruptions + 1 < %(most)s)
    AND least(until, %(now)s + %(ahead)s) - %(behind)s > %(now)s + %(slack)s
), noted AS (
    UPDATE meshhost.starts SET put_off = next_at FROM late WHERE starts.queue = %(queue)s AND starts.key = late.key
)
UPDATE meshhost.messages
SET ready = false, due = next_at, holder = NULL,
    ended = ended + num_nonnulls(holder), interruptions = interruptions + num_nonnulls(holder),
    history = CASE
        WHEN holder IS NULL THEN history
        ELSE meshhost.noted(history, began_at, %(wall)s, leased_by, '"expired"', '""', %(history)s)
    END
FROM late WHERE messages.lane = %(lane)s AND messages.id = late.id

-- name: start_keys
-- A key is missing in the answer when it has no start left.
INSERT INTO meshhost.starts AS kept (queue, key, until)
SELECT %(queue)s, 'k'::bytea || key, %(now)s + %(interval)s FROM unnest(%(keys)s::bytea[]) AS started (key)
ON CONFLICT (queue, key) DO UPDATE
SET until = greatest(least(kept.until, %(now)s + %(ahead)s), %(now)s) + %(interval)s, put_off = NULL
WHERE least(kept.until, %(now)s + %(ahead)s) - %(behind)s <= %(now)s + %(slack)s
RETURNING 1

-- name: start
INSERT INTO meshhost.starts (queue, key, until, wake_at) VALUES (%(queue)s, '', %(until)s, %(wake_at)s)
ON CONFLICT (queue, key) DO UPDATE SET until = excluded.until, wake_at = excluded.wake_at

-- name: lock_settings
SELECT id, settings::text FROM meshhost.queues
WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s FOR NO KEY UPDATE

-- name: begin_anew
DELETE FROM meshhost.starts WHERE queue = %(queue)s AND key = ''

-- name: let_go
-- The keys begin anew. The messages that were put off are ready. Those that somebody has locked become ready at their time.
WITH chosen AS MATERIALIZED (
    SELECT messages.lane, messages.id FROM meshhost.queues
    JOIN meshhost.starts ON starts.queue = queues.id AND put_off IS NOT NULL
    JOIN meshhost.messages ON messages.lane = queues.lane AND NOT messages.ready AND NOT held_back
        AND num_nonnulls(holder) = 0 AND due = put_off AND starts.key = 'k'::bytea || messages.key
    WHERE queues.id = %(queue)s FOR UPDATE OF messages SKIP LOCKED
), freed AS (
    UPDATE meshhost.messages SET ready = true, due = NULL, since = %(now)s FROM chosen
    WHERE messages.lane = chosen.lane AND messages.id = chosen.id
)
DELETE FROM meshhost.starts WHERE queue = %(queue)s AND key > ''

-- name: sweep
WITH due AS MATERIALIZED (
    SELECT queue, key, set_config('synchronous_commit', 'off', true) FROM meshhost.starts
    WHERE wake_at <= %(now)s FOR UPDATE SKIP LOCKED
), swept AS (
    UPDATE meshhost.starts SET wake_at = NULL FROM due
    WHERE starts.queue = due.queue AND starts.key = due.key RETURNING starts.queue
)
SELECT tenant, room, name FROM swept JOIN meshhost.queues ON queues.id = swept.queue

-- name: forget
DELETE FROM meshhost.starts WHERE (queue, key) IN (
    SELECT queue, key FROM meshhost.starts WHERE until <= %(steady)s AND wake_at IS NULL
    ORDER BY until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
