-- Several members may refuse the same version: the member is a part of an entry's name.
ALTER TABLE conflict RENAME TO conflict_before;
DROP INDEX conflict_open;
DROP INDEX conflict_stands;

CREATE TABLE conflict (
    -- Grows: no entry is ever removed.
    id            INTEGER NOT NULL PRIMARY KEY,
    pipeline      TEXT    NOT NULL,
    bus_partition INTEGER NOT NULL,
    bus_offset    INTEGER NOT NULL,
    table_name    TEXT    NOT NULL,
    row_key       BLOB    NOT NULL,
    -- Empty: the row as a whole. NULL would make every entry another one.
    column_name   TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    strategy      TEXT    NOT NULL,
    winner_by     TEXT,
    winner_merged INTEGER NOT NULL,
    -- Microseconds since 1970-01-01 UTC, as are the others.
    winner_time   INTEGER NOT NULL,
    winner_row    BLOB,
    -- All NULL: there is no loser.
    loser_by      TEXT,
    loser_merged  INTEGER,
    loser_time    INTEGER,
    loser_row     BLOB,
    member        TEXT,
    schema        INTEGER NOT NULL REFERENCES schema (id),
    time          INTEGER NOT NULL,
    open          INTEGER NOT NULL,
    decided_by    TEXT,
    decided_at    INTEGER,
    checksum      INTEGER NOT NULL,
    -- 1: the winner. NULL: there is no loser, or the entry is from before this was recorded; only then `checksum` does not
    -- cover it.
    incumbent_won INTEGER,
    -- NULL: the winner's row stands as it is, or the entry is from before this was recorded; only then `checksum` does not
    -- cover it.
    stands        BLOB
) STRICT;

INSERT INTO conflict SELECT * FROM conflict_before;
DROP TABLE conflict_before;

CREATE UNIQUE INDEX conflict_name ON conflict
    (pipeline, bus_partition, bus_offset, table_name, row_key, column_name, kind, ifnull(member, ''));
CREATE INDEX conflict_open ON conflict (pipeline, table_name, row_key) WHERE open = 1;
CREATE INDEX conflict_stands ON conflict (pipeline, table_name, row_key) WHERE stands IS NOT NULL;
