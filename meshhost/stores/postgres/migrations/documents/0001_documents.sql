CREATE TABLE meshhost.documents (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text COLLATE "C" NOT NULL,
    room text COLLATE "C" NOT NULL,
    path text COLLATE "C" NOT NULL,
    snapshot bytea NOT NULL,
    created_at double precision NOT NULL,
    updated_at double precision NOT NULL,
    UNIQUE (tenant, room, path)
) WITH (fillfactor = 80);

-- Edits since the snapshot, in the order in which they were taken.
CREATE TABLE meshhost.document_updates (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document bigint NOT NULL REFERENCES meshhost.documents (id),
    content bytea NOT NULL
);

CREATE INDEX document_updates_in_order ON meshhost.document_updates (document, id);
