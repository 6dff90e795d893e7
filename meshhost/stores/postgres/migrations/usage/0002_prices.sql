-- The price in force becomes a part of the key. '' stands for none, as of everything that was used before.
ALTER TABLE meshhost.usage
    ADD COLUMN price text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN cache_write_tokens bigint NOT NULL DEFAULT 0,
    DROP CONSTRAINT usage_pkey,
    ADD PRIMARY KEY (tenant, hour, room, identity, model, price);
