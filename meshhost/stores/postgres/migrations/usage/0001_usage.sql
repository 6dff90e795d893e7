-- One row per UTC hour and (tenant, room, identity, model); the meters of all servers add to it.
CREATE TABLE meshhost.usage (
    tenant text COLLATE "C" NOT NULL,
    hour bigint NOT NULL,
    room text COLLATE "C" NOT NULL,
    identity text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    seconds double precision NOT NULL,
    unmeasured bigint NOT NULL,
    PRIMARY KEY (tenant, hour, room, identity, model)
) WITH (fillfactor = 80);
