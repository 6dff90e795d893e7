-- The limits that the operator set for single tenants, by the names of ServerQuota; NULL is no limit.
CREATE TABLE meshhost.tenant_quotas (
    project_id text COLLATE "C" NOT NULL REFERENCES meshhost.projects (id) ON DELETE CASCADE,
    name text COLLATE "C" NOT NULL,
    value double precision,
    PRIMARY KEY (project_id, name)
);

-- Servers read limits and names of tenants with the keys, whose version therefore changes with them.
CREATE TRIGGER quotas_changed AFTER INSERT OR UPDATE OR DELETE ON meshhost.tenant_quotas
FOR EACH STATEMENT EXECUTE FUNCTION meshhost.count_key_version();

CREATE TRIGGER renamed AFTER UPDATE OF name ON meshhost.projects
FOR EACH STATEMENT EXECUTE FUNCTION meshhost.count_key_version();
