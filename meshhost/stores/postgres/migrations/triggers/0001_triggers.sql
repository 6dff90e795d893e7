-- Schedules and hooks; content is JSON that only meshhost.triggers reads.
CREATE TABLE meshhost.triggers (
    id text COLLATE "C" PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    room text COLLATE "C" NOT NULL,
    content text NOT NULL,
    due_at double precision,
    version bigint NOT NULL
) WITH (fillfactor = 80);

CREATE INDEX triggers_of_room ON meshhost.triggers (tenant, kind, room, id);
CREATE INDEX triggers_due ON meshhost.triggers (kind, due_at, id) WHERE due_at IS NOT NULL;
CREATE INDEX triggers_due_in_room ON meshhost.triggers (tenant, room, kind, due_at) WHERE due_at IS NOT NULL;

-- What happened to each, the newest few.
CREATE TABLE meshhost.trigger_log (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    trigger_id text COLLATE "C" NOT NULL REFERENCES meshhost.triggers (id) ON DELETE CASCADE,
    at double precision NOT NULL,
    content text NOT NULL
);

CREATE INDEX trigger_log_of_trigger ON meshhost.trigger_log (trigger_id, number);
