-- The parts of the statements of messages/records.py, by name; what is in braces is one of these parts, or a constant.

-- name: target
WITH target AS MATERIALIZED (
    SELECT id AS queue, lane FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s
)

-- name: state
CASE
    WHEN held_back THEN 'blocked'
    WHEN ready OR due <= %(now)s THEN 'ready'
    WHEN holder IS NOT NULL THEN 'leased'
    WHEN failures > 0 THEN 'failed'
    ELSE 'delayed'
END

-- name: few_waiting
-- The leased and delayed messages of a queue, unless there are many: the index of these is not by id.
SELECT messages.id FROM meshhost.messages JOIN meshhost.queues USING (lane)
WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s
AND NOT ready AND NOT held_back AND num_nonnulls(holder) IN (0, 1) AND due > %(now)s LIMIT %(scan)s

-- name: scan_messages
(SELECT 'kept' AS source, id, {state} AS state, sent_at, key, NULL::bytea AS reason
FROM meshhost.messages WHERE lane = (SELECT lane FROM target) AND id < %(before)s {which}
ORDER BY id DESC LIMIT %(scan)s)

-- name: which_key
AND key_hash = %(key_hash)s AND key = %(key)s

-- name: which_held_back
AND held_back

-- name: which_ids
AND id = ANY (%(ids)s::bigint[])

-- name: scan_dead
(SELECT 'dead' AS source, id, 'dead' AS state, sent_at, key, reason
FROM meshhost.dead_letters WHERE queue = (SELECT queue FROM target) AND id < %(before)s ORDER BY id DESC LIMIT %(scan)s)

-- name: scan_outcomes
(SELECT state AS source, id, state, sent_at, key, reason
FROM meshhost.outcomes WHERE queue = (SELECT queue FROM target) AND state = '{state}' AND id < %(before)s AND forget_at > %(now)s
ORDER BY id DESC LIMIT %(scan)s)

-- name: not_weighed
SELECT *, 0 AS weight FROM scanned

-- name: weighed
-- Bodies are read up to a sum of their sizes, which are known without reading them.
SELECT scanned.*, coalesce(sum(octet_length(body)) OVER (ORDER BY id DESC), 0) - coalesce(octet_length(body), 0) AS weight
FROM scanned LEFT JOIN meshhost.contents ON message_id = id

-- name: has_text
AND (
    position(%(text)s::bytea IN reason) > 0
    OR EXISTS (SELECT FROM meshhost.contents WHERE message_id = weighed.id AND position(%(text)s::bytea IN body) > 0)
)

-- name: find
-- What is below the edge was not looked at: another page.
{target}, scanned AS MATERIALIZED (
    {scans}
), weighed AS MATERIALIZED (
    {weighing}
), edge AS MATERIALIZED (
    SELECT greatest(
        (SELECT max(lowest) FROM (
            SELECT min(id) AS lowest FROM scanned GROUP BY source HAVING count(*) = %(scan)s
        ) AS cut_short),
        (SELECT min(id) FILTER (WHERE weight < %(heaviest)s) FROM weighed HAVING bool_or(weight >= %(heaviest)s))
    ) AS id
), picked AS MATERIALIZED (
    SELECT id FROM weighed
    WHERE weight < %(heaviest)s AND id >= coalesce((SELECT id FROM edge), 0)
    AND (%(states)s::text[] IS NULL OR state = ANY (%(states)s::text[]))
    AND (%(key)s::bytea IS NULL OR key = %(key)s::bytea)
    AND (%(since)s::float8 IS NULL OR sent_at >= %(since)s)
    AND (%(until)s::float8 IS NULL OR sent_at <= %(until)s)
    {has_text}
    ORDER BY id DESC LIMIT %(limit)s
)
SELECT (SELECT id FROM edge), known.* FROM target LEFT JOIN ({records}) AS known ON true ORDER BY known.id DESC

-- name: get
{target}, picked AS MATERIALIZED (
    SELECT %(id)s::bigint AS id
)
SELECT NULL, known.* FROM target LEFT JOIN ({records}) AS known ON true

-- name: next
-- In two parts, as each has an index of its own: what is ready, and what time has made ready and nobody has looked at since.
{target}, picked AS MATERIALIZED (
    SELECT id FROM (
        (SELECT id, priority FROM meshhost.messages WHERE lane = (SELECT lane FROM target) AND ready AND NOT held_back
        ORDER BY priority DESC, id LIMIT %(limit)s)
        UNION ALL
        (SELECT id, priority FROM meshhost.messages WHERE lane = (SELECT lane FROM target) AND NOT ready AND NOT held_back
        AND num_nonnulls(holder) IN (0, 1) AND due <= %(now)s
        ORDER BY priority DESC, id LIMIT %(limit)s)
    ) AS both_kinds ORDER BY priority DESC, id LIMIT %(limit)s
)
SELECT NULL, known.* FROM target LEFT JOIN ({records}) AS known ON true ORDER BY known.priority DESC, known.id

-- name: records
SELECT
    picked.id, {state} AS state, sent_at, priority, key, body, headers, failures, ended,
    CASE WHEN holder IS NULL THEN due END AS due, expires_at, began_at, leased_by,
    CASE WHEN holder IS NOT NULL AND due > %(now)s THEN due END AS lease_until, progress,
    NULL::bytea AS result, NULL::float8 AS ended_at, NULL::bytea AS reason, is_cancelled, history
FROM picked JOIN meshhost.messages ON messages.lane = (SELECT lane FROM target) AND messages.id = picked.id
JOIN meshhost.contents ON message_id = picked.id
UNION ALL
SELECT
    picked.id, 'dead', sent_at, priority, key, body, headers, failures, ended, NULL, NULL, began_at, leased_by, NULL, NULL,
    NULL, died_at, reason, false, history
FROM picked JOIN meshhost.dead_letters ON dead_letters.queue = (SELECT queue FROM target) AND dead_letters.id = picked.id
JOIN meshhost.contents ON message_id = picked.id
UNION ALL
SELECT
    picked.id, state, sent_at, priority, key, NULL, NULL, failures, ended, NULL, NULL, began_at, leased_by, NULL, NULL,
    result, ended_at, reason, false, history
FROM picked JOIN meshhost.outcomes
ON outcomes.queue = (SELECT queue FROM target) AND state IN ('done', 'cancelled', 'expired') AND outcomes.id = picked.id
WHERE forget_at > %(now)s
