//! What a server says about its tables.

use crate::client::Client;
use crate::error::Error;
use mysql_async::prelude::Queryable;
use mysql_async::{Params, Row as DriverRow};
use sync_worker_core::name::TableName;
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::type_names::mysql_type;
use sync_worker_core::types::{ColumnType, Engine};

/// A table's name at the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct QualifiedName {
    pub database: String,
    pub table: String,
}

impl QualifiedName {
    /// Takes `table` or `database.table` as a user wrote it; backquotes around a part may hide a dot, and stand twice
    /// inside it.
    pub fn parse(text: &str, default_database: Option<&str>) -> Result<Self, Error> {
        let invalid = |problem: &str| Error::Config(format!("table {text:?} {problem}"));
        let mut parts = Vec::new();
        let mut rest = text;
        loop {
            let part = match rest.strip_prefix('`') {
                Some(quoted) => {
                    let (part, after) = unquoted(quoted).ok_or_else(|| invalid("has a backquote without its match"))?;
                    rest = after;
                    part
                }
                None => {
                    let (part, after) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
                    rest = after;
                    part.to_owned()
                }
            };
            if part.is_empty() {
                return Err(invalid("has an empty part; write table or database.table"));
            }
            parts.push(part);
            match rest.strip_prefix('.') {
                Some(after) => rest = after,
                None if rest.is_empty() => break,
                None => return Err(invalid("is not valid; write table or database.table")),
            }
        }
        match (parts.as_slice(), default_database) {
            ([database, table], _) => Ok(Self { database: database.clone(), table: table.clone() }),
            ([table], Some(database)) => Ok(Self { database: database.to_owned(), table: table.clone() }),
            ([_], None) => Err(invalid("names no database; write database.table, or put the database into the url")),
            _ => Err(invalid("has too many parts; write table or database.table")),
        }
    }

    /// As it stands in a statement.
    pub fn quoted(&self) -> String {
        format!("{}.{}", quoted(&self.database), quoted(&self.table))
    }
}

impl std::fmt::Display for QualifiedName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

/// The name up to its closing backquote, and what follows that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut end = text.find('`')?;
    while text[end + 1..].starts_with('`') {
        end += 2 + text[end + 2..].find('`')?;
    }
    Some((text[..end].replace("``", "`"), &text[end + 1..]))
}

/// A name in backquotes.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[derive(Clone, Debug)]
pub struct TableColumn {
    pub column: Column,
    /// `varchar`, `bigint`: without length and attributes.
    pub data_type: String,
    pub auto_increment: bool,
    pub has_default: bool,
    pub default: ColumnDefault,
    pub character_set: Option<String>,
    pub collation: Option<String>,
}

/// What an insert that does not name a column gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnDefault {
    /// NULL, or nothing where the column can't be NULL.
    None,
    Literal(String),
    /// Computed for each row.
    Expression,
}

#[derive(Clone, Debug)]
pub struct Index {
    pub name: String,
    /// In index order.
    pub columns: Vec<String>,
}

#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub name: String,
    pub columns: Vec<String>,
    pub parent: QualifiedName,
    pub parent_columns: Vec<String>,
    /// `NO ACTION`, `RESTRICT`, `CASCADE`, `SET NULL` or `SET DEFAULT`.
    pub on_delete: String,
    pub on_update: String,
}

#[derive(Clone, Debug)]
pub struct Table {
    /// As the server spells it.
    pub name: QualifiedName,
    /// `InnoDB`; None for a view.
    pub storage: Option<String>,
    /// About how many rows there are.
    pub rows: u64,
    /// In table order, generated ones too.
    pub columns: Vec<TableColumn>,
    /// The columns of the primary key, or of a unique index without a nullable column; None where there is neither.
    pub key: Option<Index>,
    /// Unique indexes apart from the key, also those over expressions or nullable columns.
    pub unique: Vec<Index>,
    pub foreign_keys: Vec<ForeignKey>,
    /// Those that the user is shown.
    pub triggers: Vec<String>,
    /// The user is shown all of them.
    pub sees_triggers: bool,
}

impl Table {
    /// The schema of its rows; None without a key.
    pub fn schema(&self, table: &TableName) -> Option<Schema> {
        let columns: Vec<Column> =
            self.columns.iter().filter(|column| !column.column.generated).map(|column| column.column.clone()).collect();
        let key = self.key.as_ref()?.columns.iter();
        let key = key.map(|name| columns.iter().position(|column| column.name == *name)).collect::<Option<Vec<_>>>()?;
        Some(Schema::new(table.clone(), Engine::Mysql, columns, key))
    }

    /// The columns that the server computes.
    pub fn generated(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(|column| column.column.generated).map(|column| column.column.name.as_str())
    }

    /// The columns that a new row must have a value for.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        let filled = |column: &&TableColumn| {
            column.column.nullable || column.has_default || column.auto_increment || column.column.generated
        };
        self.columns.iter().filter(move |column| !filled(column)).map(|column| column.column.name.as_str())
    }

    pub fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.column.name == name)
    }
}

const NO_SUCH_TABLE: u16 = 1146;

/// Reads one table's description; None where there is no such table, or none that we may see.
pub async fn table(client: &mut Client, name: &QualifiedName) -> Result<Option<Table>, Error> {
    let by_name = || Params::from((name.database.as_str(), name.table.as_str()));
    let query = "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE, TABLE_ROWS FROM information_schema.TABLES \
                 WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ?";
    let Some(mut row) = rows(client, query, by_name()).await?.into_iter().next() else { return Ok(None) };
    let found = QualifiedName { database: text(&mut row, 0)?, table: text(&mut row, 1)? };
    let storage = optional(&mut row, 2)?;
    let estimate = row.take_opt::<Option<u64>, _>(3).and_then(Result::ok).flatten().unwrap_or(0);

    let query = "SELECT COLUMN_NAME, COLUMN_TYPE, DATA_TYPE, IS_NULLABLE, EXTRA, CHARACTER_SET_NAME, COLLATION_NAME, \
                 COLUMN_DEFAULT FROM information_schema.COLUMNS \
                 WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
    let mut columns = Vec::new();
    for mut row in rows(client, query, by_name()).await? {
        let type_name = text(&mut row, 1)?;
        let data_type = text(&mut row, 2)?.to_ascii_lowercase();
        let extra = text(&mut row, 4)?.to_ascii_uppercase();
        let character_set = optional(&mut row, 5)?;
        let default = match optional(&mut row, 7)? {
            _ if extra.contains("DEFAULT_GENERATED") => ColumnDefault::Expression,
            Some(text) => ColumnDefault::Literal(text),
            None => ColumnDefault::None,
        };
        columns.push(TableColumn {
            column: Column {
                name: text(&mut row, 0)?,
                kind: column_type(&type_name, &data_type, character_set.as_deref()),
                type_name,
                nullable: text(&mut row, 3)? == "YES",
                generated: extra.contains("VIRTUAL GENERATED") || extra.contains("STORED GENERATED"),
            },
            data_type,
            auto_increment: extra.contains("AUTO_INCREMENT"),
            has_default: default != ColumnDefault::None,
            default,
            character_set,
            collation: optional(&mut row, 6)?,
        });
    }

    let (key, unique) = match indexes(client, &found, &columns).await {
        // Dropped or renamed since the look at its name.
        Err(error) if error.code() == Some(NO_SUCH_TABLE) => return Ok(None),
        indexes => indexes?,
    };
    let foreign_keys = foreign_keys(client, by_name()).await?;
    let query = "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS \
                 WHERE EVENT_OBJECT_SCHEMA = ? AND EVENT_OBJECT_TABLE = ? ORDER BY TRIGGER_NAME";
    let triggers = rows(client, query, by_name()).await?;
    let triggers = triggers.into_iter().map(|mut row| text(&mut row, 0)).collect::<Result<_, _>>()?;
    let sees_triggers = sees_triggers(client, &found).await?;
    Ok(Some(Table {
        name: found,
        storage,
        rows: estimate,
        columns,
        key,
        unique,
        foreign_keys,
        triggers,
        sees_triggers,
    }))
}

/// Whether the user has the privilege without which a table seems to have no triggers. One that a role gives is not found here.
async fn sees_triggers(client: &mut Client, name: &QualifiedName) -> Result<bool, Error> {
    let query = "SELECT COUNT(*) FROM (\
                 SELECT GRANTEE FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'TRIGGER' \
                 UNION ALL SELECT GRANTEE FROM information_schema.SCHEMA_PRIVILEGES \
                 WHERE PRIVILEGE_TYPE = 'TRIGGER' AND ? LIKE TABLE_SCHEMA \
                 UNION ALL SELECT GRANTEE FROM information_schema.TABLE_PRIVILEGES \
                 WHERE PRIVILEGE_TYPE = 'TRIGGER' AND TABLE_SCHEMA = ? AND TABLE_NAME = ?) granted \
                 WHERE GRANTEE = CONCAT('''', LEFT(CURRENT_USER(), CHAR_LENGTH(CURRENT_USER()) - 1 \
                 - CHAR_LENGTH(SUBSTRING_INDEX(CURRENT_USER(), '@', -1))), '''@''', \
                 SUBSTRING_INDEX(CURRENT_USER(), '@', -1), '''')";
    let (database, table) = (name.database.as_str(), name.table.as_str());
    let found = rows(client, query, Params::from((database, database, table))).await?.into_iter().next();
    let granted = found.and_then(|mut row| row.take_opt::<u64, _>(0)).and_then(Result::ok);
    Ok(granted.unwrap_or(0) > 0)
}

/// The canonical type of a column as the catalog spells it.
pub fn column_type(type_name: &str, data_type: &str, character_set: Option<&str>) -> ColumnType {
    mysql_type(type_name, data_type, character_set)
}

/// The key and the other unique indexes, in the table's own order: the first that can be a key is what the server takes
/// for one, and all that minimal row images have of a row.
async fn indexes(
    client: &mut Client,
    table: &QualifiedName,
    columns: &[TableColumn],
) -> Result<(Option<Index>, Vec<Index>), Error> {
    const NO_KEY: u8 = 0;
    /// Over the beginnings of values.
    const PARTIAL: u8 = 1;
    const WHOLE: u8 = 2;
    let query = format!("SHOW INDEX FROM {} WHERE Non_unique = 0", table.quoted());
    let mut found: Vec<(Index, u8)> = Vec::new();
    for mut row in rows(client, &query, Params::Empty).await? {
        let name = text(&mut row, 2)?;
        // A part over an expression has no column, and an index with one can't be a key.
        let column = optional(&mut row, 4)?;
        let part = row.take_opt::<Option<u64>, _>(7).and_then(Result::ok).flatten();
        if found.last().is_none_or(|(index, _)| index.name != name) {
            found.push((Index { name, columns: Vec::new() }, WHOLE));
        }
        let Some((index, use_as_key)) = found.last_mut() else { continue };
        let known = column.as_ref().and_then(|name| columns.iter().find(|column| column.column.name == *name));
        let usable = known.is_some_and(|column| !column.column.nullable && !column.column.generated);
        *use_as_key = (*use_as_key).min(match (usable, part) {
            (false, _) => NO_KEY,
            (true, Some(_)) => PARTIAL,
            (true, None) => WHOLE,
        });
        index.columns.extend(column);
    }
    let primary = found.iter().position(|(index, usable)| *usable > NO_KEY && index.name == "PRIMARY");
    let first = |least| found.iter().position(|(_, usable)| *usable >= least);
    let key = primary.or_else(|| first(WHOLE)).or_else(|| first(PARTIAL));
    let key = key.map(|at| found.remove(at).0);
    Ok((key, found.into_iter().map(|(index, _)| index).collect()))
}

async fn foreign_keys(client: &mut Client, name: Params) -> Result<Vec<ForeignKey>, Error> {
    let query = "SELECT u.CONSTRAINT_NAME, u.COLUMN_NAME, u.REFERENCED_TABLE_SCHEMA, u.REFERENCED_TABLE_NAME, \
                 u.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE \
                 FROM information_schema.KEY_COLUMN_USAGE u JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
                 ON r.CONSTRAINT_SCHEMA = u.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = u.CONSTRAINT_NAME \
                 AND r.TABLE_NAME = u.TABLE_NAME \
                 WHERE u.TABLE_SCHEMA = ? AND u.TABLE_NAME = ? AND u.REFERENCED_TABLE_NAME IS NOT NULL \
                 ORDER BY u.CONSTRAINT_NAME, u.ORDINAL_POSITION";
    let mut found: Vec<ForeignKey> = Vec::new();
    for mut row in rows(client, query, name).await? {
        let name = text(&mut row, 0)?;
        if found.last().is_none_or(|key| key.name != name) {
            found.push(ForeignKey {
                name,
                columns: Vec::new(),
                parent: QualifiedName { database: text(&mut row, 2)?, table: text(&mut row, 3)? },
                parent_columns: Vec::new(),
                on_delete: text(&mut row, 5)?,
                on_update: text(&mut row, 6)?,
            });
        }
        let Some(key) = found.last_mut() else { continue };
        key.columns.push(text(&mut row, 1)?);
        key.parent_columns.push(text(&mut row, 4)?);
    }
    Ok(found)
}

async fn rows(client: &mut Client, query: &str, params: Params) -> Result<Vec<DriverRow>, Error> {
    let Client { conn, liveness, .. } = client;
    liveness.watch("a look at the catalog", conn.exec::<DriverRow, _, _>(query, params)).await
}

fn text(row: &mut DriverRow, index: usize) -> Result<String, Error> {
    optional(row, index)?.ok_or(Error::Protocol("a name in the catalog is NULL"))
}

fn optional(row: &mut DriverRow, index: usize) -> Result<Option<String>, Error> {
    match row.take_opt::<Option<Vec<u8>>, _>(index) {
        Some(Ok(Some(bytes))) => {
            String::from_utf8(bytes).map(Some).map_err(|_| Error::Protocol("a name in the catalog is not UTF-8"))
        }
        Some(Ok(None)) => Ok(None),
        Some(Err(_)) | None => Err(Error::Protocol("the catalog has unexpected columns")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let name = |database: &str, table: &str| QualifiedName { database: database.into(), table: table.into() };
        assert_eq!(QualifiedName::parse("t", Some("d")).unwrap(), name("d", "t"));
        assert_eq!(QualifiedName::parse("e.t", Some("d")).unwrap(), name("e", "t"));
        assert_eq!(QualifiedName::parse("`e.f`.t", None).unwrap(), name("e.f", "t"));
        assert_eq!(QualifiedName::parse("`a``b```.```c`", None).unwrap(), name("a`b`", "`c"));
        for text in ["", "t", "a.b.c", ".t", "`t", "`a`b"] {
            assert!(QualifiedName::parse(text, None).is_err(), "{text:?} was taken");
        }
    }
}
