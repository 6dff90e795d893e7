-- The statements of documents.py, by name.

-- name: find
SELECT id, snapshot FROM documents WHERE tenant = :tenant AND room = :room AND path = :path;

-- name: entry
SELECT path, created_at, updated_at FROM documents WHERE tenant = :tenant AND room = :room AND path = :path;

-- name: entries
-- By substr, since LIKE and GLOB would read some characters of a folder's name as patterns.
SELECT path, created_at, updated_at FROM documents
WHERE tenant = :tenant AND room = :room AND substr(path, 1, length(:prefix)) = :prefix
ORDER BY path;

-- name: entries_from
SELECT path, created_at, updated_at FROM documents
WHERE tenant = :tenant AND room = :room AND path >= :path
ORDER BY path LIMIT :limit;

-- name: count
SELECT count(*) FROM documents WHERE tenant = :tenant;

-- name: create
INSERT INTO documents (tenant, room, path, snapshot, created_at, updated_at)
VALUES (:tenant, :room, :path, :snapshot, :now, :now)
ON CONFLICT DO NOTHING;

-- name: updates
SELECT content FROM updates WHERE document = :document ORDER BY id;

-- name: append
INSERT INTO updates (document, content) VALUES (:document, :content);

-- name: touch
UPDATE documents SET updated_at = :now WHERE id = :document;

-- name: replace_snapshot
UPDATE documents SET snapshot = :snapshot, updated_at = :now WHERE id = :document;

-- name: delete_updates
DELETE FROM updates WHERE document = :document;

-- name: delete
DELETE FROM documents WHERE id = :document;

-- name: some_documents
SELECT id FROM documents WHERE tenant = :tenant AND (:room IS NULL OR room = :room) LIMIT :limit;

-- name: rooms_of_tenant
SELECT DISTINCT room FROM documents WHERE tenant = :tenant ORDER BY room;
