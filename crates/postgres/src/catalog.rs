//! What a table is: columns, key, indexes, foreign keys and triggers, from the server's catalogs.

use crate::client::{Client, identifier, literal};
use crate::error::Error;
use futures::future::try_join_all;
use std::collections::HashMap;
use sync_worker_core::name::TableName;
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::types::{ColumnType, Engine, postgres_type};
use tokio_postgres::SimpleQueryRow;

/// A table's name at the server, not quoted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Qualified {
    pub schema: String,
    pub table: String,
}

impl Qualified {
    /// Takes `schema.table`, or `table` in the schema `public`. A part that holds a dot stands in double quotes; nothing
    /// is folded to lower case.
    pub fn parse(name: &str) -> Self {
        let mut parts = vec![String::new()];
        let mut quoted = false;
        let mut characters = name.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '"' if quoted && characters.peek() == Some(&'"') => {
                    characters.next();
                    parts.last_mut().into_iter().for_each(|part| part.push('"'));
                }
                '"' => quoted = !quoted,
                '.' if !quoted && parts.len() == 1 => parts.push(String::new()),
                character => parts.last_mut().into_iter().for_each(|part| part.push(character)),
            }
        }
        match (parts.pop(), parts.pop()) {
            (Some(table), Some(schema)) => Self { schema, table },
            (table, _) => Self { schema: "public".to_owned(), table: table.unwrap_or_default() },
        }
    }

    /// As a statement writes it: `"public"."customer"`.
    pub fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.table))
    }
}

impl std::fmt::Display for Qualified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    None,
    Always,
    ByDefault,
}

#[derive(Clone, Debug)]
pub struct TableColumn {
    pub column: Column,
    /// As in `pg_attribute.attnum`.
    pub number: i16,
    /// A domain's is its own, not its base type's.
    pub type_oid: u32,
    /// The type below all domains, and the one to encode for.
    pub base_oid: u32,
    pub type_modifier: i32,
    pub identity: Identity,
    pub has_default: bool,
    /// Its type brings operators of its own, `citext` or `ltree`.
    pub of_extension: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaIdentity {
    Default,
    Nothing,
    Full,
    Index,
}

#[derive(Clone, Debug)]
pub struct UniqueIndex {
    pub name: String,
    /// Names, in the index's order. Empty where an expression is indexed.
    pub columns: Vec<String>,
    pub primary: bool,
    pub replica_identity: bool,
    /// Not partial, not deferrable, over plain columns that are never null: fit to be a key.
    pub fit: bool,
    pub deferrable: bool,
}

#[derive(Clone, Debug)]
pub struct ForeignKey {
    pub name: String,
    pub columns: Vec<String>,
    /// The oid of the table referred to.
    pub parent_oid: u32,
    pub parent: Qualified,
    pub deferrable: bool,
}

#[derive(Clone, Debug)]
pub struct Trigger {
    pub name: String,
    /// As in `pg_trigger.tgenabled`: `O` origin, `D` disabled, `R` replica, `A` always.
    pub enabled: char,
}

impl Trigger {
    /// Whether it fires for a session whose `session_replication_role` is `origin`, or else `replica`.
    pub fn fires(&self, as_origin: bool) -> bool {
        matches!((self.enabled, as_origin), ('A', _) | ('O', true) | ('R', false))
    }
}

#[derive(Clone, Debug)]
pub struct Table {
    pub oid: u32,
    pub name: Qualified,
    pub partitioned: bool,
    pub row_security: bool,
    /// Its changes are in the log.
    pub logged: bool,
    pub replica_identity: ReplicaIdentity,
    /// A partition whose replica identity is another, so that its changes lack what the table's are taken to have.
    pub odd_partition: Option<Qualified>,
    /// All columns, generated ones too, in the table's order.
    pub columns: Vec<TableColumn>,
    pub unique_indexes: Vec<UniqueIndex>,
    pub foreign_keys: Vec<ForeignKey>,
    pub triggers: Vec<Trigger>,
}

impl Table {
    pub fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.column.name == name)
    }

    /// The names of the columns by which rows are found, in key order: the replica identity index, else the primary key,
    /// else any unique index that fits.
    pub fn key(&self) -> Option<&[String]> {
        let fit = || self.unique_indexes.iter().filter(|index| index.fit);
        let chosen = match self.replica_identity {
            ReplicaIdentity::Index => fit().find(|index| index.replica_identity),
            ReplicaIdentity::Default | ReplicaIdentity::Full | ReplicaIdentity::Nothing => None,
        };
        let chosen = chosen.or_else(|| fit().find(|index| index.primary));
        chosen.or_else(|| fit().next()).map(|index| index.columns.as_slice())
    }

    /// The columns that the server computes.
    pub fn generated(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().filter(|column| column.column.generated).map(|column| column.column.name.as_str())
    }

    /// The columns that a new row must have a value for.
    pub fn required(&self) -> impl Iterator<Item = &str> {
        let filled = |column: &&TableColumn| {
            column.column.nullable || column.has_default || column.identity != Identity::None || column.column.generated
        };
        self.columns.iter().filter(move |column| !filled(column)).map(|column| column.column.name.as_str())
    }

    /// A key column of an extension's type: its own comparisons, which its index goes by, are not those that a statement
    /// of ours would find.
    pub fn extension_key(&self) -> Option<&Column> {
        let key = self.key()?;
        let found = self.columns.iter().find(|column| column.of_extension && key.contains(&column.column.name));
        found.map(|column| &column.column)
    }

    /// What is wrong with a partition's replica identity, and the statement that mends it.
    pub fn odd_identity(&self) -> Option<(String, String)> {
        let partition = self.odd_partition.as_ref()?;
        let problem = format!("its partition {partition} has another replica identity than the table itself");
        // An index of its own would have to be of the same columns: the whole row always does.
        let identity = if self.replica_identity == ReplicaIdentity::Default { "DEFAULT" } else { "FULL" };
        Some((problem, format!("ALTER TABLE {} REPLICA IDENTITY {identity}", partition.quoted())))
    }

    /// The name of the table as it is read from: a partitioned table with its partitions, any other without those that
    /// inherit from it, as its publication has it.
    pub fn from_clause(&self) -> String {
        match self.partitioned {
            true => self.name.quoted(),
            false => format!("ONLY {}", self.name.quoted()),
        }
    }

    /// The table in canonical terms. Generated columns are left out.
    pub fn schema(&self, table: &TableName) -> Result<Schema, Error> {
        let columns: Vec<Column> =
            self.columns.iter().filter(|column| !column.column.generated).map(|column| column.column.clone()).collect();
        let at = |name: &String| columns.iter().position(|column| column.name == *name);
        let key = self.key().and_then(|names| names.iter().map(at).collect::<Option<Vec<_>>>());
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| {
            Error::Fatal(format!(
                "table {} has no key; ALTER TABLE {} ADD PRIMARY KEY (...), or a unique index over columns that are NOT NULL",
                self.name,
                self.name.quoted()
            ))
        })?;
        Ok(Schema::new(table.clone(), Engine::Postgres, columns, key))
    }
}

/// Reads a table; None where there is no such table.
pub async fn table(client: &Client, name: &Qualified) -> Result<Option<Table>, Error> {
    let condition = format!("n.nspname = {} AND c.relname = {}", literal(&name.schema), literal(&name.table));
    let sql = format!(
        "SELECT c.oid, c.relkind, c.relreplident, c.relrowsecurity, c.relpersistence FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {condition} AND c.relkind IN ('r', 'p')"
    );
    let rows = client.rows("a look at the catalog", &sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let oid: u32 = number(row, 0)?;
    // All in one round trip.
    let queries =
        [columns_sql(oid), indexes_sql(oid), foreign_keys_sql(oid), triggers_sql(oid), odd_partition_sql(oid)];
    let answers = try_join_all(queries.iter().map(|sql| client.rows("a look at the catalog", sql))).await?;
    let [columns, indexes, foreign_keys, triggers, odd_partitions] = answers.as_slice() else {
        return Err(Error::Protocol("an answer is missing"));
    };
    Ok(Some(Table {
        oid,
        name: name.clone(),
        partitioned: text(row, 1)? == "p",
        replica_identity: match text(row, 2)? {
            "n" => ReplicaIdentity::Nothing,
            "f" => ReplicaIdentity::Full,
            "i" => ReplicaIdentity::Index,
            _ => ReplicaIdentity::Default,
        },
        odd_partition: match odd_partitions.first() {
            Some(row) => Some(Qualified { schema: text(row, 0)?.to_owned(), table: text(row, 1)?.to_owned() }),
            None => None,
        },
        row_security: text(row, 3)? == "t",
        logged: text(row, 4)? == "p",
        columns: columns.iter().map(column).collect::<Result<_, _>>()?,
        unique_indexes: indexes.iter().map(unique_index).collect::<Result<_, _>>()?,
        foreign_keys: foreign_keys.iter().map(foreign_key).collect::<Result<_, _>>()?,
        triggers: triggers.iter().map(trigger).collect::<Result<_, _>>()?,
    }))
}

/// The log holds what a partition's own identity says, while the stream describes it as the whole table's. One that logs the
/// whole row logs enough for any.
fn odd_partition_sql(table: u32) -> String {
    format!(
        "SELECT n.nspname, c.relname FROM pg_class root CROSS JOIN LATERAL pg_partition_tree(root.oid) tree \
         JOIN pg_class c ON c.oid = tree.relid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE root.oid = {table} AND root.relkind = 'p' AND tree.isleaf AND c.relkind = 'r' \
         AND c.relreplident NOT IN ('f', root.relreplident) ORDER BY 1, 2 LIMIT 1"
    )
}

/// The type below all domains, with the modifier that applies to it. A domain's own modifier stands in `typtypmod`.
const BASE_TYPE: &str = "CROSS JOIN LATERAL ( \
    WITH RECURSIVE base(oid, modifier, depth) AS ( \
        SELECT a.type, a.modifier, 0 \
        UNION ALL SELECT t.typbasetype, t.typtypmod, depth + 1 FROM base JOIN pg_type t USING (oid) WHERE t.typtype = 'd') \
    SELECT b.oid, b.modifier, t.typtype, t.typelem, t.typnamespace FROM base b JOIN pg_type t USING (oid) ORDER BY depth DESC LIMIT 1) base";

fn columns_sql(table: u32) -> String {
    format!(
        "SELECT a.attname, a.attnum, a.type, a.modifier, base.oid, base.typtype, \
                format_type(a.type, a.modifier), format_type(base.oid, base.modifier), \
                a.attnotnull, a.attgenerated, a.attidentity, a.atthasdef, \
                base.typtype = 'b' AND base.typelem = 0 AND base.typnamespace <> 'pg_catalog'::regnamespace \
         FROM (SELECT *, atttypid AS type, atttypmod AS modifier FROM pg_attribute \
               WHERE attrelid = {table} AND attnum > 0 AND NOT attisdropped) a {BASE_TYPE} ORDER BY a.attnum"
    )
}

fn column(row: &SimpleQueryRow) -> Result<TableColumn, Error> {
    let generated = !text(row, 9)?.is_empty();
    Ok(TableColumn {
        column: Column {
            name: text(row, 0)?.to_owned(),
            kind: kind(text(row, 5)?, text(row, 7)?),
            type_name: text(row, 6)?.to_owned(),
            nullable: text(row, 8)? == "f",
            generated,
        },
        number: number(row, 1)?,
        type_oid: number(row, 2)?,
        type_modifier: number(row, 3)?,
        base_oid: number(row, 4)?,
        identity: match text(row, 10)? {
            "a" => Identity::Always,
            "d" => Identity::ByDefault,
            _ => Identity::None,
        },
        has_default: text(row, 11)? == "t" && !generated,
        of_extension: text(row, 12)? == "t",
    })
}

/// `typtype` of the base type and its name.
fn kind(typtype: &str, format_type: &str) -> ColumnType {
    match typtype {
        "e" => ColumnType::Enum,
        _ => postgres_type(format_type),
    }
}

fn indexes_sql(table: u32) -> String {
    format!(
        "SELECT c.relname, i.indisprimary, i.indisreplident, \
                i.indpred IS NULL AND i.indisvalid AND i.indimmediate AND i.indisready AND bool_and(a.attnotnull IS TRUE), \
                NOT i.indimmediate, \
                COALESCE(json_agg(a.attname ORDER BY k.place) FILTER (WHERE a.attname IS NOT NULL), '[]') \
         FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
         CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(number, place) \
         LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number AND k.number > 0 \
         WHERE i.indrelid = {table} AND i.indisunique AND k.place <= i.indnkeyatts \
         GROUP BY c.relname, i.indexrelid, i.indisprimary, i.indisreplident, i.indpred, i.indisvalid, i.indimmediate, \
                  i.indisready ORDER BY i.indexrelid"
    )
}

fn unique_index(row: &SimpleQueryRow) -> Result<UniqueIndex, Error> {
    Ok(UniqueIndex {
        name: text(row, 0)?.to_owned(),
        primary: text(row, 1)? == "t",
        replica_identity: text(row, 2)? == "t",
        fit: text(row, 3)? == "t",
        deferrable: text(row, 4)? == "t",
        columns: names(row, 5)?,
    })
}

fn foreign_keys_sql(table: u32) -> String {
    format!(
        "SELECT f.conname, f.confrelid, n.nspname, c.relname, f.condeferrable, \
                (SELECT json_agg(a.attname ORDER BY k.place) FROM unnest(f.conkey) WITH ORDINALITY AS k(number, place) \
                 JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number) \
         FROM pg_constraint f JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE f.conrelid = {table} AND f.contype = 'f' ORDER BY f.conname"
    )
}

fn foreign_key(row: &SimpleQueryRow) -> Result<ForeignKey, Error> {
    Ok(ForeignKey {
        name: text(row, 0)?.to_owned(),
        parent_oid: number(row, 1)?,
        parent: Qualified { schema: text(row, 2)?.to_owned(), table: text(row, 3)?.to_owned() },
        deferrable: text(row, 4)? == "t",
        columns: names(row, 5)?,
    })
}

fn triggers_sql(table: u32) -> String {
    // A partition may have triggers of its own.
    format!(
        "SELECT DISTINCT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal \
         AND tgrelid IN (SELECT {table} UNION ALL SELECT relid FROM pg_partition_tree({table})) ORDER BY tgname"
    )
}

fn trigger(row: &SimpleQueryRow) -> Result<Trigger, Error> {
    Ok(Trigger { name: text(row, 0)?.to_owned(), enabled: text(row, 1)?.chars().next().unwrap_or('O') })
}

/// Types as a stream names them: the spelling and the canonical type of each (oid, modifier). What the catalog does not
/// know any more is left out.
pub async fn types(client: &Client, wanted: &[(u32, i32)]) -> Result<HashMap<(u32, i32), (String, ColumnType)>, Error> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let values: Vec<String> = wanted.iter().map(|(oid, modifier)| format!("({oid}::oid, {modifier})")).collect();
    let sql = format!(
        "SELECT a.type, a.modifier, base.typtype, format_type(a.type, a.modifier), format_type(base.oid, base.modifier) \
         FROM (VALUES {}) AS a(type, modifier) {BASE_TYPE}",
        values.join(", ")
    );
    let rows = client.rows("a look at the types of a table", &sql).await?;
    let entry = |row: &SimpleQueryRow| -> Result<_, Error> {
        let kind = kind(text(row, 2)?, text(row, 4)?);
        Ok(((number(row, 0)?, number(row, 1)?), (text(row, 3)?.to_owned(), kind)))
    };
    rows.iter().map(entry).collect()
}

fn text(row: &SimpleQueryRow, column: usize) -> Result<&str, Error> {
    row.try_get(column).ok().flatten().ok_or(Error::Protocol("a catalog row lacks a column"))
}

fn number<T: std::str::FromStr>(row: &SimpleQueryRow, column: usize) -> Result<T, Error> {
    text(row, column)?.parse().map_err(|_| Error::Protocol("a catalog row holds a strange number"))
}

fn names(row: &SimpleQueryRow, column: usize) -> Result<Vec<String>, Error> {
    serde_json::from_str(text(row, column)?).map_err(|_| Error::Protocol("a catalog row holds strange names"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_as_they_stand() {
        for (name, schema, table) in [
            ("customer", "public", "customer"),
            ("crm.Customer", "crm", "Customer"),
            ("\"a.b\".\"c\"\"d\"", "a.b", "c\"d"),
            ("crm.\"x.y\"", "crm", "x.y"),
        ] {
            let parsed = Qualified::parse(name);
            assert_eq!((parsed.schema.as_str(), parsed.table.as_str()), (schema, table), "{name}");
        }
        assert_eq!(Qualified::parse("a.b\"\"").quoted(), "\"a\".\"b\"");
    }
}
