-- One row, which grows with every change of api_key. Servers look at it to learn that another one revoked a key. Triggers
-- count, not the programs, so that the changes of a server of an older release are seen as well.
CREATE TABLE key_version (
    version INTEGER NOT NULL
) STRICT;

INSERT INTO key_version (version) VALUES (1);

CREATE TRIGGER api_key_added AFTER INSERT ON api_key BEGIN
    UPDATE key_version SET version = version + 1;
END;

CREATE TRIGGER api_key_changed AFTER UPDATE ON api_key BEGIN
    UPDATE key_version SET version = version + 1;
END;

CREATE TRIGGER api_key_deleted AFTER DELETE ON api_key BEGIN
    UPDATE key_version SET version = version + 1;
END;
