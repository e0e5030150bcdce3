-- The control store of one installation. `checksum` is over all other columns of its row: SQLite checks its pages'
-- structure, not what stands in them.

CREATE TABLE installation (
    -- One row.
    id       TEXT    NOT NULL PRIMARY KEY,
    checksum INTEGER NOT NULL
) STRICT;

-- Where the capture of a database goes on, and the offset of the log that this rests on.
CREATE TABLE checkpoint (
    pipeline TEXT    NOT NULL,
    database TEXT    NOT NULL,
    epoch    TEXT    NOT NULL,
    position TEXT    NOT NULL,
    resume   TEXT    NOT NULL,
    log      TEXT    NOT NULL,
    next     INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (pipeline, database)
) STRICT, WITHOUT ROWID;

-- Key-range chunks of a capture's snapshot. A bound that is NULL is open.
CREATE TABLE chunk (
    pipeline   TEXT    NOT NULL,
    database   TEXT    NOT NULL,
    table_name TEXT    NOT NULL,
    number     INTEGER NOT NULL,
    after      BLOB,
    up_to      BLOB,
    done       INTEGER NOT NULL,
    row_count  INTEGER NOT NULL,
    checksum   INTEGER NOT NULL,
    PRIMARY KEY (pipeline, database, table_name, number)
) STRICT, WITHOUT ROWID;

-- What the images of deferred changes mean, as JSON.
CREATE TABLE schema (
    id       INTEGER NOT NULL PRIMARY KEY,
    body     TEXT    NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;

-- Versions that a target has refused: they wait for their next attempt, or, dead, for a person. One per key.
CREATE TABLE deferred (
    pipeline      TEXT    NOT NULL,
    database      TEXT    NOT NULL,
    bus_partition INTEGER NOT NULL,
    table_name    TEXT    NOT NULL,
    row_key       BLOB    NOT NULL,
    schema        INTEGER NOT NULL REFERENCES schema (id),
    op            TEXT    NOT NULL,
    before        BLOB,
    after         BLOB,
    bus_offset    INTEGER NOT NULL,
    class         TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    attempts      INTEGER NOT NULL,
    -- Microseconds since 1970-01-01 UTC.
    due           INTEGER NOT NULL,
    dead          INTEGER NOT NULL,
    checksum      INTEGER NOT NULL,
    UNIQUE (pipeline, database, bus_partition, table_name, row_key)
) STRICT;

CREATE INDEX deferred_by_due ON deferred (pipeline, database, bus_partition, dead, due);
CREATE INDEX deferred_by_offset ON deferred (pipeline, database, bus_partition, dead, bus_offset);
