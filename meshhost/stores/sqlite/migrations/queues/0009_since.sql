-- Since when a message could be handed out: its former `due`, or when it was given back, on that time line. NULL: since it was sent.
ALTER TABLE messages ADD COLUMN since REAL;
