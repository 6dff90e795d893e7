-- The statements of documents.py, by name.

-- name: find
SELECT id, snapshot FROM meshhost.documents WHERE tenant = %(tenant)s AND room = %(room)s AND path = %(path)s

-- name: entry
SELECT path, created_at, updated_at FROM meshhost.documents
WHERE tenant = %(tenant)s AND room = %(room)s AND path = %(path)s

-- name: entries
SELECT path, created_at, updated_at FROM meshhost.documents
WHERE tenant = %(tenant)s AND room = %(room)s AND starts_with(path, %(prefix)s)
ORDER BY path

-- name: entries_from
SELECT path, created_at, updated_at FROM meshhost.documents
WHERE tenant = %(tenant)s AND room = %(room)s AND path >= %(path)s
ORDER BY path LIMIT %(limit)s

-- name: count
SELECT count(*) FROM meshhost.documents WHERE tenant = %(tenant)s

-- name: create
INSERT INTO meshhost.documents (tenant, room, path, snapshot, created_at, updated_at)
VALUES (%(tenant)s, %(room)s, %(path)s, %(snapshot)s, %(now)s, %(now)s)
ON CONFLICT DO NOTHING

-- name: load
-- One statement, hence one view of both tables: a `compact` in between is seen wholly or not at all.
SELECT documents.snapshot, document_updates.content
FROM meshhost.documents LEFT JOIN meshhost.document_updates ON document_updates.document = documents.id
WHERE tenant = %(tenant)s AND room = %(room)s AND path = %(path)s
ORDER BY document_updates.id

-- name: append
-- Many updates of many documents, in the order in which they were made.
WITH input AS MATERIALIZED (
    SELECT * FROM unnest(%(tenants)s::text[], %(rooms)s::text[], %(paths)s::text[], %(contents)s::bytea[])
        WITH ORDINALITY AS edit (tenant, room, path, content, ord)
), touched AS (
    UPDATE meshhost.documents SET updated_at = %(now)s
    FROM (SELECT DISTINCT tenant, room, path FROM input) AS named
    WHERE documents.tenant = named.tenant AND documents.room = named.room AND documents.path = named.path
    RETURNING documents.id, documents.tenant, documents.room, documents.path
), added AS (
    INSERT INTO meshhost.document_updates (document, content)
    SELECT touched.id, content FROM input JOIN touched USING (tenant, room, path) ORDER BY ord
)
SELECT ord FROM input JOIN touched USING (tenant, room, path)

-- name: compact
WITH document AS (
    UPDATE meshhost.documents SET updated_at = %(now)s, snapshot = %(snapshot)s
    WHERE tenant = %(tenant)s AND room = %(room)s AND path = %(path)s RETURNING id
), emptied AS (
    DELETE FROM meshhost.document_updates USING document WHERE document_updates.document = document.id
)
SELECT id FROM document

-- name: lock
SELECT id FROM meshhost.documents
WHERE tenant = %(tenant)s AND room = %(room)s AND path = %(path)s FOR UPDATE

-- name: delete_updates
DELETE FROM meshhost.document_updates WHERE document = %(document)s

-- name: delete
DELETE FROM meshhost.documents WHERE id = %(document)s

-- name: lock_some
SELECT id FROM meshhost.documents
WHERE tenant = %(tenant)s AND (%(room)s::text IS NULL OR room = %(room)s::text) LIMIT %(limit)s FOR UPDATE

-- name: delete_some_updates
DELETE FROM meshhost.document_updates WHERE document = ANY (%(documents)s::bigint[])

-- name: delete_some
DELETE FROM meshhost.documents WHERE id = ANY (%(documents)s::bigint[])

-- name: rooms_of_tenant
SELECT DISTINCT room FROM meshhost.documents WHERE tenant = %(tenant)s ORDER BY room
