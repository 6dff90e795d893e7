-- What the rates of a queue allow (stores/rates.py): `until` is the time until which the starts so far are paid for. One row for the
-- queue, with the key '', and one for each key that was started lately: 'k' and the key. `queue_id` is the one that the queue was
-- made with. `wake_at`: a claim wanted more, and the rate allows another start then. `put_off`: the `due` of the key's message that
-- would have been started before its time.
CREATE TABLE starts (
    queue_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    until REAL NOT NULL,
    wake_at REAL,
    put_off REAL,
    PRIMARY KEY (queue_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX starts_waking ON starts (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX starts_old ON starts (until);
