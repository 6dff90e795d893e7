-- The senders' ids of messages sent lately, so that one that is sent again is stored once. A row outlives its message and its queue:
-- ids of queues are never given again. Bytes, as text may not hold NUL.
CREATE TABLE meshhost.sent_ids (
    queue bigint NOT NULL,
    sender_id bytea NOT NULL,
    message_id bigint NOT NULL,
    forget_at double precision NOT NULL,
    PRIMARY KEY (queue, sender_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX sent_ids_old ON meshhost.sent_ids (forget_at);

-- One row, written to prove that something can be.
CREATE TABLE meshhost.checks (
    id integer PRIMARY KEY,
    checked_at double precision NOT NULL
) WITH (fillfactor = 50);
