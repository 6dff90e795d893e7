-- Since when a message could be handed out: its former `due`, or when it was given back, on that time line. NULL: since it was sent.
ALTER TABLE meshhost.messages ADD COLUMN since double precision;
