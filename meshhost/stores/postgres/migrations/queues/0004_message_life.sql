-- Settings of a queue: what differs from the defaults. What statements need of them is beside them.
ALTER TABLE meshhost.queues
    ADD COLUMN settings jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN is_paused boolean NOT NULL GENERATED ALWAYS AS (coalesce((settings ->> 'paused')::boolean, false)) STORED,
    ADD COLUMN concurrency integer GENERATED ALWAYS AS ((settings ->> 'concurrency')::integer) STORED,
    ADD COLUMN max_depth integer GENERATED ALWAYS AS ((settings ->> 'max_depth')::integer) STORED,
    ADD COLUMN result_ttl double precision GENERATED ALWAYS AS ((settings ->> 'result_ttl')::double precision) STORED;
CREATE INDEX queues_by_lane ON meshhost.queues (lane);

-- Bytes where a client's text may hold NUL. `key_hash` stands for the key in the index, however long that is. Of the messages
-- of a key exactly one is not held back; they come and go under an advisory lock (`messages/keys.py`). `expires_at` is on the time line of `due`. `began_at` (wall clock) and `leased_by` (a JSON string) are of
-- the present or last delivery. `history` has a JSON array for each of the last deliveries that ended without an ack: began_at,
-- ended_at, by, reason, error.
ALTER TABLE meshhost.messages
    ADD COLUMN priority smallint NOT NULL DEFAULT 0,
    ADD COLUMN key bytea,
    ADD COLUMN key_hash bigint,
    ADD COLUMN held_back boolean NOT NULL DEFAULT false,
    ADD COLUMN expires_at double precision,
    ADD COLUMN is_cancelled boolean NOT NULL DEFAULT false,
    ADD COLUMN began_at double precision,
    ADD COLUMN leased_by text,
    ADD COLUMN progress bytea,
    ADD COLUMN history text[] NOT NULL DEFAULT '{}',
    ADD CHECK ((key IS NULL) = (key_hash IS NULL));

-- A row is always looked for in its lane. The key has the order for pages of archives and of a search, and for counting.
ALTER TABLE meshhost.messages DROP CONSTRAINT messages_pkey;
ALTER TABLE meshhost.messages ADD PRIMARY KEY (lane, id);
DROP INDEX meshhost.messages_ready, meshhost.messages_waiting, meshhost.messages_due;
CREATE INDEX messages_ready ON meshhost.messages (lane, priority DESC, id) WHERE ready AND NOT held_back;
-- Leased ones apart from delayed ones, so that either can be counted.
CREATE INDEX messages_waiting ON meshhost.messages (lane, num_nonnulls(holder), due) WHERE NOT ready AND NOT held_back;
CREATE INDEX messages_due ON meshhost.messages (due) WHERE NOT ready AND NOT held_back;
CREATE INDEX messages_held_back ON meshhost.messages (lane, id) WHERE held_back;
CREATE INDEX messages_of_key ON meshhost.messages (lane, key_hash, id) WHERE key_hash IS NOT NULL;
CREATE INDEX messages_expiring ON meshhost.messages (expires_at) WHERE expires_at IS NOT NULL AND holder IS NULL;

ALTER TABLE meshhost.dead_letters
    ADD COLUMN priority smallint NOT NULL DEFAULT 0,
    ADD COLUMN key bytea,
    ADD COLUMN key_hash bigint,
    ADD COLUMN began_at double precision,
    ADD COLUMN leased_by text,
    ADD COLUMN history text[] NOT NULL DEFAULT '{}';

-- What is known of messages that ended: done, cancelled or expired.
CREATE TABLE meshhost.outcomes (
    queue bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    id bigint NOT NULL,  -- the message's
    sent_at double precision NOT NULL,
    ended_at double precision NOT NULL,
    forget_at double precision NOT NULL,
    failures integer NOT NULL,
    ended integer NOT NULL,
    priority smallint NOT NULL,
    key bytea,
    began_at double precision,
    leased_by text,
    result bytea,
    reason bytea,  -- of one that was dead before it was cancelled
    history text[] NOT NULL,
    PRIMARY KEY (queue, state, id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX outcomes_old ON meshhost.outcomes (forget_at);

-- A history with one more end of a delivery (the reason and the error as JSON strings), of which the newest are kept.
CREATE FUNCTION meshhost.noted(
    history text[], began_at double precision, ended_at double precision, leased_by text, reason text, error text, most integer
) RETURNS text[] LANGUAGE sql STABLE AS $$
    SELECT (
        history || format('[%s,%s,%s,%s,%s]', coalesce(began_at, ended_at), ended_at, coalesce(leased_by, '""'), reason, error)
    )[cardinality(history) + 2 - most :]
$$;
