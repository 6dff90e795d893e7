-- What tenants configured: secrets (encrypted), services and webhooks. `room` is '' for what is for all rooms of the tenant.
CREATE TABLE meshhost.configuration (
    number bigint GENERATED ALWAYS AS IDENTITY,  -- the order in which they were added
    id text COLLATE "C" PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    room text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    content text NOT NULL,
    created_at double precision NOT NULL,
    changed_at double precision NOT NULL,
    version bigint NOT NULL,
    UNIQUE (tenant, kind, room, name)
);

-- What happened to each, the newest few.
CREATE TABLE meshhost.configuration_log (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    item_id text COLLATE "C" NOT NULL REFERENCES meshhost.configuration (id) ON DELETE CASCADE,
    at double precision NOT NULL,
    content text NOT NULL
);

CREATE INDEX configuration_log_of_item ON meshhost.configuration_log (item_id, number);

-- One row. Whoever changes an item counts it up in the same transaction, which makes these changes wait for each other: so a
-- version that a server has read never stands for a state that another is still committing.
CREATE TABLE meshhost.configuration_version (
    version bigint NOT NULL
) WITH (fillfactor = 10);

INSERT INTO meshhost.configuration_version (version) VALUES (1);

CREATE FUNCTION meshhost.count_configuration_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE meshhost.configuration_version SET version = version + 1;
    RETURN NULL;
END $$;

CREATE TRIGGER configuration_changed AFTER INSERT OR UPDATE OR DELETE ON meshhost.configuration
FOR EACH STATEMENT EXECUTE FUNCTION meshhost.count_configuration_version();
