//! Reading tables as they stand, in ranges of their keys.

mod keys;

use crate::catalog::{self, QualifiedName, Table, TableColumn, quoted};
use crate::client::Client;
use crate::codec::charset::Charset;
use crate::codec::{CUT, Format, Invalid, Scratch, protocol, take_slice};
use crate::config::Config;
use crate::error::Error;
use crate::source::{Collations, Returned, boundary, log_status, read_collations};
use crate::wire::Wire;
use async_trait::async_trait;
use keys::{Numbered, condition, literals};
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::database::Scope;
use sync_worker_core::error::Result;
use sync_worker_core::name::TableName;
use sync_worker_core::position::Position;
use sync_worker_core::reader::{Chunk, KeyRange, TableReader};
use sync_worker_core::row::{Key, Row, RowBuilder};
use sync_worker_core::schema::Schema;
use sync_worker_core::types::ColumnType;
use sync_worker_core::value::{Cell, Value};

/// How long a read waits until the server shows what its log has already given away.
const VISIBLE_WITHIN_SECONDS: u32 = 10;

/// Keys of one statement: more would make the server give up its plan and scan the table.
const KEYS_PER_STATEMENT: usize = 1000;

struct Known {
    name: QualifiedName,
    schema: Arc<Schema>,
    /// Of the schema's columns.
    formats: Vec<Format>,
    /// How each is read.
    selected: Vec<String>,
    /// Of the key's columns: those whose order is not that of their text.
    numbered: Vec<Option<Numbered>>,
    rows: u64,
}

pub struct MysqlReader {
    config: Config,
    tables: Vec<(TableName, QualifiedName)>,
    known: HashMap<TableName, Arc<Known>>,
    wire: Option<Wire>,
    client: Option<Client>,
    returned: Arc<Returned>,
    /// The set that was waited for last.
    visible: String,
    /// About how long the rows of tables are whose chunks have been cut.
    lengths: HashMap<TableName, usize>,
}

impl MysqlReader {
    pub fn new(config: &Config, scope: &Scope, returned: Arc<Returned>) -> std::result::Result<Self, Error> {
        let address = config.address()?;
        let name = |at: &str| QualifiedName::parse(at, address.database.as_deref());
        let tables = scope.tables.iter().map(|at| Ok((at.table.clone(), name(&at.name)?)));
        Ok(Self {
            config: config.clone(),
            tables: tables.collect::<std::result::Result<_, Error>>()?,
            known: HashMap::new(),
            wire: None,
            client: None,
            returned,
            visible: String::new(),
            lengths: HashMap::new(),
        })
    }

    async fn look(&mut self, table: &TableName) -> std::result::Result<Arc<Known>, Error> {
        let name = self.tables.iter().find(|(own, _)| own == table).map(|(_, name)| name.clone());
        let name = name.ok_or_else(|| Error::Fatal(format!("table {table} is not one of this pipeline")))?;
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(Client::connect(&self.config).await?),
        };
        let found = catalog::table(client, &name).await;
        if found.is_err() {
            self.client = None;
        }
        let missing =
            || Error::Fatal(format!("table {name} is not there or can't be seen; create it, or GRANT SELECT on it"));
        let found = found?.ok_or_else(missing)?;
        let mut collations = Ok(Collations::new());
        if found.columns.iter().any(|column| single_byte(column).is_some()) {
            collations = read_collations(self.seeing().await?).await;
        }
        if collations.is_err() {
            self.wire = None;
        }
        let known = Arc::new(describe(table, found, &collations?)?);
        self.known.insert(table.clone(), known.clone());
        Ok(known)
    }

    async fn known(&mut self, table: &TableName) -> std::result::Result<Arc<Known>, Error> {
        match self.known.get(table) {
            Some(known) => Ok(known.clone()),
            None => self.look(table).await,
        }
    }

    /// A connection that sees every transaction that the source has returned.
    async fn seeing(&mut self) -> std::result::Result<&mut Wire, Error> {
        // Put back only when all is well: a connection that failed is not used again.
        let mut wire = match self.wire.take() {
            Some(wire) => wire,
            None => Wire::connect(&self.config).await?,
        };
        let returned = self.returned.set().unwrap_or_default();
        if returned != self.visible {
            let query = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{returned}', {VISIBLE_WITHIN_SECONDS})");
            if wire.query_value(&query).await? != "0" {
                let problem = std::io::Error::other("transactions of its own log have not become visible within 10 s");
                return Err(Error::Lost { doing: "a read of a table", source: problem });
            }
            self.visible = returned;
        }
        Ok(self.wire.insert(wire))
    }

    async fn execute(&mut self, statement: &str) -> std::result::Result<(), Error> {
        let outcome = self.seeing().await?.execute(statement).await;
        if outcome.is_err() {
            self.wire = None;
        }
        outcome
    }

    /// Reads rows; after an error, or when `each` has enough, with a new connection the next time.
    async fn rows(
        &mut self,
        statement: &str,
        each: &mut (dyn FnMut(&[u8]) -> std::result::Result<bool, Error> + Send),
    ) -> std::result::Result<(), Error> {
        let outcome = self.seeing().await?.query_binary(statement, each).await;
        if !matches!(outcome, Ok(true)) {
            // Rows may still be on their way.
            self.wire = None;
        }
        outcome.map(drop)
    }

    /// Where the log ends now. Where no stream is read nobody compares with it, and a target may have no log, or a user
    /// who may not look at it.
    async fn high(&mut self) -> std::result::Result<Position, Error> {
        if self.returned.set().is_none() {
            return Ok(Position::Mysql(boundary(0, 0)));
        }
        let status = log_status(self.seeing().await?).await;
        if status.is_err() {
            self.wire = None;
        }
        let status = status?;
        Ok(Position::Mysql(boundary(status.file, status.position)))
    }

    async fn boundary_key(
        &mut self,
        table: &TableName,
        after: Option<&Key>,
        rows: u64,
    ) -> std::result::Result<Option<Key>, Error> {
        let known = self.known(table).await?;
        let condition = condition(&known, after, None)?;
        let (key, order) = (known.selected_key(), known.order());
        let offset = rows.saturating_sub(1);
        let statement =
            format!("SELECT {key} FROM {}{condition} ORDER BY {order} LIMIT 1 OFFSET {offset}", known.name.quoted());
        let formats: Vec<_> = known.schema.key.iter().map(|&at| (at, &known.formats[at])).collect();
        let mut found = None;
        let mut decoder = Decoder::default();
        self.rows(&statement, &mut |packet| {
            let key = Key::from_bytes(decoder.row(&known, &formats, packet)?.as_bytes().clone());
            found = Some(known.schema.canonical_key(&key)?);
            Ok(true)
        })
        .await?;
        Ok(found)
    }

    async fn range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> std::result::Result<Chunk, Error> {
        let known = self.known(table).await?;
        let condition = condition(&known, range.after.as_ref(), range.up_to.as_ref())?;
        let (columns, order) = (known.column_list(), known.order());
        let mut statement = format!("SELECT {columns} FROM {}{condition} ORDER BY {order}", known.name.quoted());
        // A read that stops before its end costs the connection: where that has happened once, no more rows are asked for
        // than there is room for, and a few too many are taken.
        let limit = self.lengths.get(table).map(|length| (bytes / length).max(1));
        if let Some(limit) = limit {
            statement.push_str(&format!(" LIMIT {limit}"));
        }
        let most = if limit.is_some() { bytes.saturating_mul(2) } else { bytes };
        let formats: Vec<_> = known.formats.iter().enumerate().collect();
        let (mut rows, mut size, mut cut) = (Vec::new(), 0, false);
        let mut decoder = Decoder::default();
        self.rows(&statement, &mut |packet| {
            if size >= most && !rows.is_empty() {
                cut = true;
                return Ok(false);
            }
            let row = decoder.row(&known, &formats, packet)?;
            size += row.as_bytes().len();
            rows.push(row);
            Ok(true)
        })
        .await?;
        cut |= limit == Some(rows.len());
        if cut {
            self.lengths.insert(table.clone(), (size / rows.len().max(1)).max(1));
        }
        let cut_at = match rows.last() {
            Some(last) if cut => Some(known.schema.key_of(last)?),
            Some(_) | None => None,
        };
        let high = self.high().await?;
        Ok(Chunk { schema: known.schema.clone(), rows, high, cut_at })
    }

    async fn keys(&mut self, table: &TableName, keys: &[Key]) -> std::result::Result<Chunk, Error> {
        let known = self.known(table).await?;
        let mut rows = Vec::new();
        if keys.len() > KEYS_PER_STATEMENT {
            self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
            self.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        }
        let formats: Vec<_> = known.formats.iter().enumerate().collect();
        let mut decoder = Decoder::default();
        for part in keys.chunks(KEYS_PER_STATEMENT) {
            let mut list = String::new();
            for (nth, key) in part.iter().enumerate() {
                list.push_str(if nth > 0 { ",(" } else { "(" });
                list.push_str(&literals(&known, key, false)?.join(","));
                list.push(')');
            }
            let (columns, name, key) = (known.column_list(), known.name.quoted(), known.key_list());
            let statement = format!("SELECT {columns} FROM {name} WHERE ({key}) IN ({list})");
            self.rows(&statement, &mut |packet| {
                rows.push(decoder.row(&known, &formats, packet)?);
                Ok(true)
            })
            .await?;
        }
        if keys.len() > KEYS_PER_STATEMENT {
            self.execute("COMMIT").await?;
        }
        let high = self.high().await?;
        Ok(Chunk { schema: known.schema.clone(), rows, high, cut_at: None })
    }
}

impl Known {
    fn key_names(&self) -> impl Iterator<Item = String> {
        self.schema.key.iter().map(|&at| quoted(&self.schema.columns[at].name))
    }

    fn key_list(&self) -> String {
        self.key_names().collect::<Vec<_>>().join(", ")
    }

    fn order(&self) -> String {
        self.key_list()
    }

    fn column_list(&self) -> String {
        self.selected.join(", ")
    }

    fn selected_key(&self) -> String {
        let key: Vec<_> = self.schema.key.iter().map(|&at| self.selected[at].as_str()).collect();
        key.join(", ")
    }
}

/// The character set of text that is read as its bytes: the server would give a question mark for each byte that the set
/// does not define (invariant 7).
pub(crate) fn single_byte(column: &TableColumn) -> Option<&str> {
    let text = matches!(column.column.kind, ColumnType::Text { .. });
    let set = column.character_set.as_deref().filter(|set| text && *set != "binary" && Charset::is_readable(set))?;
    Charset::by_name(set).is_none().then_some(set)
}

/// What is selected to read a column, and how its values then come.
pub(crate) fn selection(
    table: &TableName,
    column: &TableColumn,
    collations: &Collations,
) -> std::result::Result<(String, Format), Error> {
    let name = quoted(&column.column.name);
    let own = single_byte(column).and_then(|set| {
        let collation = collations.values().find(|collation| collation.character_set == set)?;
        collation.charset.clone()
    });
    if let Some(charset) = own {
        return Ok((format!("CONVERT({name} USING binary)"), Format::Text { prefix: 0, charset }));
    }
    let format = Format::of_column(column).ok_or_else(|| Error::Value {
        table: table.to_string(),
        column: column.column.name.clone(),
        problem: format!("type {} can't be read", column.column.type_name),
    })?;
    Ok((name, format))
}

fn describe(table: &TableName, found: Table, collations: &Collations) -> std::result::Result<Known, Error> {
    let name = found.name.clone();
    let schema = found.schema(table).ok_or_else(|| {
        Error::Fatal(format!("table {name} has no key; ALTER TABLE {} ADD PRIMARY KEY (...)", name.quoted()))
    })?;
    let mut formats = Vec::with_capacity(schema.columns.len());
    let mut selected = Vec::with_capacity(schema.columns.len());
    for column in found.columns.iter().filter(|column| !column.column.generated) {
        let (text, format) = selection(table, column, collations)?;
        formats.push(format);
        selected.push(text);
    }
    let numbered = schema.key.iter().map(|&at| Numbered::of(&schema.columns[at])).collect();
    Ok(Known { name, schema: Arc::new(schema), formats, selected, numbered, rows: found.rows })
}

#[derive(Default)]
struct Decoder {
    builder: RowBuilder,
    scratch: Scratch,
}

impl Decoder {
    /// A row of the binary protocol with these columns of the schema.
    fn row(&mut self, known: &Known, formats: &[(usize, &Format)], packet: &[u8]) -> std::result::Result<Row, Error> {
        self.cells(formats, packet).map_err(|(column, Invalid(problem))| {
            self.builder.abandon();
            let column = known.schema.columns.get(column).map_or(String::new(), |column| column.name.clone());
            Error::Value { table: known.schema.table.to_string(), column, problem: problem.to_owned() }
        })
    }

    fn cells(&mut self, formats: &[(usize, &Format)], packet: &[u8]) -> std::result::Result<Row, (usize, Invalid)> {
        let mut bytes = packet.get(1..).ok_or((0, CUT))?;
        // The first two bits are not used.
        let nulls = take_slice(&mut bytes, (formats.len() + 9) / 8).map_err(|invalid| (0, invalid))?;
        for (nth, (at, format)) in formats.iter().enumerate() {
            let value = match nulls[(nth + 2) / 8] >> ((nth + 2) % 8) & 1 == 1 {
                true => Value::Null,
                false => {
                    let decoded = protocol::decode(format, &mut bytes, &mut self.scratch);
                    decoded.map_err(|invalid| (*at, invalid))?
                }
            };
            self.builder.push(Cell::Present(value));
        }
        Ok(self.builder.finish())
    }
}

#[async_trait]
impl TableReader for MysqlReader {
    async fn schema(&mut self, table: &TableName) -> Result<Arc<Schema>> {
        Ok(self.look(table).await?.schema.clone())
    }

    async fn estimate(&mut self, table: &TableName) -> Result<u64> {
        Ok(self.known(table).await?.rows)
    }

    async fn boundary(&mut self, table: &TableName, after: Option<&Key>, rows: u64) -> Result<Option<Key>> {
        Ok(self.boundary_key(table, after, rows).await?)
    }

    async fn read_range(&mut self, table: &TableName, range: &KeyRange, bytes: usize) -> Result<Chunk> {
        Ok(self.range(table, range, bytes).await?)
    }

    async fn read_keys(&mut self, table: &TableName, keys: &[Key]) -> Result<Chunk> {
        Ok(self.keys(table, keys).await?)
    }
}
