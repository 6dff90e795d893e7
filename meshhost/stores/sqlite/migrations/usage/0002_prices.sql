-- The price in force becomes a part of the key. '' stands for none, as of everything that was used before.
CREATE TABLE priced_usage (
    tenant TEXT NOT NULL,
    hour INTEGER NOT NULL,
    room TEXT NOT NULL,
    identity TEXT NOT NULL,
    model TEXT NOT NULL,
    price TEXT NOT NULL,
    requests INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    seconds REAL NOT NULL,
    unmeasured INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    PRIMARY KEY (tenant, hour, room, identity, model, price)
) STRICT, WITHOUT ROWID;

INSERT INTO priced_usage
SELECT tenant, hour, room, identity, model, '', requests, input_tokens, cached_tokens, output_tokens, seconds, unmeasured, 0
FROM usage;

DROP TABLE usage;

ALTER TABLE priced_usage RENAME TO usage;
