//! Reading tables as they stand: chunks of a snapshot, rows by key.
//!
//! Rows come as COPY text, which the stream's own decoder reads.

use crate::catalog::{self, Qualified};
use crate::client::{self, Client, Purpose, identifier};
use crate::codec::{self, Form};
use crate::config::Config;
use crate::copy::{self, Field};
use crate::error::Error;
use crate::recent::Recent;
use crate::source::before;
use async_trait::async_trait;
use futures::StreamExt;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use sync_worker_core::database::Scope;
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::position::{Lsn, Position};
use sync_worker_core::reader::{Chunk, KeyRange, TableReader};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::value::{Cell, Damaged, Value};

/// Keys asked for in one statement.
const KEYS: usize = 500;

pub struct PostgresReader {
    config: Config,
    tables: HashMap<TableName, Qualified>,
    recent: Arc<Recent>,
    /// None after a read that was broken off: the rest of its rows would come first.
    client: Option<Client>,
    rows: RowBuilder,
}

/// A table as it is now.
struct Target {
    schema: Arc<Schema>,
    from: String,
    forms: Vec<Form>,
}

impl PostgresReader {
    pub async fn connect(config: &Config, scope: &Scope, recent: Arc<Recent>) -> Result<Self, Error> {
        let tables = scope.tables.iter().map(|at| (at.table.clone(), Qualified::parse(&at.name))).collect();
        let client = client::connect(config, Purpose::Reader).await?;
        Ok(Self { config: config.clone(), tables, recent, client: Some(client), rows: RowBuilder::default() })
    }

    async fn client(&mut self) -> Result<&Client, Error> {
        let client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => client::connect(&self.config, Purpose::Reader).await?,
        };
        Ok(self.client.insert(client))
    }

    async fn target(&mut self, table: &TableName) -> Result<Target, Error> {
        let name = self.tables.get(table).cloned();
        let name = name.ok_or_else(|| Error::Fatal(format!("table {table} is not one of the pipeline's")))?;
        let found = catalog::table(self.client().await?, &name).await?;
        let found = found.ok_or_else(|| {
            Error::Fatal(format!("there is no table {name} any more: correct its name, or create it"))
        })?;
        let schema = Arc::new(found.schema(table)?);
        let forms = schema.columns.iter().map(|column| Form::from(&column.kind)).collect();
        Ok(Target { schema, from: found.from_clause(), forms })
    }

    /// Copies the rows of a query, up to a bound.
    async fn copy(
        &mut self,
        target: &Target,
        condition: &str,
        bytes: usize,
        out: &mut Vec<Row>,
    ) -> Result<bool, Error> {
        let columns =
            target.schema.columns.iter().map(|column| identifier(&column.name)).collect::<Vec<_>>().join(", ");
        let sql = format!("COPY (SELECT {columns} FROM {} {condition}) TO STDOUT", target.from);
        let doing = || format!("a read of {}", target.from);
        let refused = |error: tokio_postgres::Error| changed(Error::driver(doing(), &error));
        // The rows stand in a connection that is put back only when all of them have been read.
        let client = self.client.take().ok_or(Error::Protocol("a read without a connection"))?;
        let mut lines = Box::pin(client.watch().over(client.copy_out(&sql)).await?.map_err(refused)?);
        let (mut size, mut line, mut scratch) = (0, Vec::new(), Scratch::default());
        loop {
            let next = client.watch().over(lines.next()).await?;
            let Some(piece) = next else { break };
            let piece = piece.map_err(refused)?;
            if size >= bytes {
                return Ok(true);
            }
            // The server sends a line at a time; the protocol does not promise it.
            let row = match (line.is_empty(), piece.last()) {
                (true, Some(b'\n')) => self.row(target, &piece, &mut scratch)?,
                _ => {
                    line.extend_from_slice(&piece);
                    if line.last() != Some(&b'\n') {
                        continue;
                    }
                    let row = self.row(target, &line, &mut scratch)?;
                    line.clear();
                    row
                }
            };
            size += row.as_bytes().len();
            out.push(row);
        }
        drop(lines);
        self.client = Some(client);
        Ok(false)
    }

    fn row(&mut self, target: &Target, line: &[u8], scratch: &mut Scratch) -> Result<Row, Error> {
        let line = &line[..line.len() - 1];
        let mut fields = copy::fields(line);
        for (at, form) in target.forms.iter().enumerate() {
            let field = fields.next().ok_or(Error::Protocol("a row with too few columns"))?;
            let pushed = match field {
                Field::Null => {
                    self.rows.push(Cell::Present(Value::Null));
                    Ok(())
                }
                Field::Plain(text) => codec::push(*form, text, &mut scratch.0, &mut self.rows),
                Field::Escaped(text) => {
                    copy::unescape(text, &mut scratch.1);
                    codec::push(*form, &scratch.1, &mut scratch.0, &mut self.rows)
                }
            };
            if let Err(problem) = pushed {
                self.rows.abandon();
                let column = target.schema.columns[at].name.clone();
                let table = target.schema.table.to_string();
                return Err(Error::Value { table, column, problem: problem.to_owned() });
            }
        }
        Ok(self.rows.finish())
    }

    /// Where the log stands after a read, as a place that the stream comes to at once: the message ends in a commit, which
    /// wakes the walsender.
    async fn high(&mut self) -> Result<Position, Error> {
        let sql = "SELECT pg_logical_emit_message(true, 'sync-worker', 'high')";
        let lsn = self.client().await?.value("a look at the log's end", sql).await?;
        let lsn: Option<Lsn> = lsn.and_then(|text| text.parse().ok());
        Ok(before(lsn.ok_or(Error::Protocol("a strange position"))?))
    }

    async fn visible(&mut self) -> Result<(), Error> {
        let recent = self.recent.clone();
        recent.wait_visible(self.client().await?).await
    }
}

/// A table that was altered between the look at its columns and the read of its rows: looking again helps.
fn changed(error: Error) -> Error {
    match error.code() {
        Some("42703" | "42P01") => {
            Error::Lost { doing: "a read".into(), problem: "the table was altered at the same time".into() }
        }
        _ => error,
    }
}

/// `("a", "b")`, or the column alone: as one row value the server can find its place in the key's index.
fn key_columns(schema: &Schema) -> String {
    let names: Vec<String> = schema.key.iter().map(|&at| identifier(&schema.columns[at].name)).collect();
    match names.as_slice() {
        [name] => name.clone(),
        names => format!("({})", names.join(", ")),
    }
}

fn key_order(schema: &Schema) -> String {
    schema.key.iter().map(|&at| identifier(&schema.columns[at].name)).collect::<Vec<_>>().join(", ")
}

/// A key as literals of its columns' types.
fn key_literal(schema: &Schema, key: &Key) -> Result<String, Error> {
    let mut parts = Vec::with_capacity(schema.key.len());
    let mut text = String::new();
    let mut cells = key.cells();
    for &at in &schema.key {
        let Some(Cell::Present(value)) = cells.next().transpose()? else {
            return Err(Damaged("a key with too few columns").into());
        };
        text.clear();
        let column = &schema.columns[at];
        codec::print(value, &mut text).map_err(|problem| Error::Value {
            table: schema.table.to_string(),
            column: column.name.clone(),
            problem: problem.to_owned(),
        })?;
        parts.push(format!("{}::{}", client::literal(&text), column.type_name));
    }
    Ok(match parts.as_slice() {
        [part] => part.clone(),
        parts => format!("({})", parts.join(", ")),
    })
}

#[async_trait]
impl TableReader for PostgresReader {
    async fn schema(&mut self, table: &TableName) -> Result<Arc<Schema>> {
        Ok(self.target(table).await?.schema)
    }

    async fn estimate(&mut self, table: &TableName) -> Result<u64> {
        let target = self.target(table).await?;
        // The planner knows about partitions, and about tables that nobody has analyzed.
        let sql = format!("EXPLAIN (FORMAT JSON) SELECT FROM {}", target.from);
        let text = self.client().await?.value("an estimate", &sql).await?.unwrap_or_default();
        let plan: serde_json::Value = serde_json::from_str(&text).map_err(|_| Error::Protocol("a strange plan"))?;
        Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_u64).unwrap_or(0))
    }

    async fn boundary(&mut self, table: &TableName, after: Option<&Key>, rows: u64) -> Result<Option<Key>> {
        let target = self.target(table).await?;
        let schema = &target.schema;
        let mut sql = format!("SELECT {} FROM {}", key_order(schema), target.from);
        if let Some(after) = after {
            let literal = key_literal(schema, after)?;
            // Writing into a string can't fail.
            write!(sql, " WHERE {} > {literal}", key_columns(schema)).unwrap_or_default();
        }
        let (order, offset) = (key_order(schema), rows.saturating_sub(1));
        write!(sql, " ORDER BY {order} OFFSET {offset} LIMIT 1").unwrap_or_default();
        let found = self.client().await?.rows("a look for a chunk's end", &sql).await.map_err(changed)?;
        let Some(row) = found.first() else { return Ok(None) };
        let mut builder = RowBuilder::default();
        let mut scratch = Vec::new();
        for (place, &at) in schema.key.iter().enumerate() {
            let text = row.get(place).ok_or(Damaged("a key column is NULL")).map_err(Error::from)?;
            codec::push(target.forms[at], text.as_bytes(), &mut scratch, &mut builder).map_err(|problem| {
                let column = schema.columns[at].name.clone();
                Error::Value { table: schema.table.to_string(), column, problem: problem.to_owned() }
            })?;
        }
        let key = Key::from_bytes(builder.finish().as_bytes().clone());
        Ok(Some(schema.canonical_key(&key).map_err(Error::from)?))
    }

    async fn read_range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> Result<Chunk> {
        let target = self.target(table).await?;
        let schema = &target.schema;
        let columns = key_columns(schema);
        let mut conditions = Vec::new();
        if let Some(after) = &range.after {
            conditions.push(format!("{columns} > {}", key_literal(schema, after)?));
        }
        if let Some(up_to) = &range.up_to {
            conditions.push(format!("{columns} <= {}", key_literal(schema, up_to)?));
        }
        let condition = match conditions.is_empty() {
            true => format!("ORDER BY {}", key_order(schema)),
            false => format!("WHERE {} ORDER BY {}", conditions.join(" AND "), key_order(schema)),
        };
        self.visible().await?;
        let mut rows = Vec::new();
        let cut = self.copy(&target, &condition, bytes, &mut rows).await?;
        let cut_at = match rows.last() {
            Some(last) if cut => Some(schema.key_of(last).map_err(Error::from)?),
            _ => None,
        };
        let high = self.high().await?;
        Ok(Chunk { schema: target.schema, rows, high, cut_at })
    }

    async fn read_keys(&mut self, table: &TableName, keys: &[Key]) -> Result<Chunk> {
        let target = self.target(table).await?;
        self.visible().await?;
        let mut rows = Vec::new();
        for keys in keys.chunks(KEYS) {
            let literals = keys.iter().map(|key| key_literal(&target.schema, key)).collect::<Result<Vec<_>, _>>()?;
            let condition = format!("WHERE {} IN ({})", key_columns(&target.schema), literals.join(", "));
            self.copy(&target, &condition, usize::MAX, &mut rows).await?;
        }
        let high = self.high().await?;
        Ok(Chunk { schema: target.schema, rows, high, cut_at: None })
    }
}

/// Bytes of a value, and a text without its escapes.
type Scratch = (Vec<u8>, Vec<u8>);
