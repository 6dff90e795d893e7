-- The senders' ids of messages sent lately, so that one that is sent again is stored once. A row outlives its message, which
-- may be done before the sender asks again, and its queue: ids of queues are never given again. Clients of ours begin an id with
-- the time, so that the rows of a moment lie side by side.
CREATE TABLE sent_ids (
    queue_id INTEGER NOT NULL,
    sender_id TEXT NOT NULL,
    message_id INTEGER NOT NULL,
    forget_at REAL NOT NULL,
    PRIMARY KEY (queue_id, sender_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX sent_ids_old ON sent_ids (forget_at);
