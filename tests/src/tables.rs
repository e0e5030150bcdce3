//! The tables that loads write to.

use crate::kind::Kind;

/// The name of the table that [`crate::load`] writes to.
pub const ITEM: &str = "item";

/// Rows whose version every writer counts up by one; they are never deleted.
pub const HOT_ROWS: i64 = 8;

pub fn item(kind: Kind) -> String {
    item_with(kind, 6)
}

/// With so many digits of a second.
pub fn item_with(kind: Kind, digits: u8) -> String {
    let text = kind.pick(
        "CREATE TABLE item (id bigint PRIMARY KEY, version bigint NOT NULL, name varchar(80) NOT NULL,
            amount numeric(14,2), state smallint NOT NULL, seen timestamp(6), note text, data bytea)",
        "CREATE TABLE item (id bigint PRIMARY KEY, version bigint NOT NULL, name varchar(80) NOT NULL,
            amount decimal(14,2), state smallint NOT NULL, seen datetime(6), note longtext, data longblob)",
    );
    text.replace("(6)", &format!("({digits})"))
}

/// Rows 1 to `rows` of version 0, in one statement. The first [`HOT_ROWS`] are everybody's.
pub fn fill(kind: Kind, rows: i64) -> String {
    let columns = "INSERT INTO item (id, version, name, amount, state, seen, note, data)";
    match kind {
        Kind::Postgres => format!(
            "{columns} SELECT n, 0, 'name ' || n, n * 1.25, n % 100, '2026-01-01'::timestamp + n * interval '1 second',
                encode(sha256(n::text::bytea), 'hex'), substr(sha256(n::text::bytea), 1, 16) FROM generate_series(1, {rows}) n"
        ),
        Kind::Mysql => format!(
            "SET SESSION cte_max_recursion_depth = {}; {columns}
             WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {rows})
             SELECT n, 0, CONCAT('name ', n), n * 1.25, n % 100, TIMESTAMP('2026-01-01') + INTERVAL n SECOND,
                SHA2(n, 256), UNHEX(LEFT(SHA2(n, 256), 32)) FROM numbers",
            rows + 1
        ),
        Kind::Mongodb => String::new(),
    }
}

/// One row whose number tells how far a target has come.
pub const FENCE: &str =
    "CREATE TABLE fence (id int PRIMARY KEY, mark bigint NOT NULL); INSERT INTO fence VALUES (1, 0)";
pub const EMPTY_FENCE: &str = "CREATE TABLE fence (id int PRIMARY KEY, mark bigint NOT NULL)";
