-- The statements of queues.py, by name.

-- name: find_queue
SELECT id, depth FROM queues WHERE tenant = :tenant AND room = :room AND name = :name;

-- name: create_queue
INSERT INTO queues (tenant, room, name) VALUES (:tenant, :room, :name) ON CONFLICT DO NOTHING;

-- name: delete_queue
DELETE FROM queues WHERE id = :queue;

-- name: change_depth
UPDATE queues SET depth = depth + :change WHERE id = :queue;

-- name: add_message
INSERT INTO messages (queue_id, sent_at) VALUES (:queue, :now);

-- name: add_content
INSERT INTO contents (message_id, body, headers) VALUES (:id, :body, :headers);

-- name: find_content
SELECT body, headers FROM contents WHERE message_id = :id;

-- name: delete_content
DELETE FROM contents WHERE message_id = :id;

-- name: promote
-- Each message passes here at most once per lease or retry, so leasing stays O(log n) on average.
UPDATE messages INDEXED BY messages_waiting SET ready = 1 WHERE queue_id = :queue AND ready = 0 AND due <= :now;

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
SELECT id, queue_id, sent_at, failures + :failed, ended + :counted, token, :reason, :now FROM messages WHERE id = :id;

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

-- name: queues_due
SELECT DISTINCT queues.tenant, queues.room, queues.name
FROM messages JOIN queues ON queues.id = messages.queue_id
WHERE messages.due <= :now
ORDER BY queues.tenant, queues.room, queues.name;

-- name: sweep
UPDATE messages SET due = NULL, ready = 1 WHERE due <= :now;

-- name: next_due
SELECT min(due) FROM messages WHERE due IS NOT NULL;

-- name: drain_contents
DELETE FROM contents WHERE message_id IN (SELECT id FROM messages WHERE queue_id = :queue);

-- name: drain_messages
DELETE FROM messages WHERE queue_id = :queue;

-- name: delete_dead_contents
DELETE FROM contents WHERE message_id IN (SELECT id FROM dead_letters WHERE queue_id = :queue);

-- name: delete_dead_letters
DELETE FROM dead_letters WHERE queue_id = :queue;

-- name: stats
SELECT
    name,
    depth,
    (SELECT count(*) FROM messages WHERE queue_id = queues.id AND ready = 0 AND due > :now) AS waiting,
    (SELECT count(holder) FROM messages WHERE queue_id = queues.id AND ready = 0 AND due > :now) AS leased,
    (SELECT count(*) FROM dead_letters WHERE queue_id = queues.id) AS dead,
    (
        SELECT sent_at FROM messages WHERE id = min(
            ifnull((SELECT min(id) FROM messages WHERE queue_id = queues.id AND ready = 0), 9223372036854775807),
            ifnull((SELECT min(id) FROM messages WHERE queue_id = queues.id AND ready = 1), 9223372036854775807)
        )
    ) AS oldest
FROM queues WHERE tenant = :tenant AND room = :room ORDER BY name;

-- name: of_tenant
-- Both sums read indexes only; the second one is over the tenant's dead letters.
SELECT
    count(*),
    ifnull(sum(depth), 0) + (
        SELECT count(*) FROM dead_letters
        WHERE queue_id IN (SELECT id FROM queues AS mine WHERE mine.tenant = :tenant)
    )
FROM queues WHERE tenant = :tenant;

-- name: dead_letters
SELECT dead.id, contents.body, contents.headers, dead.failures, dead.reason, dead.sent_at, dead.died_at
FROM dead_letters AS dead JOIN contents ON contents.message_id = dead.id
WHERE dead.queue_id = :queue ORDER BY dead.died_at DESC, dead.id DESC LIMIT :limit;

-- name: replay
INSERT INTO messages (id, queue_id, sent_at, ended, token)
SELECT id, queue_id, sent_at, ended, token FROM dead_letters
WHERE queue_id = :queue AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)));

-- name: forget_replayed
DELETE FROM dead_letters
WHERE queue_id = :queue AND (:ids IS NULL OR id IN (SELECT value FROM json_each(:ids)));
