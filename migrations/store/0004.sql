-- The row that came of a contested column, of which decisions start.

-- NULL: the winner's row stands as it is, or the entry is from before this was recorded; only then `checksum` does not cover
-- it.
ALTER TABLE conflict ADD COLUMN stands BLOB;

CREATE INDEX conflict_stands ON conflict (pipeline, table_name, row_key) WHERE stands IS NOT NULL;
