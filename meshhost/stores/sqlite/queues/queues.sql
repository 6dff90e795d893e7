-- The statements of the queue store, by name. `:first` is the id that the queue was made with.

-- name: find_queue
SELECT id, depth, ifnull(first_id, id), settings FROM queues WHERE tenant = :tenant AND room = :room AND name = :name;

-- name: create_queue
INSERT INTO queues (tenant, room, name) VALUES (:tenant, :room, :name) ON CONFLICT DO NOTHING;

-- name: delete_queue
DELETE FROM queues WHERE id = :queue;

-- name: recreate_queue
INSERT INTO queues (tenant, room, name, first_id, settings) VALUES (:tenant, :room, :name, :first, :settings);

-- name: configure
UPDATE queues SET settings = :settings WHERE id = :queue;

-- name: change_depth
UPDATE queues SET depth = depth + :change WHERE id = :queue;

-- name: add_message
INSERT INTO messages (queue_id, sent_at, ready, due, delayed_until, priority, key, expires_at)
VALUES (:queue, :now, :ready, :due, :delayed_until, :priority, :key, :expires_at);

-- name: add_plain_message
INSERT INTO messages (queue_id, sent_at) VALUES (:queue, :now);

-- name: add_content
INSERT INTO contents (message_id, body, headers) VALUES (:id, :body, :headers);

-- name: has_key
SELECT 1 FROM messages INDEXED BY messages_of_key WHERE queue_id = :queue AND key = :key LIMIT 1;

-- name: let_follow
-- The first one left of the key is held back no longer.
UPDATE messages
SET ready = (delayed_until IS NULL OR delayed_until <= :now), due = delayed_until, delayed_until = NULL
WHERE id = (
    SELECT id FROM messages INDEXED BY messages_of_key WHERE queue_id = :queue AND key = :key ORDER BY id LIMIT 1
);

-- name: find_sent
-- By the id that the queue was made with: a drain gives it another one, and forgets none of its senders' ids.
SELECT message_id FROM sent_ids WHERE queue_id = :first AND sender_id = :sender_id AND forget_at > :now;

-- name: remember_sent
-- Replaces one that is to be forgotten but was not deleted yet.
INSERT OR REPLACE INTO sent_ids (queue_id, sender_id, message_id, forget_at) VALUES (:first, :sender_id, :id, :until);

-- name: forget_sent
DELETE FROM sent_ids WHERE (queue_id, sender_id) IN (
    SELECT queue_id, sender_id FROM sent_ids INDEXED BY sent_ids_old WHERE forget_at <= :now ORDER BY forget_at LIMIT :limit
);

-- name: forget_outcomes
DELETE FROM outcomes WHERE id IN (
    SELECT id FROM outcomes INDEXED BY outcomes_old WHERE forget_at <= :now ORDER BY forget_at LIMIT :limit
);

-- name: find_content
SELECT body, headers FROM contents WHERE message_id = :id;

-- name: delete_content
DELETE FROM contents WHERE message_id = :id;

-- name: promote
-- Each message passes here at most once per lease or retry, so leasing stays O(log n) on average.
UPDATE messages SET ready = 1 WHERE id IN (
    SELECT id FROM messages INDEXED BY messages_waiting WHERE queue_id = :queue AND ready = 0 AND due <= :now LIMIT :limit
);

-- name: in_progress
SELECT count(holder) FROM messages INDEXED BY messages_waiting WHERE queue_id = :queue AND ready = 0 AND due > :now;

-- name: first_ready
SELECT
    id, token, failures, ended, interruptions, sent_at, holder IS NOT NULL, priority, key, expires_at, is_cancelled,
    began_at, worker, history, ifnull(due, since), body, headers
FROM messages INDEXED BY messages_in_order CROSS JOIN contents ON contents.message_id = messages.id
WHERE queue_id = :queue AND ready = 1 ORDER BY priority DESC, id LIMIT :limit;

-- name: claim
UPDATE messages
SET ready = 0, due = :until, token = token + 1, holder = :holder, began_at = :now, worker = :worker, progress = NULL
WHERE id IN (SELECT value FROM json_each(:ids));

-- name: note_end
-- A delivery ended without an ack.
UPDATE messages
SET holder = NULL, failures = failures + :failed, ended = ended + 1, interruptions = interruptions + :interrupted,
    history = :history
WHERE id = :id;

-- name: find_leased
SELECT
    messages.queue_id, ifnull(queues.first_id, queues.id), queues.settings, failures, interruptions, key, is_cancelled,
    began_at, worker, history
FROM messages JOIN queues ON queues.id = messages.queue_id
WHERE messages.id = :id AND messages.token = :token AND messages.holder = :holder
AND queues.tenant = :tenant AND queues.room = :room AND queues.name = :name;

-- name: find_plain_leased
-- Of these leases, each [message, token, holder], the present ones of messages without a key.
-- CROSS JOIN keeps this order: a few leases first, then each message by its id, however many the queue has.
SELECT wanted.key, messages.id, messages.queue_id, ifnull(queues.first_id, queues.id), queues.settings
FROM json_each(:leases) AS wanted
CROSS JOIN messages ON messages.id = wanted.value ->> 0
AND messages.token = wanted.value ->> 1 AND messages.holder = wanted.value ->> 2
CROSS JOIN queues ON queues.id = messages.queue_id
WHERE queues.tenant = :tenant AND queues.room = :room AND queues.name = :name AND messages.key IS NULL
GROUP BY messages.id;

-- name: add_done_outcomes
INSERT INTO outcomes (
    id, queue_id, state, sent_at, ended_at, forget_at, failures, ended, priority, key, began_at, worker, history
)
SELECT id, :first, :state, sent_at, :now, :forget_at, failures, ended, priority, key, began_at, worker, history
FROM messages WHERE id IN (SELECT value FROM json_each(:ids));

-- name: delete_contents
DELETE FROM contents WHERE message_id IN (SELECT value FROM json_each(:ids));

-- name: delete_messages
DELETE FROM messages WHERE id IN (SELECT value FROM json_each(:ids));

-- name: delete_message
DELETE FROM messages WHERE id = :id RETURNING ready, key;

-- name: give_back
UPDATE messages SET holder = NULL, due = :due, ready = (:due IS NULL), since = :now WHERE id = :id;

-- name: add_outcome
INSERT INTO outcomes (
    id, queue_id, state, sent_at, ended_at, forget_at, failures, ended, priority, key, began_at, worker, result, history
)
SELECT id, :first, :state, sent_at, :now, :forget_at, failures, ended, priority, key, began_at, worker, :result, history
FROM messages WHERE id = :id;

-- name: add_outcome_of_dead
INSERT INTO outcomes (
    id, queue_id, state, sent_at, ended_at, forget_at, failures, ended, priority, key, began_at, worker, history
)
SELECT id, queue_id, :state, sent_at, :now, :forget_at, failures, ended, priority, key, began_at, worker, history
FROM dead_letters WHERE id = :id;

-- name: bury
INSERT INTO dead_letters (
    id, queue_id, sent_at, failures, ended, token, reason, died_at, priority, key, began_at, worker, history
)
SELECT id, :first, sent_at, failures, ended, token, :reason, :now, priority, key, began_at, worker, history
FROM messages WHERE id = :id;

-- name: delete_dead
DELETE FROM dead_letters WHERE id = :id;

-- name: extend
UPDATE messages SET due = :until, ready = 0, progress = ifnull(:progress, progress) WHERE id = :id;

-- name: queues_of_holder
SELECT DISTINCT queues.tenant, queues.room, queues.name
FROM messages JOIN queues ON queues.id = messages.queue_id
WHERE messages.holder = :holder
ORDER BY queues.tenant, queues.room, queues.name;

-- name: leased_by
SELECT
    messages.id, messages.queue_id, ifnull(queues.first_id, queues.id), queues.settings, failures, interruptions, key,
    is_cancelled, began_at, worker, history, queues.tenant, queues.room, queues.name
FROM messages JOIN queues ON queues.id = messages.queue_id WHERE messages.holder = :holder ORDER BY messages.id;

-- name: shorten_holder
UPDATE messages SET due = min(due, :soon) WHERE holder = :holder AND due IS NOT NULL;

-- name: sweep
UPDATE messages SET due = NULL, ready = 1, since = due
WHERE id IN (SELECT id FROM messages INDEXED BY messages_due WHERE due <= :now LIMIT :limit)
RETURNING queue_id;

-- name: over
-- What is being deleted does not end. Those in progress are looked at again when their leases end.
SELECT messages.id, messages.queue_id, ifnull(queues.first_id, queues.id), queues.settings, tenant, room, name
FROM messages INDEXED BY messages_expiring JOIN queues ON queues.id = messages.queue_id
WHERE messages.expires_at <= :now AND messages.holder IS NULL ORDER BY messages.expires_at LIMIT :limit;

-- name: queues_of_ids
SELECT tenant, room, name FROM queues WHERE id IN (SELECT value FROM json_each(:ids));

-- name: move_dues
UPDATE messages SET due = due + :seconds WHERE due IS NOT NULL;

-- name: move_delays
UPDATE messages SET delayed_until = delayed_until + :seconds WHERE delayed_until IS NOT NULL;

-- name: move_ends
UPDATE messages SET expires_at = expires_at + :seconds WHERE expires_at IS NOT NULL;

-- name: move_sent_ids
UPDATE sent_ids SET forget_at = forget_at + :seconds;

-- name: move_outcomes
UPDATE outcomes SET forget_at = forget_at + :seconds;

-- name: bound_leases
UPDATE messages SET due = :latest WHERE due > :latest AND holder IS NOT NULL;

-- name: bound_delays
UPDATE messages SET due = :latest WHERE due > :latest;

-- name: bound_ends
UPDATE messages SET expires_at = :latest WHERE expires_at > :latest;

-- name: bound_sent_ids
UPDATE sent_ids SET forget_at = :latest WHERE forget_at > :latest;

-- name: bound_outcomes
UPDATE outcomes SET forget_at = :latest WHERE forget_at > :latest;

-- name: next_due
-- What is being deleted is never due.
SELECT due FROM messages INDEXED BY messages_due
WHERE due IS NOT NULL AND queue_id IN (SELECT id FROM queues) ORDER BY due LIMIT 1;

-- name: next_end
SELECT expires_at FROM messages INDEXED BY messages_expiring
WHERE expires_at IS NOT NULL AND holder IS NULL AND queue_id IN (SELECT id FROM queues) ORDER BY expires_at LIMIT 1;

-- name: stats
SELECT
    name,
    depth,
    (SELECT count(*) FROM messages WHERE queue_id = queues.id AND ready = 0 AND due > :now) AS waiting,
    (SELECT count(holder) FROM messages WHERE queue_id = queues.id AND ready = 0 AND due > :now) AS leased,
    (SELECT count(*) FROM messages INDEXED BY messages_in_order WHERE queue_id = queues.id AND ready = 2) AS blocked,
    (SELECT count(*) FROM dead_letters WHERE queue_id = ifnull(queues.first_id, queues.id)) AS dead,
    (SELECT sent_at FROM messages WHERE id = (
        SELECT id FROM messages INDEXED BY messages_by_id WHERE queue_id = queues.id ORDER BY id LIMIT 1
    )) AS oldest,
    settings
FROM queues WHERE tenant = :tenant AND room = :room ORDER BY name;

-- name: rooms_with_work
-- Each queue is asked three questions that an index answers with one row; the leases are collected once.
SELECT DISTINCT tenant, room FROM queues
WHERE depth > 0 AND (
    id IN (SELECT queue_id FROM messages INDEXED BY messages_held WHERE holder IS NOT NULL)
    OR (ifnull(json_extract(settings, '$.paused'), 0) = 0 AND (
        EXISTS (SELECT 1 FROM messages INDEXED BY messages_in_order WHERE queue_id = queues.id AND ready = 1)
        OR EXISTS (SELECT 1 FROM messages INDEXED BY messages_waiting WHERE queue_id = queues.id AND ready = 0 AND due <= :soon)
    ))
)
ORDER BY tenant, room;

-- name: room_with_work
SELECT DISTINCT tenant, room FROM queues
WHERE tenant = :tenant AND room = :room AND depth > 0 AND (
    id IN (SELECT queue_id FROM messages INDEXED BY messages_held WHERE holder IS NOT NULL)
    OR (ifnull(json_extract(settings, '$.paused'), 0) = 0 AND (
        EXISTS (SELECT 1 FROM messages INDEXED BY messages_in_order WHERE queue_id = queues.id AND ready = 1)
        OR EXISTS (SELECT 1 FROM messages INDEXED BY messages_waiting WHERE queue_id = queues.id AND ready = 0 AND due <= :soon)
    ))
);

-- name: rooms_of
SELECT DISTINCT room FROM queues WHERE tenant = :tenant ORDER BY room;

-- name: rooms
-- Of a tenant, or of all.
SELECT DISTINCT tenant, room FROM queues WHERE :tenant IS NULL OR tenant = :tenant ORDER BY tenant, room;

-- name: totals
-- As stats, over all queues; without what is being deleted. Ids grow in order of acceptance: the oldest has the smallest.
SELECT
    '',
    (SELECT ifnull(sum(depth), 0) FROM queues),
    (SELECT count(*) FROM messages INDEXED BY messages_due WHERE due > :now AND queue_id IN (SELECT id FROM queues)),
    (
        SELECT count(*) FROM messages INDEXED BY messages_held
        WHERE holder IS NOT NULL AND due > :now AND queue_id IN (SELECT id FROM queues)
    ),
    (
        SELECT ifnull(sum((SELECT count(*) FROM messages WHERE queue_id = queues.id AND ready = 2)), 0) FROM queues WHERE depth > 0
    ),
    (SELECT count(*) FROM dead_letters WHERE queue_id IN (SELECT ifnull(first_id, id) FROM queues)),
    (SELECT sent_at FROM messages WHERE queue_id IN (SELECT id FROM queues) ORDER BY id LIMIT 1),
    '{}';

-- name: of_tenant
-- Both sums read indexes only; the second one is over the tenant's dead letters.
SELECT
    count(*),
    ifnull(sum(depth), 0) + (
        SELECT count(*) FROM dead_letters
        WHERE queue_id IN (SELECT ifnull(mine.first_id, mine.id) FROM queues AS mine WHERE mine.tenant = :tenant)
    )
FROM queues WHERE tenant = :tenant;
