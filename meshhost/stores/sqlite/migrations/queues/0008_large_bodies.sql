-- Finds the rows that refer to an object (stores/bodies/reference.py): `@`, then the object's name. Few rows do.
CREATE INDEX large_bodies ON contents (substr(body, 2, 32)) WHERE substr(body, 1, 1) = '@';
CREATE INDEX large_results ON outcomes (substr(result, 2, 32)) WHERE substr(result, 1, 1) = '@';
