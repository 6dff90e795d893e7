-- The statements of queues.py, by name.

-- name: find_queue
SELECT id, depth FROM queues WHERE tenant = :tenant AND room = :room AND name = :name;

-- name: create_queue
INSERT INTO queues (tenant, room, name) VALUES (:tenant, :room, :name) ON CONFLICT DO NOTHING;

-- name: delete_queue
DELETE FROM queues WHERE id = :queue;

-- name: first_id
SELECT ifnull(first_id, id) FROM queues WHERE id = :queue;

-- name: recreate_queue
INSERT INTO queues (tenant, room, name, first_id) VALUES (:tenant, :room, :name, :first);

-- name: change_depth
UPDATE queues SET depth = depth + :change WHERE id = :queue;

-- name: add_message
INSERT INTO messages (queue_id, sent_at) VALUES (:queue, :now);

-- name: add_content
INSERT INTO contents (message_id, body, headers) VALUES (:id, :body, :headers);

-- name: find_sent
-- By the id that the queue was made with: a drain gives it another one, and forgets none of its senders' ids.
SELECT message_id FROM sent_ids
WHERE queue_id = (SELECT ifnull(first_id, id) FROM queues WHERE id = :queue) AND sender_id = :sender_id AND forget_at > :now;

-- name: remember_sent
-- Replaces one that is to be forgotten but was not deleted yet.
INSERT OR REPLACE INTO sent_ids (queue_id, sender_id, message_id, forget_at)
SELECT ifnull(first_id, id), :sender_id, :id, :until FROM queues WHERE id = :queue;

-- name: forget_sent
DELETE FROM sent_ids WHERE (queue_id, sender_id) IN (
    SELECT queue_id, sender_id FROM sent_ids INDEXED BY sent_ids_old WHERE forget_at <= :now ORDER BY forget_at LIMIT :limit
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

-- name: claim
UPDATE messages
SET ready = 0, due = :until, token = token + 1, ended = ended + (holder IS NOT NULL),
    interruptions = interruptions + (holder IS NOT NULL), holder = :holder
WHERE id IN (
    SELECT id FROM messages INDEXED BY messages_in_order WHERE queue_id = :queue AND ready = 1 ORDER BY id LIMIT :limit
)
RETURNING id, token, failures, ended, sent_at, interruptions;

-- name: find_leased
SELECT messages.queue_id AS queue, messages.failures, messages.interruptions
FROM messages JOIN queues ON queues.id = messages.queue_id
WHERE messages.id = :id AND messages.token = :token AND messages.holder = :holder
AND queues.tenant = :tenant AND queues.room = :room AND queues.name = :name;

-- name: delete_message
DELETE FROM messages WHERE id = :id;

-- name: give_back
UPDATE messages
SET holder = NULL, due = :due, ready = (:due IS NULL), failures = failures + :failed, ended = ended + :counted,
    interruptions = interruptions + :interrupted
WHERE id = :id;

-- name: bury
INSERT INTO dead_letters (id, queue_id, sent_at, failures, ended, token, reason, died_at)
SELECT
    messages.id, ifnull(queues.first_id, queues.id), sent_at, failures + :failed, ended + :counted, token, :reason, :now
FROM messages JOIN queues ON queues.id = messages.queue_id WHERE messages.id = :id;

-- name: extend
UPDATE messages SET due = :until, ready = 0 WHERE id = :id;

-- name: queues_of_holder
SELECT DISTINCT queues.tenant, queues.room, queues.name
FROM messages JOIN queues ON queues.id = messages.queue_id
WHERE messages.holder = :holder
ORDER BY queues.tenant, queues.room, queues.name;

-- name: release_holder
UPDATE messages
SET holder = NULL, due = NULL, ready = 1, ended = ended + :counted, interruptions = interruptions + :interrupted
WHERE holder = :holder;

-- name: poisoned_of_holder
SELECT messages.id, messages.queue_id, queues.tenant, queues.room, queues.name
FROM messages JOIN queues ON queues.id = messages.queue_id
WHERE messages.holder = :holder AND messages.interruptions >= :most;

-- name: shorten_holder
UPDATE messages SET due = min(due, :soon) WHERE holder = :holder AND due IS NOT NULL;

-- name: sweep
UPDATE messages SET due = NULL, ready = 1
WHERE id IN (SELECT id FROM messages INDEXED BY messages_due WHERE due <= :now LIMIT :limit)
RETURNING queue_id;

-- name: queues_of_ids
SELECT tenant, room, name FROM queues WHERE id IN (SELECT value FROM json_each(:ids));

-- name: move_dues
UPDATE messages SET due = due + :seconds WHERE due IS NOT NULL;

-- name: move_sent_ids
UPDATE sent_ids SET forget_at = forget_at + :seconds;

-- name: bound_leases
UPDATE messages SET due = :latest WHERE due > :latest AND holder IS NOT NULL;

-- name: bound_delays
UPDATE messages SET due = :latest WHERE due > :latest;

-- name: bound_sent_ids
UPDATE sent_ids SET forget_at = :latest WHERE forget_at > :latest;

-- name: next_due
-- What is being deleted is never due.
SELECT due FROM messages INDEXED BY messages_due
WHERE due IS NOT NULL AND queue_id IN (SELECT id FROM queues) ORDER BY due LIMIT 1;

-- name: stats
SELECT
    name,
    depth,
    (SELECT count(*) FROM messages WHERE queue_id = queues.id AND ready = 0 AND due > :now) AS waiting,
    (SELECT count(holder) FROM messages WHERE queue_id = queues.id AND ready = 0 AND due > :now) AS leased,
    (SELECT count(*) FROM dead_letters WHERE queue_id = ifnull(queues.first_id, queues.id)) AS dead,
    (
        SELECT sent_at FROM messages WHERE id = min(
            ifnull((SELECT min(id) FROM messages WHERE queue_id = queues.id AND ready = 0), 9223372036854775807),
            ifnull((SELECT min(id) FROM messages WHERE queue_id = queues.id AND ready = 1), 9223372036854775807)
        )
    ) AS oldest
FROM queues WHERE tenant = :tenant AND room = :room ORDER BY name;

-- name: rooms_with_work
-- Each queue is asked three questions that an index answers with one row; the leases are collected once.
SELECT DISTINCT tenant, room FROM queues
WHERE depth > 0 AND (
    EXISTS (SELECT 1 FROM messages INDEXED BY messages_in_order WHERE queue_id = queues.id AND ready = 1)
    OR EXISTS (SELECT 1 FROM messages INDEXED BY messages_waiting WHERE queue_id = queues.id AND ready = 0 AND due <= :soon)
    OR id IN (SELECT queue_id FROM messages INDEXED BY messages_held WHERE holder IS NOT NULL)
)
ORDER BY tenant, room;

-- name: room_with_work
SELECT DISTINCT tenant, room FROM queues
WHERE tenant = :tenant AND room = :room AND depth > 0 AND (
    EXISTS (SELECT 1 FROM messages INDEXED BY messages_in_order WHERE queue_id = queues.id AND ready = 1)
    OR EXISTS (SELECT 1 FROM messages INDEXED BY messages_waiting WHERE queue_id = queues.id AND ready = 0 AND due <= :soon)
    OR id IN (SELECT queue_id FROM messages INDEXED BY messages_held WHERE holder IS NOT NULL)
);

-- name: rooms_of
SELECT DISTINCT room FROM queues WHERE tenant = :tenant ORDER BY room;

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
    (SELECT count(*) FROM dead_letters WHERE queue_id IN (SELECT ifnull(first_id, id) FROM queues)),
    (SELECT sent_at FROM messages WHERE queue_id IN (SELECT id FROM queues) ORDER BY id LIMIT 1);

-- name: stored_page
-- In three parts, as each has an index of its own.
SELECT * FROM (
    SELECT id, sent_at, failures, interruptions, ended, NULL AS due, NULL AS reason, NULL AS died_at
    FROM messages WHERE queue_id = :queue AND ready = 1 AND id > :after ORDER BY id LIMIT :limit
) UNION ALL SELECT * FROM (
    SELECT id, sent_at, failures, interruptions, ended, CASE WHEN holder IS NULL THEN due END, NULL, NULL
    FROM messages WHERE queue_id = :queue AND ready = 0 AND id > :after ORDER BY id LIMIT :limit
) UNION ALL SELECT * FROM (
    SELECT id, sent_at, failures, 0, ended, NULL, reason, died_at
    FROM dead_letters INDEXED BY dead_letters_by_id WHERE queue_id = :first AND id > :after ORDER BY id LIMIT :limit
) ORDER BY 1 LIMIT :limit;

-- name: restore_message
INSERT INTO messages (queue_id, sent_at, failures, interruptions, ended, due, ready)
VALUES (:queue, :sent_at, :failures, :interruptions, :ended, :due, :due IS NULL);

-- name: of_tenant
-- Both sums read indexes only; the second one is over the tenant's dead letters.
SELECT
    count(*),
    ifnull(sum(depth), 0) + (
        SELECT count(*) FROM dead_letters
        WHERE queue_id IN (SELECT ifnull(mine.first_id, mine.id) FROM queues AS mine WHERE mine.tenant = :tenant)
    )
FROM queues WHERE tenant = :tenant;
