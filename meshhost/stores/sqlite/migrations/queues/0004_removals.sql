-- What was deleted and still takes space: rows of `messages` (dead = 0) or `dead_letters` (dead = 1) whose queue_id is that of no
-- queue any more, so that nobody sees them. They are deleted a few at a time; a start goes on where a crash ended it.
CREATE TABLE removals (
    queue_id INTEGER NOT NULL,
    dead INTEGER NOT NULL,
    PRIMARY KEY (queue_id, dead)
) STRICT, WITHOUT ROWID;

-- A drain gives a queue another id and leaves its messages under the old one. Dead letters stay: they are always under the id
-- that the queue was made with. NULL: it still has that one.
ALTER TABLE queues ADD COLUMN first_id INTEGER;
