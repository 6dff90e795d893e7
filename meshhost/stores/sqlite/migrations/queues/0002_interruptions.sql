-- Deliveries that ended with their holder or their lease since the message was sent or replayed. Not `ended - failures`: a
-- replay forgets both counts, but not how often the message was delivered.
ALTER TABLE messages ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
