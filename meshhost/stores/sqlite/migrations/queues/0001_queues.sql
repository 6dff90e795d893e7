-- Times are seconds since the epoch. AUTOINCREMENT: the id of a deleted row is never given again.

CREATE TABLE queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant TEXT NOT NULL,
    room TEXT NOT NULL,
    name TEXT NOT NULL,
    depth INTEGER NOT NULL DEFAULT 0,  -- its rows in messages: counting a million of them for each send would not do
    UNIQUE (tenant, room, name)
) STRICT;

-- What is not dead. `holder` is the last to lease the message, until that lease is settled, released or taken over.
-- `due` is when time makes the message ready (its lease expires, its retry comes), until `sweep` has reported that.
-- `ready` is 0 while it waits for `due`; a lease of the queue or a sweep after `due` sets it to 1.
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    queue_id INTEGER NOT NULL,
    sent_at REAL NOT NULL,
    failures INTEGER NOT NULL DEFAULT 0,
    ended INTEGER NOT NULL DEFAULT 0,  -- deliveries that ended without an ack
    token INTEGER NOT NULL DEFAULT 0,
    holder TEXT,
    due REAL,
    ready INTEGER NOT NULL DEFAULT 1
) STRICT;

CREATE INDEX messages_in_order ON messages (queue_id, ready);  -- and then by id, as every index
CREATE INDEX messages_waiting ON messages (queue_id, due, holder) WHERE ready = 0;
CREATE INDEX messages_due ON messages (due, queue_id) WHERE due IS NOT NULL;
CREATE INDEX messages_held ON messages (holder) WHERE holder IS NOT NULL;

-- Apart from messages, whose rows change with every lease: a large body is written once.
CREATE TABLE contents (
    message_id INTEGER PRIMARY KEY,
    body TEXT NOT NULL,
    headers TEXT NOT NULL  -- a JSON object
) STRICT;

CREATE TABLE dead_letters (
    id INTEGER PRIMARY KEY,  -- the message's
    queue_id INTEGER NOT NULL,
    sent_at REAL NOT NULL,
    failures INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    token INTEGER NOT NULL,
    reason TEXT NOT NULL,
    died_at REAL NOT NULL
) STRICT;

CREATE INDEX dead_letters_in_order ON dead_letters (queue_id, died_at);
