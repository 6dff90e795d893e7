-- The statements of queues.py, by name. What must survive a power cut commits as PostgreSQL does by default; leases, their
-- extensions and sweeps set `synchronous_commit` to off for their own transaction: losing them only hands a message out again.

-- name: create_queue
INSERT INTO meshhost.queues (tenant, room, name) VALUES (%(tenant)s, %(room)s, %(name)s) ON CONFLICT DO NOTHING

-- name: exists
SELECT FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: send
-- The share of the queue's row makes a deletion or a drain wait for this send, or this send find the queue as they left it.
-- With messages of keys it runs under their locks.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(tenants)s::text[], %(rooms)s::text[], %(names)s::text[], %(bodies)s::bytea[], %(headers)s::bytea[],
        %(sender_ids)s::bytea[], %(forget_ats)s::float8[], %(dues)s::float8[], %(priorities)s::smallint[],
        %(keys)s::bytea[], %(key_hashes)s::bigint[], %(expiries)s::float8[]
    ) WITH ORDINALITY AS sent (
        tenant, room, name, body, headers, sender_id, forget_at, due, priority, key, key_hash, expires_at, ord
    )
), target AS MATERIALIZED (
    SELECT queues.tenant, queues.room, queues.name, queues.lane, queues.id AS queue, queues.max_depth
    FROM (SELECT DISTINCT tenant, room, name FROM input) AS named JOIN meshhost.queues USING (tenant, room, name)
    FOR KEY SHARE OF queues
), numbered AS MATERIALIZED (
    SELECT
        ord, nextval('meshhost.message_ids') AS id, queue, lane, max_depth, body, headers, sender_id, forget_at, due, priority,
        key, key_hash, expires_at
    FROM input JOIN target USING (tenant, room, name) ORDER BY ord
), remembered AS (
    -- In order, so that two statements do not wait for each other. An update returns the row that another one made meanwhile.
    INSERT INTO meshhost.sent_ids AS known (queue, sender_id, message_id, forget_at)
    SELECT DISTINCT ON (queue, sender_id) queue, sender_id, id, forget_at
    FROM numbered WHERE sender_id IS NOT NULL ORDER BY queue, sender_id, ord
    ON CONFLICT (queue, sender_id) DO UPDATE SET
        message_id = CASE WHEN known.forget_at > %(steady)s THEN known.message_id ELSE excluded.message_id END,
        forget_at = CASE WHEN known.forget_at > %(steady)s THEN known.forget_at ELSE excluded.forget_at END
    RETURNING queue, sender_id, message_id
), resolved AS MATERIALIZED (
    SELECT numbered.*, coalesce(remembered.message_id, id) AS first
    FROM numbered LEFT JOIN remembered USING (queue, sender_id)
), of_keys AS MATERIALIZED (
    SELECT ord, row_number() OVER (PARTITION BY lane, key_hash, key ORDER BY ord) > 1 OR EXISTS (
        SELECT FROM meshhost.messages
        WHERE messages.lane = resolved.lane AND messages.key_hash = resolved.key_hash AND messages.key = resolved.key
    ) AS held_back
    FROM resolved WHERE id = first AND key_hash IS NOT NULL
), added AS (
    INSERT INTO meshhost.messages (id, lane, sent_at, ready, due, priority, key, key_hash, expires_at, held_back)
    SELECT id, lane, %(now)s, due IS NULL, due, priority, key, key_hash, expires_at, coalesce(held_back, false)
    FROM resolved LEFT JOIN of_keys USING (ord) WHERE id = first
), kept AS (
    INSERT INTO meshhost.contents (message_id, body, headers) SELECT id, body, headers FROM resolved WHERE id = first
)
SELECT resolved.first, resolved.id = resolved.first, resolved.max_depth FROM input LEFT JOIN resolved USING (ord) ORDER BY ord

-- name: remember_senders
-- Of messages that were stored just now, in the transaction that stored them.
INSERT INTO meshhost.sent_ids (queue, sender_id, message_id, forget_at)
SELECT queues.id, mark, message_id, forget_at
FROM unnest(
    %(tenants)s::text[], %(rooms)s::text[], %(names)s::text[], %(marks)s::bytea[], %(ids)s::bigint[],
    %(forget_ats)s::float8[]
) AS stored (tenant, room, name, mark, message_id, forget_at) JOIN meshhost.queues USING (tenant, room, name)
ON CONFLICT DO NOTHING

-- name: find_sent
SELECT sender_id, message_id FROM meshhost.sent_ids JOIN meshhost.queues ON queues.id = sent_ids.queue
WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s AND sender_id = ANY (%(sender_ids)s::bytea[])
AND forget_at > %(steady)s

-- name: forget_sent
DELETE FROM meshhost.sent_ids WHERE (queue, sender_id) IN (
    SELECT queue, sender_id FROM meshhost.sent_ids WHERE forget_at <= %(steady)s
    ORDER BY forget_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)

-- name: forget_outcomes
DELETE FROM meshhost.outcomes WHERE (queue, state, id) IN (
    SELECT queue, state, id FROM meshhost.outcomes WHERE forget_at <= %(steady)s
    ORDER BY forget_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)

-- name: check
INSERT INTO meshhost.checks (id, checked_at) VALUES (1, %(now)s)
ON CONFLICT (id) DO UPDATE SET checked_at = excluded.checked_at

-- name: lease
-- One row for each message; one without an id when there is none; no row when there is no queue. A row without a token is of a
-- message that is not to be handed out: it was cancelled, its ttl is over, or it is poison. From a queue with a limit only
-- a claim that is alone with it takes any.
WITH target AS MATERIALIZED (
    SELECT
        lane, settings::text AS settings,
        CASE WHEN NOT is_paused AND (NOT is_limited OR %(is_alone)s) THEN lane END AS open_lane
    FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s
), due AS MATERIALIZED (
    SELECT id, priority, is_cancelled, expires_at, holder, interruptions, key_hash, due AS since FROM meshhost.messages
    WHERE lane = (SELECT open_lane FROM target) AND NOT ready AND NOT held_back
    AND num_nonnulls(holder) IN (0, 1) AND due <= %(now)s AND id <> ALL (%(found)s::bigint[])
    ORDER BY priority DESC, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), fresh AS MATERIALIZED (
    SELECT id, priority, is_cancelled, expires_at, holder, interruptions, key_hash, since FROM meshhost.messages
    WHERE lane = (SELECT open_lane FROM target) AND ready AND NOT held_back
    ORDER BY priority DESC, id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), chosen AS MATERIALIZED (
    SELECT
        id, key_hash, since, set_config('synchronous_commit', 'off', true),
        is_cancelled OR coalesce(expires_at <= %(now)s, false) OR (holder IS NOT NULL AND interruptions + 1 >= %(most)s) AS is_over
    FROM (SELECT * FROM due UNION ALL SELECT * FROM fresh) AS both_kinds ORDER BY priority DESC, id LIMIT %(limit)s
), claimed AS (
    UPDATE meshhost.messages
    SET ready = false, due = %(until)s, token = token + 1, holder = %(holder)s,
        ended = ended + (holder IS NOT NULL)::int, interruptions = interruptions + (holder IS NOT NULL)::int,
        history = CASE
            WHEN holder IS NULL THEN history
            ELSE meshhost.noted(history, began_at, %(wall)s, leased_by, '"expired"', '""', %(history)s)
        END,
        began_at = %(wall)s, leased_by = %(by)s, progress = NULL
    FROM chosen
    WHERE messages.lane = (SELECT open_lane FROM target) AND messages.id = chosen.id AND NOT is_over
    RETURNING messages.id, token, failures, ended, sent_at, priority, key
)
SELECT
    chosen.id, token, failures, ended, sent_at, priority, key, body, headers, %(now)s - chosen.since,
    target.settings, target.lane, chosen.key_hash
FROM target LEFT JOIN chosen ON true LEFT JOIN claimed ON claimed.id = chosen.id
LEFT JOIN meshhost.contents ON contents.message_id = claimed.id

-- name: lock_over
SELECT lane, id, is_cancelled, coalesce(expires_at <= %(now)s, false), holder IS NOT NULL, interruptions FROM meshhost.messages
WHERE lane = %(lane)s AND id = ANY (%(ids)s::bigint[]) AND NOT held_back AND (ready OR due <= %(now)s)
AND (is_cancelled OR expires_at <= %(now)s OR (holder IS NOT NULL AND interruptions + 1 >= %(most)s))
FOR UPDATE SKIP LOCKED

-- name: ack
-- Settles messages without a key, and returns the leases of those with one, with the hash of it: they need its lock.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(ids)s::bigint[], %(tokens)s::int[], %(holders)s::text[], %(tenants)s::text[], %(rooms)s::text[], %(names)s::text[],
        %(results)s::bytea[]
    ) WITH ORDINALITY AS lease (id, token, holder, tenant, room, name, result, ord)
), target AS MATERIALIZED (
    SELECT
        tenant, room, name, lane, queues.id AS queue, concurrency IS NOT NULL AS is_bounded,
        coalesce(result_ttl, %(default_ttl)s) AS seconds
    FROM (SELECT DISTINCT tenant, room, name FROM input) AS named JOIN meshhost.queues USING (tenant, room, name)
), named AS MATERIALIZED (
    SELECT input.id, token, holder, result, ord, lane, queue, is_bounded, seconds FROM input JOIN target USING (tenant, room, name)
), settled AS (
    DELETE FROM meshhost.messages USING named
    WHERE messages.lane = named.lane AND messages.id = named.id
    AND messages.token = named.token AND messages.holder = named.holder AND messages.key_hash IS NULL
    RETURNING messages.id, sent_at, failures, ended, priority, began_at, leased_by, history, ord, result, queue, is_bounded, seconds
), emptied AS (
    DELETE FROM meshhost.contents USING settled WHERE contents.message_id = settled.id
), kept AS (
    INSERT INTO meshhost.outcomes
    (queue, state, id, sent_at, ended_at, forget_at, failures, ended, priority, began_at, leased_by, result, history)
    SELECT
        queue, 'done', id, sent_at, %(wall)s, %(now)s + seconds, failures, ended, priority, began_at, leased_by, result, history
    FROM settled WHERE seconds > 0
)
SELECT ord, is_bounded, NULL::bigint AS key_hash FROM settled
UNION ALL
SELECT ord, is_bounded, key_hash FROM named JOIN meshhost.messages USING (lane, id)
WHERE messages.token = named.token AND messages.holder = named.holder AND key_hash IS NOT NULL

-- name: lock_acked
-- Those of the leases that are still the present ones.
SELECT messages.lane, messages.id, ord FROM unnest(
    %(ids)s::bigint[], %(tokens)s::int[], %(holders)s::text[], %(tenants)s::text[], %(rooms)s::text[], %(names)s::text[]
) WITH ORDINALITY AS lease (id, token, holder, tenant, room, name, ord)
JOIN meshhost.queues USING (tenant, room, name)
JOIN meshhost.messages ON messages.lane = queues.lane AND messages.id = lease.id
WHERE messages.token = lease.token AND messages.holder = lease.holder FOR UPDATE OF messages

-- name: lock_leased
-- The message of a lease. One with a key needs the key's lock first.
SELECT messages.lane, failures, interruptions, is_cancelled, settings::text FROM meshhost.messages JOIN meshhost.queues USING (lane)
WHERE messages.id = %(id)s AND token = %(token)s AND holder = %(holder)s
AND tenant = %(tenant)s AND room = %(room)s AND name = %(name)s AND (key_hash IS NULL OR %(has_key)s)
FOR UPDATE OF messages

-- name: key_of_lease
SELECT key_hash FROM meshhost.messages JOIN meshhost.queues USING (lane)
WHERE messages.id = %(id)s AND token = %(token)s AND holder = %(holder)s AND key_hash IS NOT NULL
AND tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: give_back
UPDATE meshhost.messages
SET holder = NULL, due = %(due)s::float8, ready = (%(due)s::float8 IS NULL), since = %(now)s, failures = failures + %(failed)s,
    ended = ended + %(counted)s, interruptions = interruptions + %(interrupted)s,
    history = CASE
        WHEN %(counted)s = 0 THEN history
        ELSE meshhost.noted(history, began_at, %(wall)s, leased_by, %(note)s, %(error)s, %(history)s)
    END
WHERE lane = %(lane)s AND id = %(id)s

-- name: end_messages
-- `note` is how a delivery ended by this, if one did. A dead letter keeps its content.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(lanes)s::bigint[], %(ids)s::bigint[], %(states)s::text[], %(notes)s::text[], %(errors)s::text[], %(failed)s::int[],
        %(results)s::bytea[], %(deaths)s::bytea[]
    ) AS ending (lane, id, state, note, error, failed, result, death)
), gone AS (
    DELETE FROM meshhost.messages USING input WHERE messages.lane = input.lane AND messages.id = input.id
    RETURNING
        messages.*, state, result, death, failures + failed AS failures_by_now, messages.ended + num_nonnulls(note) AS ended_by_now,
        CASE
            WHEN note IS NULL THEN history
            ELSE meshhost.noted(history, began_at, %(wall)s, leased_by, note, error, %(history)s)
        END AS history_by_now
), emptied AS (
    DELETE FROM meshhost.contents USING gone LEFT JOIN meshhost.queues USING (lane)
    WHERE contents.message_id = gone.id AND (state <> 'dead' OR queues.id IS NULL)
), buried AS (
    INSERT INTO meshhost.dead_letters
    (id, queue, sent_at, failures, ended, token, reason, died_at, priority, key, key_hash, began_at, leased_by, history)
    SELECT
        gone.id, queues.id, sent_at, failures_by_now, ended_by_now, token, death, %(wall)s, priority, key, key_hash, began_at,
        leased_by, history_by_now
    FROM gone JOIN meshhost.queues USING (lane) WHERE state = 'dead'
), kept AS (
    INSERT INTO meshhost.outcomes
    (queue, state, id, sent_at, ended_at, forget_at, failures, ended, priority, key, began_at, leased_by, result, history)
    SELECT
        queues.id, state, gone.id, sent_at, %(wall)s, %(now)s + coalesce(result_ttl, %(default_ttl)s), failures_by_now,
        ended_by_now, priority, key, began_at, leased_by, result, history_by_now
    FROM gone JOIN meshhost.queues USING (lane) WHERE state <> 'dead' AND coalesce(result_ttl, %(default_ttl)s) > 0
)
SELECT lane, id, key_hash, key, held_back FROM gone

-- name: let_follow
-- The first of the messages of each key is not held back any more.
WITH heads AS MATERIALIZED (
    SELECT lane, (
        SELECT id FROM meshhost.messages
        WHERE messages.lane = ended.lane AND messages.key_hash = ended.key_hash AND messages.key = ended.key ORDER BY id LIMIT 1
    ) AS id
    FROM unnest(%(lanes)s::bigint[], %(hashes)s::bigint[], %(keys)s::bytea[]) AS ended (lane, key_hash, key)
)
UPDATE meshhost.messages SET held_back = false FROM heads
WHERE messages.lane = heads.lane AND messages.id = heads.id AND held_back
RETURNING messages.lane, messages.key

-- name: lock_keys
SELECT pg_advisory_xact_lock(number) FROM unnest(%(numbers)s::bigint[]) AS key_locks (number)

-- name: extend
UPDATE meshhost.messages SET due = %(until)s, ready = false, progress = coalesce(%(progress)s::bytea, progress)
FROM meshhost.queues, (SELECT set_config('synchronous_commit', 'off', true)) AS mode
WHERE messages.id = %(id)s AND token = %(token)s AND holder = %(holder)s AND messages.lane = queues.lane
AND tenant = %(tenant)s AND room = %(room)s AND name = %(name)s
RETURNING is_cancelled

-- name: held_by
SELECT messages.lane, messages.id, key_hash, tenant, room, name FROM meshhost.messages JOIN meshhost.queues USING (lane)
WHERE holder = %(holder)s

-- name: lock_held_by
SELECT lane, id, is_cancelled, interruptions FROM meshhost.messages
WHERE holder = %(holder)s AND id = ANY (%(ids)s::bigint[]) ORDER BY lane, id FOR UPDATE

-- name: release_holder
UPDATE meshhost.messages
SET holder = NULL, due = NULL, ready = true, since = %(now)s, ended = ended + %(counted)s, interruptions = interruptions + %(interrupted)s,
    history = CASE
        WHEN %(counted)s = 0 THEN history
        ELSE meshhost.noted(history, began_at, %(wall)s, leased_by, %(note)s, '""', %(history)s)
    END
WHERE holder = %(holder)s AND id = ANY (%(ids)s::bigint[])

-- name: shorten_holder
UPDATE meshhost.messages SET due = least(due, %(soon)s) WHERE holder = %(holder)s AND NOT ready

-- name: expired
-- Those that nobody works on and whose ttl is over; without a queue's name what a drained or deleted queue left behind.
SELECT messages.lane, messages.id, priority, key_hash, key, held_back, tenant, room, name
FROM meshhost.messages LEFT JOIN meshhost.queues USING (lane)
WHERE expires_at <= %(now)s AND holder IS NULL ORDER BY expires_at LIMIT %(limit)s

-- name: lock_expired
SELECT messages.lane, messages.id FROM meshhost.messages
JOIN unnest(%(lanes)s::bigint[], %(ids)s::bigint[]) AS wanted (lane, id) USING (lane, id)
WHERE expires_at <= %(now)s AND holder IS NULL FOR UPDATE OF messages SKIP LOCKED

-- name: sweep
WITH due AS MATERIALIZED (
    SELECT lane, id, due, set_config('synchronous_commit', 'off', true) FROM meshhost.messages
    WHERE NOT ready AND NOT held_back AND due <= %(now)s ORDER BY due LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), swept AS (
    UPDATE meshhost.messages SET ready = true, due = NULL, since = due.due FROM due
    WHERE messages.lane = due.lane AND messages.id = due.id RETURNING messages.lane
)
SELECT swept.lane, tenant, room, name, count(*) FROM swept LEFT JOIN meshhost.queues USING (lane)
GROUP BY swept.lane, tenant, room, name ORDER BY tenant, room, name

-- name: next_due
-- Joined with queues: what a drained or deleted queue left behind is never due.
SELECT least(
    (SELECT due FROM meshhost.messages JOIN meshhost.queues USING (lane) WHERE NOT ready AND NOT held_back ORDER BY due LIMIT 1),
    (SELECT expires_at FROM meshhost.messages JOIN meshhost.queues USING (lane)
    WHERE expires_at IS NOT NULL AND holder IS NULL ORDER BY expires_at LIMIT 1),
    (SELECT wake_at FROM meshhost.starts JOIN meshhost.queues ON queues.id = starts.queue
    WHERE wake_at IS NOT NULL ORDER BY wake_at LIMIT 1)
)

-- name: lock_queue
SELECT id, lane FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s FOR UPDATE

-- name: share_queue
SELECT id, lane FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s FOR KEY SHARE

-- name: settings
SELECT settings::text FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: configure
UPDATE meshhost.queues SET settings = %(settings)s::jsonb WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: key_of
-- One row when there is a queue; without a hash when the message has no key, or has ended.
SELECT coalesce(
    (SELECT key_hash FROM meshhost.messages WHERE messages.lane = queues.lane AND messages.id = %(id)s),
    (SELECT key_hash FROM meshhost.dead_letters WHERE dead_letters.queue = queues.id AND dead_letters.id = %(id)s)
)
FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: lock_message
SELECT holder IS NOT NULL, holder IS NOT NULL AND due > %(now)s FROM meshhost.messages
WHERE lane = %(lane)s AND id = %(id)s FOR UPDATE

-- name: cancel_leased
UPDATE meshhost.messages SET is_cancelled = true WHERE lane = %(lane)s AND id = %(id)s

-- name: cancel_dead
WITH gone AS (
    DELETE FROM meshhost.dead_letters WHERE queue = %(queue)s AND id = %(id)s RETURNING *
), emptied AS (
    DELETE FROM meshhost.contents USING gone WHERE contents.message_id = gone.id
), kept AS (
    INSERT INTO meshhost.outcomes
    (queue, state, id, sent_at, ended_at, forget_at, failures, ended, priority, key, began_at, leased_by, history, reason)
    SELECT
        queue, 'cancelled', gone.id, sent_at, %(wall)s, %(now)s + coalesce(result_ttl, %(default_ttl)s), failures, ended, priority,
        key, began_at, leased_by, history, reason
    FROM gone JOIN meshhost.queues ON queues.id = gone.queue WHERE coalesce(result_ttl, %(default_ttl)s) > 0
)
SELECT FROM gone

-- name: outcome
SELECT state FROM meshhost.outcomes
WHERE queue = %(queue)s AND state IN ('done', 'cancelled', 'expired') AND id = %(id)s AND forget_at > %(now)s

-- name: new_lane
UPDATE meshhost.queues SET lane = nextval(pg_get_serial_sequence('meshhost.queues', 'lane')) WHERE id = %(queue)s

-- name: delete_queue
DELETE FROM meshhost.queues WHERE id = %(queue)s

-- name: drop_lane
INSERT INTO meshhost.dropped_lanes (lane, queue) VALUES (%(lane)s, %(queue)s) ON CONFLICT DO NOTHING

-- name: depth
SELECT (SELECT count(*) FROM meshhost.messages WHERE messages.lane = queues.lane), max_depth
FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s

-- name: dropped_lanes
SELECT lane, queue FROM meshhost.dropped_lanes FOR UPDATE SKIP LOCKED LIMIT 1

-- name: delete_some_messages
WITH doomed AS MATERIALIZED (
    SELECT id FROM meshhost.messages WHERE lane = %(lane)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), emptied AS (
    DELETE FROM meshhost.contents USING doomed WHERE contents.message_id = doomed.id
)
DELETE FROM meshhost.messages USING doomed WHERE messages.lane = %(lane)s AND messages.id = doomed.id

-- name: delete_some_dead_letters
WITH doomed AS MATERIALIZED (
    SELECT id FROM meshhost.dead_letters WHERE queue = %(queue)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), emptied AS (
    DELETE FROM meshhost.contents USING doomed WHERE contents.message_id = doomed.id
)
DELETE FROM meshhost.dead_letters USING doomed WHERE dead_letters.id = doomed.id

-- name: delete_some_outcomes
DELETE FROM meshhost.outcomes WHERE queue = %(queue)s AND (state, id) IN (
    SELECT state, id FROM meshhost.outcomes WHERE queue = %(queue)s LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)

-- name: forget_dropped_lane
DELETE FROM meshhost.dropped_lanes WHERE lane = %(lane)s AND queue = %(queue)s

-- name: stats
-- overview.py adds which queues, and their order.
SELECT
    tenant, room, queues.name,
    fresh.count + waiting.expired, waiting.leased, waiting.delayed,
    (SELECT count(*) FROM meshhost.dead_letters WHERE queue = queues.id),
    (SELECT sent_at FROM meshhost.messages WHERE messages.lane = queues.lane ORDER BY messages.id LIMIT 1),
    (SELECT count(*) FROM meshhost.messages WHERE messages.lane = queues.lane AND held_back),
    is_paused
FROM meshhost.queues
CROSS JOIN LATERAL (
    SELECT count(*) FROM meshhost.messages WHERE messages.lane = queues.lane AND ready AND NOT held_back
) AS fresh
CROSS JOIN LATERAL (
    SELECT
        count(*) FILTER (WHERE due <= %(now)s) AS expired,
        count(*) FILTER (WHERE due > %(now)s AND holder IS NOT NULL) AS leased,
        count(*) FILTER (WHERE due > %(now)s AND holder IS NULL) AS delayed
    FROM meshhost.messages WHERE messages.lane = queues.lane AND NOT ready AND NOT held_back
) AS waiting

-- name: rooms_with_work
-- Of all rooms, or of one. Each queue is asked two questions that an index answers with one row; leases are collected once.
SELECT DISTINCT tenant, room FROM meshhost.queues
WHERE (%(tenant)s::text IS NULL OR (tenant = %(tenant)s AND room = %(room)s)) AND (
    NOT is_paused AND EXISTS (
        SELECT FROM meshhost.messages WHERE messages.lane = queues.lane AND ready AND NOT held_back
    )
    OR NOT is_paused AND EXISTS (
        SELECT FROM meshhost.messages
        WHERE messages.lane = queues.lane AND NOT ready AND NOT held_back AND num_nonnulls(holder) = 0 AND due <= %(soon)s
    )
    OR lane IN (SELECT messages.lane FROM meshhost.messages WHERE holder IS NOT NULL)
)
ORDER BY tenant, room

-- name: rooms_of
SELECT DISTINCT room FROM meshhost.queues WHERE tenant = %(tenant)s ORDER BY room

-- name: totals
-- Without the messages and dead letters that are being deleted.
SELECT
    count(*) FILTER (WHERE NOT held_back AND (ready OR due <= %(now)s)),
    count(*) FILTER (WHERE NOT held_back AND due > %(now)s AND holder IS NOT NULL),
    count(*) FILTER (WHERE NOT held_back AND due > %(now)s AND holder IS NULL),
    (SELECT count(*) FROM meshhost.dead_letters WHERE queue IN (SELECT id FROM meshhost.queues)),
    min(sent_at),
    count(*) FILTER (WHERE held_back),
    false
FROM meshhost.messages WHERE lane IN (SELECT queues.lane FROM meshhost.queues)

-- name: of_tenant
SELECT count(*), coalesce(sum(living.count + dead.count), 0)::bigint
FROM meshhost.queues
CROSS JOIN LATERAL (SELECT count(*) FROM meshhost.messages WHERE messages.lane = queues.lane) AS living
CROSS JOIN LATERAL (SELECT count(*) FROM meshhost.dead_letters WHERE dead_letters.queue = queues.id) AS dead
WHERE tenant = %(tenant)s

-- name: drop_some_queues
WITH doomed AS MATERIALIZED (
    SELECT id, lane FROM meshhost.queues
    WHERE tenant = %(tenant)s AND (%(room)s::text IS NULL OR room = %(room)s::text) LIMIT %(limit)s FOR UPDATE
), dropped AS (
    INSERT INTO meshhost.dropped_lanes (lane, queue) SELECT lane, id FROM doomed ON CONFLICT DO NOTHING
)
DELETE FROM meshhost.queues USING doomed WHERE queues.id = doomed.id RETURNING queues.room, queues.name

-- name: stored_page
-- One row without an id when there is none; no row when there is no queue. The size of a body is known without reading it.
WITH target AS MATERIALIZED (
    SELECT id, lane FROM meshhost.queues WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s
), page AS MATERIALIZED (
    (SELECT
        id, sent_at, failures, interruptions, ended, CASE WHEN holder IS NULL THEN due END AS due, NULL::bytea AS reason,
        NULL::float8 AS died_at, priority, key, expires_at
    FROM meshhost.messages WHERE lane = (SELECT lane FROM target) AND id > %(after)s ORDER BY id LIMIT %(limit)s)
    UNION ALL
    (SELECT id, sent_at, failures, 0, ended, NULL, reason, died_at, priority, key, NULL
    FROM meshhost.dead_letters WHERE queue = (SELECT id FROM target) AND id > %(after)s ORDER BY id LIMIT %(limit)s)
    ORDER BY id LIMIT %(limit)s
), sized AS MATERIALIZED (
    SELECT page.*, sum(octet_length(body)) OVER (ORDER BY id) - octet_length(body) AS before
    FROM page JOIN meshhost.contents ON message_id = id
)
SELECT sized.id, body, headers, sent_at, failures, interruptions, ended, due, reason, died_at, priority, key, expires_at
FROM target LEFT JOIN (sized JOIN meshhost.contents ON message_id = sized.id AND before < %(max_bytes)s) ON true
ORDER BY sized.id

-- name: restore
-- With messages of keys it runs under their locks.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(
        %(bodies)s::bytea[], %(headers)s::bytea[], %(sent)s::float8[], %(attempts)s::int[], %(interruptions)s::int[],
        %(deliveries)s::int[], %(dues)s::float8[], %(reasons)s::bytea[], %(died)s::float8[], %(priorities)s::smallint[],
        %(keys)s::bytea[], %(key_hashes)s::bigint[], %(expiries)s::float8[]
    ) WITH ORDINALITY AS message (
        body, headers, sent_at, failures, interruptions, ended, due, reason, died_at, priority, key, key_hash, expires_at, ord
    )
), target AS MATERIALIZED (
    SELECT id AS queue, lane FROM meshhost.queues
    WHERE tenant = %(tenant)s AND room = %(room)s AND name = %(name)s FOR KEY SHARE
), numbered AS MATERIALIZED (
    SELECT nextval('meshhost.message_ids') AS id, * FROM input CROSS JOIN target ORDER BY ord
), kept AS (
    INSERT INTO meshhost.contents (message_id, body, headers) SELECT id, body, headers FROM numbered
), dead AS (
    INSERT INTO meshhost.dead_letters (id, queue, sent_at, failures, ended, token, reason, died_at, priority, key, key_hash)
    SELECT id, queue, sent_at, failures, ended, 0, coalesce(reason, ''), died_at, priority, key, key_hash
    FROM numbered WHERE died_at IS NOT NULL
), alive AS (
    INSERT INTO meshhost.messages
    (id, lane, sent_at, failures, interruptions, ended, ready, due, priority, key, key_hash, expires_at, held_back)
    SELECT
        id, lane, sent_at, failures, interruptions, ended, due IS NULL, due, priority, key, key_hash, expires_at,
        key_hash IS NOT NULL AND (
            row_number() OVER (PARTITION BY key_hash, key ORDER BY ord) > 1 OR EXISTS (
                SELECT FROM meshhost.messages
                WHERE messages.lane = numbered.lane AND messages.key_hash = numbered.key_hash AND messages.key = numbered.key
            )
        )
    FROM numbered WHERE died_at IS NULL
)
SELECT count(*) FROM numbered

-- name: referred
-- As the indexes of the large ones say it.
SELECT substring(body FROM 2 FOR 32) FROM meshhost.contents
WHERE substring(body FROM 1 FOR 1) = '\x40'::bytea AND substring(body FROM 2 FOR 32) = ANY(%(names)s::bytea[])
UNION
SELECT substring(result FROM 2 FOR 32) FROM meshhost.outcomes
WHERE substring(result FROM 1 FOR 1) = '\x40'::bytea AND substring(result FROM 2 FOR 32) = ANY(%(names)s::bytea[])
