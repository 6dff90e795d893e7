-- What the rates of a queue allow (stores/rates.py): `until` is the time until which the starts so far are paid for. One row for the
-- queue, with an empty key, and one for each key that was started lately: 'k' and the key. `wake_at`: a claim wanted more, and the
-- rate allows another start then. `put_off`: the `due` of the key's message that would have been started before its time.
CREATE TABLE meshhost.starts (
    queue bigint NOT NULL,
    key bytea NOT NULL,
    until double precision NOT NULL,
    wake_at double precision,
    put_off double precision,
    PRIMARY KEY (queue, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);

CREATE INDEX starts_waking ON meshhost.starts (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX starts_old ON meshhost.starts (until);

-- Such a queue hands out messages under a lock of its own.
ALTER TABLE meshhost.queues ADD COLUMN is_limited boolean NOT NULL GENERATED ALWAYS AS (
    num_nonnulls(settings ->> 'concurrency', settings ->> 'rate', settings ->> 'key_rate') > 0
) STORED;
