-- Two-way pipelines.

-- What a version may be written over: images, each behind its length in one byte. NULL in one-way pipelines; only then
-- `checksum` does not cover it.
ALTER TABLE deferred ADD COLUMN over BLOB;

-- The ledger: every conflict and every drifted row. Rows are in the columns of `schema`; one that is NULL is a delete.
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
    UNIQUE (pipeline, bus_partition, bus_offset, table_name, row_key, column_name, kind)
) STRICT;

CREATE INDEX conflict_open ON conflict (pipeline, table_name, row_key) WHERE open = 1;

-- The state of a target's resolver after the record at `bus_offset`.
CREATE TABLE resolver (
    pipeline      TEXT    NOT NULL,
    database      TEXT    NOT NULL,
    bus_partition INTEGER NOT NULL,
    bus_offset    INTEGER NOT NULL,
    rests_on      INTEGER,
    log           TEXT    NOT NULL,
    state         BLOB    NOT NULL,
    checksum      INTEGER NOT NULL,
    UNIQUE (pipeline, database, bus_partition, bus_offset)
) STRICT;
