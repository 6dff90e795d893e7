-- Finds the rows that refer to an object (stores/bodies/reference.py): `@` (0x40), then the object's name. Few rows do.
CREATE INDEX contents_large ON meshhost.contents (substring(body FROM 2 FOR 32)) WHERE substring(body FROM 1 FOR 1) = '\x40'::bytea;
CREATE INDEX outcomes_large ON meshhost.outcomes (substring(result FROM 2 FOR 32)) WHERE substring(result FROM 1 FOR 1) = '\x40'::bytea;
