-- A tenant. `suspended` is why its keys and tokens are refused; NULL when they are not.
CREATE TABLE meshhost.projects (
    id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    suspended text
);

-- The ids of projects that were deleted, or are being deleted: none of them can be added again.
CREATE TABLE meshhost.deleted_projects (
    id text COLLATE "C" PRIMARY KEY
);

CREATE TABLE meshhost.api_keys (
    number bigint GENERATED ALWAYS AS IDENTITY,  -- the order in which they were added
    id text COLLATE "C" PRIMARY KEY,
    project_id text COLLATE "C" NOT NULL,
    secret text NOT NULL,
    name text COLLATE "C" NOT NULL,
    description text NOT NULL,
    role text NOT NULL,
    expires_at double precision
);

CREATE INDEX api_keys_of_project ON meshhost.api_keys (project_id);

-- Apart from api_keys, whose every change makes all servers read all keys again.
CREATE TABLE meshhost.key_uses (
    key_id text COLLATE "C" PRIMARY KEY REFERENCES meshhost.api_keys (id) ON DELETE CASCADE,
    last_used_at double precision NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE meshhost.rooms (
    id text COLLATE "C" PRIMARY KEY,
    project_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    metadata text NOT NULL,
    UNIQUE (project_id, name)
);

-- One row. Whoever changes keys or suspensions counts it up in the same transaction, which makes these changes wait for each
-- other: so a version that a server has read never stands for a state that another is still committing.
CREATE TABLE meshhost.key_version (
    version bigint NOT NULL
) WITH (fillfactor = 10);

INSERT INTO meshhost.key_version (version) VALUES (1);

CREATE FUNCTION meshhost.count_key_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE meshhost.key_version SET version = version + 1;
    RETURN NULL;
END $$;

CREATE TRIGGER keys_changed AFTER INSERT OR UPDATE OR DELETE ON meshhost.api_keys
FOR EACH STATEMENT EXECUTE FUNCTION meshhost.count_key_version();

CREATE TRIGGER suspended AFTER UPDATE OF suspended ON meshhost.projects
FOR EACH STATEMENT EXECUTE FUNCTION meshhost.count_key_version();

CREATE TRIGGER deleted AFTER INSERT ON meshhost.deleted_projects
FOR EACH STATEMENT EXECUTE FUNCTION meshhost.count_key_version();
