-- Until when an archive is being imported into the room, if the importing server does not move the time on (NULL: it is not).
ALTER TABLE deleted_room ADD COLUMN importing_until REAL;
