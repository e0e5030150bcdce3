//! The closed table of engine types: what each travels as, which column the other engine should give to it, and what
//! becomes of its values there. `docs/types.md` is made from it.

mod documents;

use crate::convert::{Class, Conversion};
use crate::type_names::{EVERY_CHARACTER, mysql_name, mysql_type, postgres_name, postgres_type};
use crate::types::{BITS_WITHOUT_LIMIT, ColumnType, Engine, TextLimit};
use std::fmt::Write as _;
use std::sync::LazyLock;

/// One type of one engine, with parameters where it takes some.
#[derive(Clone, Debug)]
pub struct TypeRow {
    pub engine: Engine,
    /// As the engine's catalog spells it.
    pub spelling: &'static str,
    pub kind: ColumnType,
    /// The column that the other engine should have for it, and the class of the way there; None: refused.
    pub abroad: Option<(String, Class)>,
}

/// Every type that travels between engines, PostgreSQL's first, in the order of the page.
pub fn table() -> &'static [TypeRow] {
    static TABLE: LazyLock<Vec<TypeRow>> = LazyLock::new(|| {
        let rows = |engine, spellings: &'static [&'static str]| spellings.iter().map(move |one| row(engine, one));
        rows(Engine::Postgres, POSTGRES).chain(rows(Engine::Mysql, MYSQL)).collect()
    });
    &TABLE
}

const POSTGRES: &[&str] = &[
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "numeric",
    "numeric(10,2)",
    "numeric(5,-2)",
    "text",
    "character varying",
    "character varying(20)",
    "character varying(2000)",
    "character(3)",
    "bytea",
    "date",
    "time without time zone",
    "time(3) without time zone",
    "timestamp without time zone",
    "timestamp(3) without time zone",
    "timestamp with time zone",
    "timestamp(3) with time zone",
    "uuid",
    "json",
    "jsonb",
    "enum",
    "bit(8)",
    "bit(65)",
    "bit varying(5)",
    "bit varying",
];

const MYSQL: &[&str] = &[
    "tinyint",
    "tinyint unsigned",
    "smallint",
    "smallint unsigned",
    "mediumint",
    "mediumint unsigned",
    "int",
    "int unsigned",
    "bigint",
    "bigint unsigned",
    "float",
    "double",
    "decimal(10,2)",
    "char(3)",
    "varchar(20)",
    "tinytext",
    "text",
    "mediumtext",
    "longtext",
    "binary(16)",
    "varbinary(20)",
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
    "date",
    "time",
    "time(6)",
    "datetime",
    "datetime(6)",
    "timestamp",
    "timestamp(6)",
    "year",
    "json",
    "enum('a','b')",
    "set('a','b')",
    "bit(8)",
];

fn row(engine: Engine, spelling: &'static str) -> TypeRow {
    let (kind, abroad) = match engine {
        Engine::Postgres => {
            // An enum has a name of its own; the catalog's reader knows it by its kind.
            let kind = if spelling == "enum" { ColumnType::Enum } else { postgres_type(spelling) };
            let abroad = mysql_name(&kind, false).map(|name| (mysql(&name), name));
            (kind, abroad)
        }
        Engine::Mysql => {
            let kind = mysql(spelling);
            let abroad = postgres_name(&kind).map(|name| (postgres_type(&name), name));
            (kind, abroad)
        }
        // Documents have no columns of their own.
        Engine::Mongodb => (ColumnType::Field, None),
    };
    let abroad = abroad.and_then(|(there, name)| {
        let conversion = Conversion::new(&kind, &there).ok()?;
        Some((name, conversion.class_between(engine, other(engine))))
    });
    TypeRow { engine, spelling, kind, abroad }
}

fn mysql(column_type: &str) -> ColumnType {
    mysql_type(column_type, column_type.split(['(', ' ']).next().unwrap_or_default(), None)
}

fn other(engine: Engine) -> Engine {
    match engine {
        Engine::Postgres => Engine::Mysql,
        Engine::Mysql | Engine::Mongodb => Engine::Postgres,
    }
}

/// The page `docs/types.md`.
pub fn document() -> String {
    let mut page = String::from(INTRODUCTION);
    for (engine, title, abroad) in [(Engine::Postgres, "PostgreSQL", "MySQL"), (Engine::Mysql, "MySQL", "PostgreSQL")] {
        let rows = table().iter().filter(|row| row.engine == engine);
        line(&mut page, format_args!("\n## From {title}\n"));
        line(&mut page, format_args!("| {title} type | travels as | column in {abroad} | class |"));
        line(&mut page, format_args!("|---|---|---|---|"));
        for TypeRow { spelling, kind, abroad, .. } in rows {
            let (name, class) = match abroad {
                Some((name, class)) => (format!("`{}`", name.replace(EVERY_CHARACTER, "")), class.to_string()),
                None => ("none".to_owned(), "refused".to_owned()),
            };
            line(&mut page, format_args!("| `{spelling}` | {} | {name} | {class} |", shown(kind)));
        }
    }
    page.push_str(PAIRS);
    line(&mut page, format_args!("| values of | also go into columns of |"));
    line(&mut page, format_args!("|---|---|"));
    for (from, samples) in FAMILIES {
        let takes = |to: &&(&str, &[&str])| to.0 != *from && samples.iter().any(|from| any_way(from, to.1));
        let into: Vec<&str> = FAMILIES.iter().filter(takes).map(|(name, _)| *name).collect();
        line(
            &mut page,
            format_args!("| {from} | {} |", if into.is_empty() { "nothing else".to_owned() } else { into.join(", ") }),
        );
    }
    page.push_str(NOTES);
    documents::part(&mut page);
    page.push_str(EQUAL);
    page
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _written = writeln!(page, "{text}");
}

fn shown(kind: &ColumnType) -> String {
    match kind {
        ColumnType::Bits { length: BITS_WITHOUT_LIMIT, .. } => "varbits".to_owned(),
        ColumnType::Text { limit: TextLimit::None, .. } => "text".to_owned(),
        kind => kind.to_string(),
    }
}

/// The canonical types by family, with samples of their parameters.
const FAMILIES: &[(&str, &[&str])] = &[
    ("bool", &["bool"]),
    ("int", &["int(64)", "uint(64)"]),
    ("float", &["float32", "float64"]),
    ("decimal", &["decimal", "decimal(10,2)"]),
    ("text", &["text", "text(36)", "text(3,padded)"]),
    ("bytes", &["bytes", "bytes(16,padded)"]),
    ("date", &["date"]),
    ("time", &["time(6)"]),
    ("timestamp", &["timestamp(6)"]),
    ("timestamptz", &["timestamptz(6)"]),
    ("year", &["year"]),
    ("uuid", &["uuid"]),
    ("json", &["json", "json(textual)"]),
    ("enum", &["enum"]),
    ("set", &["set"]),
    ("bits", &["bits(1)", "bits(8)", "varbits(8)"]),
];

fn any_way(from: &str, to: &[&str]) -> bool {
    let Ok(from) = from.parse::<ColumnType>() else { return false };
    to.iter().any(|to| to.parse().is_ok_and(|to| Conversion::new(&from, &to).is_ok()))
}

const INTRODUCTION: &str = "\
# Types

A value arrives exactly or is refused with its column and the reason; it is never rounded, truncated or nulled. This page
is made from the code: `SYNC_WORKER_UPDATE=1 cargo test -p sync-worker-core types_page` writes it again.

Between two databases of the same engine every type below keeps its values as they are. Between PostgreSQL and MySQL the
tables name the column that `sync-worker schema` prints for the other side. You may choose another column: the
narrower it is, the more values are refused, and `sync-worker check` says so beforehand.

| class | means |
|---|---|
| exact | every value arrives and comes back the same, and the target holds no others |
| widened | every value arrives and comes back the same; the target could hold more |
| lossy | some values can't be held: each of those is refused, its key is parked and becomes a dead letter |

Parameters are examples: `numeric(10,2)` stands for every precision and scale. Where a row says `text` or `varchar` in
MySQL, the printed column has `character set utf8mb4 collate utf8mb4_0900_bin`: it holds every character and, like
PostgreSQL, tells `a` from `A` and from `a` with a blank after it. In a primary key a text without a length gets
`varchar(255)` and `bytea` gets `varbinary(255)`, for an index of MySQL holds no more than 3,072 bytes.
";

const PAIRS: &str = "
## Columns of another kind

Where the two tables differ in more than a length, these ways are open; every value that has no exact place is refused.

";

const NOTES: &str = "
- **bool and int**: MySQL's `boolean` is `tinyint(1)`, which also holds 2: into PostgreSQL's `boolean` go 0 and 1 alone.
- **int and float**: integers that the float holds exactly, up to 2^53 and beyond that some. Floats go into no column of
  integers or decimals.
- **decimal**: zeros at the end come and go with the scale, other digits never. `numeric` without a precision holds more
  than MySQL's 65 digits with 30 after the point.
- **timestamp and timestamptz**: one without a zone is taken to be UTC. MySQL's `timestamp` is a moment like
  PostgreSQL's `timestamp with time zone`, but holds 1970 to 2038 only; hence `datetime`, in UTC, on the way to MySQL.
- **digits of a second**: a value with more of them than the column has is refused.
- **text and uuid**: the one form with hyphens in lower case. Bytes become a uuid where there are 16 of them, in their
  order; a uuid goes into no column of bytes.
- **text and enum**: the target must have the label, letter for letter. Texts go into no `set`, which would put them in
  another order.
- **json**: `json` of PostgreSQL keeps the text as it was written, `jsonb` and MySQL's `json` keep its meaning, in which
  order, spaces and the spelling of numbers do not count. A text with the same member twice is refused there. MySQL's
  numbers are 64-bit integers and doubles: a number with more digits is refused.
- **padded**: blanks at the end of a `character(n)` are padding and do not travel; a text that ends in a blank is refused
  by such a column, and bytes that are not of its length by `binary(n)`.

## Refused whatever the class says

| value | where |
|---|---|
| the zero character in text or JSON | PostgreSQL does not hold it |
| a character outside of the column's character set | MySQL, where that is not `utf8mb4` |
| `NaN` and the infinities of floats, decimals, dates and timestamps | MySQL does not have them |
| a date or timestamp before the year 1000 or after 9999 | MySQL does not promise to hold it |
| dates that are no day, `0000-00-00` and `2024-02-31` | PostgreSQL does not have them; MySQL to MySQL they travel |
| a `time` below zero or above 24 hours | PostgreSQL; MySQL's `time` goes to 838:59:59 |
| a negative number | MySQL's `unsigned` columns |

## Types without a meaning elsewhere

Everything else travels in its exact form to the very same type of the same engine, and is refused by name everywhere
else: arrays, ranges, `interval`, `time with time zone`, `inet`, `cidr`, `macaddr`, `xml`, `money`, `oid`, `tsvector`,
composite and extension types (`hstore`, `citext`, `geometry`) of PostgreSQL; spatial types, `vector` and floats with a
number of digits (`float(7,3)`, which round what is written to them) of MySQL. A domain counts as its base type.
";

const EQUAL: &str = "
## Equal

`sync-worker verify` and the comparison of images take two values as equal that mean the same: `1.10` and `1.1`, JSON as
above, padded text without its blanks, `-0` and `0` of floats, `NaN` and `NaN`.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_page_is_made_from_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/types.md");
        if std::env::var_os("SYNC_WORKER_UPDATE").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == document(),
            "docs/types.md is not what the table says: run this test with SYNC_WORKER_UPDATE=1"
        );
    }

    #[test]
    fn every_type_of_the_table_has_a_canonical_form_and_a_place_abroad() {
        for row in table() {
            assert!(!matches!(row.kind, ColumnType::Named { .. }), "{}", row.spelling);
            assert!(row.abroad.is_some(), "{}", row.spelling);
        }
    }

    #[test]
    fn a_named_place_is_lossy_only_where_the_page_says_why() {
        let lossy: Vec<_> = table()
            .iter()
            .filter(|row| row.abroad.as_ref().is_some_and(|(_, class)| *class == Class::Lossy))
            .map(|row| row.spelling)
            .collect();
        assert_eq!(lossy, ["numeric", "json", "jsonb", "time", "time(6)"]);
    }
}
