-- The statements of queues.py, by name. What must survive a power cut commits as PostgreSQL does by default; leases, their
-- extensions and sweeps set `synchronous_commit` to off for their own transaction: losing them only hands a message out again.

-- name: create_queue
INSERT INTO meshhost.queues (tenant, room, name) VALUES (%(tenant)s, %(room)s, %(name)s) ON CONFLICT DO NOTHING

-- name: exists
SELECT FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: send
-- The share of the queue's row makes a deletion or a drain wait for this send, or this send find the queue as they left it.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(tenants)s::text[], %(rooms)s::text[], %(names)s::text[], %(bodies)s::bytea[], %(headers)s::bytea[],
        %(sender_ids)s::bytea[]
    ) WITH ORDINALITY AS sent (tenant, room, name, body, headers, sender_id, ord)
), target AS MATERIALIZED (
    SELECT queues.tenant, queues.room, queues.name, queues.lane, queues.id AS queue
    FROM (SELECT DISTINCT tenant, room, name FROM input) AS named JOIN meshhost.queues USING (tenant, room, name)
    FOR KEY SHARE OF queues
), numbered AS MATERIALIZED (
    SELECT ord, nextval('meshhost.message_ids') AS id, queue, lane, body, headers, sender_id
    FROM input JOIN target USING (tenant, room, name) ORDER BY ord
), remembered AS (
    -- In order, so that two statements do not wait for each other. An update returns the row that another one made meanwhile.
    INSERT INTO meshhost.sent_ids AS known (queue, sender_id, message_id, forget_at)
    SELECT DISTINCT ON (queue, sender_id) queue, sender_id, id, %(forget_at)s
    FROM numbered WHERE sender_id IS NOT NULL ORDER BY queue, sender_id, ord
    ON CONFLICT (queue, sender_id) DO UPDATE SET
        message_id = CASE WHEN known.forget_at > %(steady)s THEN known.message_id ELSE excluded.message_id END,
        forget_at = CASE WHEN known.forget_at > %(steady)s THEN known.forget_at ELSE excluded.forget_at END
    RETURNING queue, sender_id, message_id
), resolved AS MATERIALIZED (
    SELECT numbered.*, coalesce(remembered.message_id, id) AS first
    FROM numbered LEFT JOIN remembered USING (queue, sender_id)
), added AS (
    INSERT INTO meshhost.messages (id, lane, sent_at) SELECT id, lane, %(now)s FROM resolved WHERE id = first
), kept AS (
    INSERT INTO meshhost.contents (message_id, body, headers) SELECT id, body, headers FROM resolved WHERE id = first
)
SELECT resolved.first, resolved.id = resolved.first FROM input LEFT JOIN resolved USING (ord) ORDER BY ord

-- name: find_sent
SELECT message_id FROM meshhost.sent_ids JOIN meshhost.queues ON queues.id = sent_ids.queue
WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s AND sender_id = %(sender_id)s AND forget_at > %(steady)s

-- name: forget_sent
DELETE FROM meshhost.sent_ids WHERE (queue, sender_id) IN (
    SELECT queue, sender_id FROM meshhost.sent_ids WHERE forget_at <= %(steady)s
    ORDER BY forget_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)

-- name: check
INSERT INTO meshhost.checks (id, checked_at) VALUES (1, %(now)s)
ON CONFLICT (id) DO UPDATE SET checked_at = excluded.checked_at

-- name: lease
-- One row for each message; one without an id when there is none; no row when there is no queue.
WITH target AS MATERIALIZED (
    SELECT lane FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s
), due AS MATERIALIZED (
    SELECT id FROM meshhost.messages
    WHERE lane = (SELECT lane FROM target) AND NOT ready AND due <= %(now)s
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT id FROM meshhost.messages
    WHERE lane = (SELECT lane FROM target) AND ready
    ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT id, set_config('synchronous_commit', 'off', true)
    FROM (SELECT id FROM due UNION ALL SELECT id FROM fresh) AS both_kinds ORDER BY id LIMIT %(limit)s
), claimed AS (
    UPDATE meshhost.messages
    SET ready = false, due = %(until)s, token = token + 1, holder = %(holder)s,
        ended = ended + (holder IS NOT NULL)::int, interruptions = interruptions + (holder IS NOT NULL)::int
    FROM chosen WHERE messages.id = chosen.id
    RETURNING messages.id, token, failures, ended, sent_at, interruptions
)
SELECT claimed.id, token, failures, ended, sent_at, interruptions, body, headers
FROM target LEFT JOIN claimed ON true LEFT JOIN meshhost.contents ON contents.message_id = claimed.id
ORDER BY claimed.id

-- name: ack
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(ids)s::bigint[], %(tokens)s::int[], %(holders)s::text[], %(tenants)s::text[], %(rooms)s::text[], %(names)s::text[]
    ) WITH ORDINALITY AS lease (id, token, holder, tenant, room, name, ord)
), settled AS (
    DELETE FROM meshhost.messages USING input JOIN meshhost.queues USING (tenant, room, name)
    WHERE messages.id = input.id AND messages.token = input.token AND messages.holder = input.holder
    AND messages.lane = queues.lane
    RETURNING messages.id, input.ord
), emptied AS (
    DELETE FROM meshhost.contents USING settled WHERE contents.message_id = settled.id
)
SELECT ord FROM settled

-- name: lock_leased
SELECT failures, interruptions FROM meshhost.messages JOIN meshhost.queues USING (lane)
WHERE messages.id = %(id)s AND token = %(token)s AND holder = %(holder)s
AND tenant = %(tenant)s AND room = %(room)s AND name = %(name)s
FOR UPDATE OF messages

-- name: give_back
UPDATE meshhost.messages
SET holder = NULL, due = %(due)s::float8, ready = (%(due)s::float8 IS NULL), failures = failures + %(failed)s,
    ended = ended + %(counted)s, interruptions = interruptions + %(interrupted)s
WHERE id = %(id)s

-- name: bury
WITH buried AS (
    DELETE FROM meshhost.messages WHERE id = %(id)s RETURNING *
)
INSERT INTO meshhost.dead_letters (id, queue, sent_at, failures, ended, token, reason, died_at)
SELECT buried.id, queues.id, sent_at, failures + %(failed)s, ended + %(counted)s, token, %(reason)s, %(now)s
FROM buried JOIN meshhost.queues USING (lane)

-- name: extend
UPDATE meshhost.messages SET due = %(until)s, ready = false
FROM meshhost.queues, (SELECT set_config('synchronous_commit', 'off', true)) AS mode
WHERE messages.id = %(id)s AND token = %(token)s AND holder = %(holder)s AND messages.lane = queues.lane
AND tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: queues_of_holder
SELECT DISTINCT tenant, room, name FROM meshhost.messages JOIN meshhost.queues USING (lane)
WHERE holder = %(holder)s ORDER BY tenant, room, name

-- name: poisoned_of_holder
SELECT messages.id, tenant, room, name FROM meshhost.messages JOIN meshhost.queues USING (lane)
WHERE holder = %(holder)s AND interruptions >= %(most)s FOR UPDATE OF messages

-- name: release_holder
UPDATE meshhost.messages
SET holder = NULL, due = NULL, ready = true, ended = ended + %(counted)s, interruptions = interruptions + %(interrupted)s
WHERE holder = %(holder)s

-- name: shorten_holder
UPDATE meshhost.messages SET due = least(due, %(soon)s) WHERE holder = %(holder)s AND NOT ready

-- name: sweep
WITH due AS MATERIALIZED (
    SELECT id, set_config('synchronous_commit', 'off', true) FROM meshhost.messages
    WHERE NOT ready AND due <= %(now)s ORDER BY due LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), swept AS (
    UPDATE meshhost.messages SET ready = true, due = NULL FROM due WHERE messages.id = due.id RETURNING lane
)
SELECT swept.lane, tenant, room, name, count(*) FROM swept LEFT JOIN meshhost.queues USING (lane)
GROUP BY swept.lane, tenant, room, name ORDER BY tenant, room, name

-- name: next_due
-- Joined with queues: what a drained or deleted queue left behind is never due.
SELECT due FROM meshhost.messages JOIN meshhost.queues USING (lane) WHERE NOT ready ORDER BY due LIMIT 1

-- name: lock_queue
SELECT id, lane FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s FOR UPDATE

-- name: new_lane
UPDATE meshhost.queues SET lane = nextval(pg_get_serial_sequence('meshhost.queues', 'lane')) WHERE id = %(queue)s

-- name: delete_queue
DELETE FROM meshhost.queues WHERE id = %(queue)s

-- name: drop_lane
INSERT INTO meshhost.dropped_lanes (lane, queue) VALUES (%(lane)s, %(queue)s) ON CONFLICT DO NOTHING

-- name: depth
-- In two parts, here and below: each has an index of its own, and there is none over both.
SELECT
    (SELECT count(*) FROM meshhost.messages WHERE messages.lane = queues.lane AND ready)
    + (SELECT count(*) FROM meshhost.messages WHERE messages.lane = queues.lane AND NOT ready)
FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: dropped_lanes
SELECT lane, queue FROM meshhost.dropped_lanes FOR UPDATE SKIP LOCKED LIMIT 1

-- name: delete_some_messages
WITH fresh AS MATERIALIZED (
    SELECT id FROM meshhost.messages WHERE lane = %(lane)s AND ready LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), waiting AS MATERIALIZED (
    SELECT id FROM meshhost.messages WHERE lane = %(lane)s AND NOT ready LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), doomed AS (
    SELECT id FROM fresh UNION ALL SELECT id FROM waiting
), emptied AS (
    DELETE FROM meshhost.contents USING doomed WHERE contents.message_id = doomed.id
)
DELETE FROM meshhost.messages USING doomed WHERE messages.id = doomed.id

-- name: delete_some_dead_letters
WITH doomed AS MATERIALIZED (
    SELECT id FROM meshhost.dead_letters WHERE queue = %(queue)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), emptied AS (
    DELETE FROM meshhost.contents USING doomed WHERE contents.message_id = doomed.id
)
DELETE FROM meshhost.dead_letters USING doomed WHERE dead_letters.id = doomed.id

-- name: forget_dropped_lane
DELETE FROM meshhost.dropped_lanes WHERE lane = %(lane)s AND queue = %(queue)s

-- name: stats
SELECT
    queues.name,
    fresh.count + waiting.expired, waiting.leased, waiting.delayed,
    (SELECT count(*) FROM meshhost.dead_letters WHERE queue = queues.id),
    (SELECT sent_at FROM meshhost.messages WHERE id = least(fresh.oldest, waiting.oldest))
FROM meshhost.queues
CROSS JOIN LATERAL (
    SELECT count(*), min(id) AS oldest FROM meshhost.messages WHERE messages.lane = queues.lane AND ready
) AS fresh
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE due <= %(now)s) AS expired,
        count(*) FILTER (WHERE due > %(now)s AND holder IS NOT NULL) AS leased,
        count(*) FILTER (WHERE due > %(now)s AND holder IS NULL) AS delayed,
        min(id) AS oldest
    FROM meshhost.messages WHERE messages.lane = queues.lane AND NOT ready
) AS waiting
WHERE tenant = %(tenant)s AND room = %(room)s ORDER BY name

-- name: of_tenant
SELECT count(*), coalesce(sum(fresh.count + waiting.count + dead.count), 0)::bigint
FROM meshhost.queues
CROSS JOIN LATERAL (SELECT count(*) FROM meshhost.messages WHERE messages.lane = queues.lane AND ready) AS fresh
CROSS JOIN LATERAL (SELECT count(*) FROM meshhost.messages WHERE messages.lane = queues.lane AND NOT ready) AS waiting
CROSS JOIN LATERAL (SELECT count(*) FROM meshhost.dead_letters WHERE dead_letters.queue = queues.id) AS dead
WHERE tenant = %(tenant)s

-- name: rooms_with_work
-- Of all rooms, or of one. Each queue is asked two questions that an index answers with one row; leases are collected once.
SELECT DISTINCT tenant, room FROM meshhost.queues
WHERE (%(tenant)s::text IS NULL OR (tenant = %(tenant)s AND room = %(room)s)) AND (
    EXISTS (SELECT 1 FROM meshhost.messages WHERE messages.lane = queues.lane AND ready)
    OR EXISTS (SELECT 1 FROM meshhost.messages WHERE messages.lane = queues.lane AND NOT ready AND due <= %(soon)s)
    OR lane IN (SELECT messages.lane FROM meshhost.messages WHERE holder IS NOT NULL)
)
ORDER BY tenant, room

-- name: rooms_of
SELECT DISTINCT room FROM meshhost.queues WHERE tenant = %(tenant)s ORDER BY room

-- name: totals
-- Without the messages and dead letters that are being deleted.
SELECT
    count(*) FILTER (WHERE ready OR due <= %(now)s),
    count(*) FILTER (WHERE due > %(now)s AND holder IS NOT NULL),
    count(*) FILTER (WHERE due > %(now)s AND holder IS NULL),
    (SELECT count(*) FROM meshhost.dead_letters WHERE queue IN (SELECT id FROM meshhost.queues)),
    min(sent_at)
FROM meshhost.messages WHERE lane IN (SELECT queues.lane FROM meshhost.queues)

-- name: drop_some_queues
WITH doomed AS MATERIALIZED (
    SELECT id, lane FROM meshhost.queues
    WHERE tenant = %(tenant)s AND (%(room)s::text IS NULL OR room = %(room)s::text) LIMIT %(limit)s FOR UPDATE
), dropped AS (
    INSERT INTO meshhost.dropped_lanes (lane, queue) SELECT lane, id FROM doomed ON CONFLICT DO NOTHING
)
DELETE FROM meshhost.queues USING doomed WHERE queues.id = doomed.id RETURNING queues.room, queues.name
