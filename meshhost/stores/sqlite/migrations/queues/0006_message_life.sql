-- When and in which order a message is delivered, and what is known of it. A message is held back (`ready` = 2) behind an earlier
-- one of its key; of each key exactly one message, the first, is not. Such a message has no `due`: `delayed_until` is what its
-- `due` will be. `expires_at` is the end of its ttl. `began_at` and `worker` are about the present or last delivery, `history`
-- (JSON, see stores/shared/history.py) about the newest that ended without an ack.
ALTER TABLE messages ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN key TEXT;
ALTER TABLE messages ADD COLUMN delayed_until REAL;
ALTER TABLE messages ADD COLUMN expires_at REAL;
ALTER TABLE messages ADD COLUMN began_at REAL;
ALTER TABLE messages ADD COLUMN worker TEXT;
ALTER TABLE messages ADD COLUMN progress TEXT;
ALTER TABLE messages ADD COLUMN is_cancelled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN history TEXT;

DROP INDEX messages_in_order;
CREATE INDEX messages_in_order ON messages (queue_id, ready, priority DESC);  -- and then by id, as every index
CREATE INDEX messages_by_id ON messages (queue_id);
CREATE INDEX messages_of_key ON messages (queue_id, key) WHERE key IS NOT NULL;
CREATE INDEX messages_expiring ON messages (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE dead_letters ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letters ADD COLUMN key TEXT;
ALTER TABLE dead_letters ADD COLUMN began_at REAL;
ALTER TABLE dead_letters ADD COLUMN worker TEXT;
ALTER TABLE dead_letters ADD COLUMN history TEXT;

-- JSON of what differs from the defaults (stores/queue_settings.py).
ALTER TABLE queues ADD COLUMN settings TEXT NOT NULL DEFAULT '{}';

-- What became of messages that ended, until `forget_at`. `queue_id` is the one that the queue was made with, as for dead letters.
CREATE TABLE outcomes (
    id INTEGER PRIMARY KEY,  -- the message's
    queue_id INTEGER NOT NULL,
    state TEXT NOT NULL,
    sent_at REAL NOT NULL,
    ended_at REAL NOT NULL,
    forget_at REAL NOT NULL,
    failures INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    key TEXT,
    began_at REAL,
    worker TEXT,
    result TEXT,
    history TEXT
) STRICT;

CREATE INDEX outcomes_by_id ON outcomes (queue_id);
CREATE INDEX outcomes_old ON outcomes (forget_at);

-- `dead` of a removal says what is removed: 0 messages, 1 dead letters, 2 outcomes.
