//! Tables as the stream describes them, and their rows in canonical form.

use crate::catalog::{self, Qualified};
use crate::client::{self, Client, Purpose};
use crate::codec::{self, Form};
use crate::config::Config;
use crate::error::Error;
use crate::own::Owner;
use crate::source::echo::OwnTable;
use crate::source::pgoutput::{Field, Malformed, Old, Relation, Tuple};
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::database::TableAt;
use sync_worker_core::name::TableName;
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::source::REDEFINED;
use sync_worker_core::types::{ColumnType, Engine};
use sync_worker_core::value::{Cell, Value};

/// A table of the pipeline as of the last relation message about it.
#[derive(Debug)]
pub struct Table {
    pub schema: Arc<Schema>,
    columns: Vec<Plan>,
    /// Old rows say that they are whole, and a partition may have logged its key alone: the columns besides the key, of which
    /// one is not NULL.
    may_lack: Vec<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Plan {
    form: Form,
    /// A column of the key: Present in every image.
    key: bool,
    /// A column of the replica identity: what an old tuple that is not full holds.
    identity: bool,
}

/// Room that decoding borrows, reused from row to row.
#[derive(Default)]
pub struct Scratch {
    pub rows: RowBuilder,
    bytes: Vec<u8>,
}

impl Table {
    /// The row after an insert or an update. What the log does not hold is taken from the old row where that is full.
    pub fn after(&self, new: Tuple<'_>, old: Option<&Old<'_>>, scratch: &mut Scratch) -> Result<Row, Error> {
        self.row(new, old, false, scratch)
    }

    /// Of the same row the key columns alone.
    pub fn key_after(&self, new: Tuple<'_>, old: Option<&Old<'_>>, scratch: &mut Scratch) -> Result<Row, Error> {
        self.row(new, old, true, scratch)
    }

    fn row(&self, new: Tuple<'_>, old: Option<&Old<'_>>, key_only: bool, scratch: &mut Scratch) -> Result<Row, Error> {
        self.check(new)?;
        for (at, field) in new.fields().enumerate() {
            let plan = self.columns[at];
            if key_only && !plan.key {
                scratch.rows.push(Cell::Unchanged);
                continue;
            }
            let field = match field.map_err(malformed)? {
                Field::Unchanged => match old.filter(|old| old.full || plan.identity) {
                    Some(old) if self.lacks_all(old)? => return Err(self.lacked()),
                    Some(old) => old.tuple.fields().nth(at).unwrap_or(Ok(Field::Unchanged)).map_err(malformed)?,
                    None => Field::Unchanged,
                },
                field => field,
            };
            if plan.key && field == Field::Unchanged {
                scratch.rows.abandon();
                return Err(self.refused(at, "the log does not hold this key column"));
            }
            self.push(at, field, scratch)?;
        }
        Ok(scratch.rows.finish())
    }

    /// The row before an update or a delete: all of it, else the replica identity.
    pub fn before(&self, old: &Old<'_>, scratch: &mut Scratch) -> Result<Row, Error> {
        self.check(old.tuple)?;
        if self.lacks_all(old)? {
            return Err(self.lacked());
        }
        for (at, field) in old.tuple.fields().enumerate() {
            let field = field.map_err(malformed)?;
            match old.full || self.columns[at].identity {
                true => self.push(at, field, scratch)?,
                false => scratch.rows.push(Cell::Unchanged),
            }
        }
        Ok(scratch.rows.finish())
    }

    /// Whether an old row that is said to be whole can't be.
    fn lacks_all(&self, old: &Old<'_>) -> Result<bool, Error> {
        if self.may_lack.is_empty() || !old.full {
            return Ok(false);
        }
        let fields: Vec<Field<'_>> = old.tuple.fields().collect::<Result<_, _>>().map_err(malformed)?;
        Ok(self.may_lack.iter().all(|at| fields.get(*at) == Some(&Field::Null)))
    }

    fn lacked(&self) -> Error {
        Error::Gap(format!(
            "a partition of table {} has logged keys instead of whole rows for a while, before its replica identity was FULL; remove the pipeline's state and take a new snapshot",
            self.schema.table
        ))
    }

    fn check(&self, tuple: Tuple<'_>) -> Result<(), Error> {
        match usize::from(tuple.columns) == self.columns.len() {
            true => Ok(()),
            false => Err(Error::Protocol("a row with another number of columns than its table")),
        }
    }

    #[inline]
    fn push(&self, at: usize, field: Field<'_>, scratch: &mut Scratch) -> Result<(), Error> {
        match field {
            Field::Null => scratch.rows.push(Cell::Present(Value::Null)),
            Field::Unchanged => scratch.rows.push(Cell::Unchanged),
            Field::Text(text) => {
                if let Err(problem) = codec::push(self.columns[at].form, text, &mut scratch.bytes, &mut scratch.rows) {
                    scratch.rows.abandon();
                    return Err(self.refused(at, problem));
                }
            }
        }
        Ok(())
    }

    fn refused(&self, at: usize, problem: &str) -> Error {
        let column = self.schema.columns.get(at).map(|column| column.name.clone());
        let table = self.schema.table.to_string();
        Error::Value { table, column: column.unwrap_or_default(), problem: problem.to_owned() }
    }
}

pub fn malformed(error: Malformed) -> Error {
    Error::Protocol(error.0)
}

/// What a relation id stands for.
#[derive(Debug)]
struct Known {
    /// The message that said so, to know it again without looking into the catalog.
    message: Vec<u8>,
    /// None for a table that is not one of the pipeline's.
    table: Option<Arc<Table>>,
    /// A table of ours, which tells our own transactions.
    own: Option<OwnTable>,
}

/// All relations that the stream has described.
pub struct Relations {
    config: Config,
    /// For questions about types and keys; opened when it is needed and again when it was lost.
    client: Option<Client>,
    tables: HashMap<Qualified, TableName>,
    /// The tables of the pipeline by their oid, to notice that one was renamed.
    oids: HashMap<u32, Qualified>,
    known: HashMap<u32, Known>,
    types: HashMap<(u32, i32), (String, ColumnType)>,
    /// Changes come in runs of one table.
    last: Option<(u32, Option<Arc<Table>>)>,
    /// Whose marker makes a transaction ours; None one-way.
    owner: Option<Owner>,
}

impl Relations {
    pub fn new(
        config: Config,
        client: Client,
        tables: &[TableAt],
        oids: HashMap<u32, Qualified>,
        owner: Option<Owner>,
    ) -> Self {
        let tables = tables.iter().map(|at| (Qualified::parse(&at.name), at.table.clone())).collect();
        let (known, types) = (HashMap::new(), HashMap::new());
        Self { config, client: Some(client), tables, oids, known, types, last: None, owner }
    }

    /// The pipeline's table behind a relation id; None for others.
    #[inline]
    pub fn get(&mut self, oid: u32) -> Result<Option<Arc<Table>>, Error> {
        if let Some((last, table)) = &self.last
            && *last == oid
        {
            return Ok(table.clone());
        }
        let known = self.known.get(&oid).ok_or(Error::Protocol("a change of a table that was not described"))?;
        self.last = Some((oid, known.table.clone()));
        Ok(known.table.clone())
    }

    /// The table of ours behind a relation id, and whose rows in it are this pipeline's.
    pub fn own(&self, oid: u32) -> Option<(&Owner, &OwnTable)> {
        self.owner.as_ref().zip(self.known.get(&oid)?.own.as_ref())
    }

    /// Whether a description says nothing new. With whole rows in the log it names no key, so the catalog has to.
    pub fn knows(&self, relation: &Relation<'_>) -> bool {
        relation.identity != b'f' && self.known.get(&relation.oid).is_some_and(|known| known.message == relation.bytes)
    }

    /// Takes a description. Cancel safe: it is taken at the end or not at all.
    pub async fn describe(&mut self, relation: &Relation<'_>) -> Result<(), Error> {
        let mut name = Qualified { schema: relation.schema.to_owned(), table: relation.table.to_owned() };
        if !self.tables.contains_key(&name)
            && let Some(before) = self.oids.get(&relation.oid).cloned()
        {
            let now = catalog::table(self.client().await?, &before).await?;
            if now.is_none_or(|now| now.oid != relation.oid) {
                return Err(Error::Fatal(format!(
                    "table {before} is called {name} now: give it its name back, or correct the pipeline's tables"
                )));
            }
            // It had another name for a while.
            name = before;
        }
        let table = match self.tables.get(&name).cloned() {
            Some(table) => Some(self.table(relation, &name, &table).await?),
            None => None,
        };
        self.oids.retain(|_, known| *known != name);
        if table.is_some() {
            self.oids.insert(relation.oid, name);
        }
        let own = match (&self.owner, &table) {
            (Some(_), None) => OwnTable::of(relation)?,
            _ => None,
        };
        let before = self.known.get(&relation.oid).and_then(|known| known.table.as_ref());
        if let (Some(before), Some(now)) = (before, &table)
            && before.schema.id != now.schema.id
        {
            tracing::warn!(table = %now.schema.table, "{REDEFINED}");
        }
        self.known.insert(relation.oid, Known { message: relation.bytes.to_vec(), table, own });
        self.last = None;
        Ok(())
    }

    async fn client(&mut self) -> Result<&Client, Error> {
        let client = match self.client.take() {
            Some(client) if !client.is_closed() => client,
            _ => client::connect(&self.config, Purpose::Control).await?,
        };
        Ok(self.client.insert(client))
    }

    /// Names, types and identity come from the message, which belongs to this place in the log. The catalog, which may be
    /// newer, adds the spelling of types, the order of the key, and which columns may be null.
    async fn table(
        &mut self,
        relation: &Relation<'_>,
        name: &Qualified,
        table: &TableName,
    ) -> Result<Arc<Table>, Error> {
        let described = relation.columns().map_err(malformed)?;
        self.client().await?;
        let client = self.client.as_ref().ok_or(Error::Protocol("no connection"))?;
        let unknown: Vec<(u32, i32)> = described
            .iter()
            .map(|column| (column.type_oid, column.type_modifier))
            .filter(|kind| !self.types.contains_key(kind))
            .collect();
        self.types.extend(catalog::types(client, &unknown).await?);
        let now = catalog::table(client, name).await?;
        // A partition that has come since: nothing of it is taken before it logs what the others do.
        if let Some((problem, cure)) = now.as_ref().and_then(catalog::Table::odd_identity) {
            return Err(Error::Fatal(format!("table {name}: {problem}: {cure}")));
        }
        let now_column = |name: &str| now.as_ref().and_then(|now| now.column(name));

        let column = |described: &crate::source::pgoutput::RelationColumn<'_>| {
            let kind = (described.type_oid, described.type_modifier);
            let (type_name, kind) = self.types.get(&kind).cloned().unwrap_or_else(|| {
                // A type that has been dropped since: its text still goes to columns of the same type.
                let name = format!("type {}", described.type_oid);
                (name.clone(), ColumnType::Named { engine: Engine::Postgres, name })
            });
            let nullable = now_column(described.name).is_none_or(|now| now.column.nullable);
            Column { name: described.name.to_owned(), kind, type_name, nullable, generated: false }
        };
        let columns: Vec<Column> = described.iter().map(column).collect();

        let full = relation.identity == b'f';
        let identity: Vec<usize> = (0..described.len()).filter(|&at| described[at].key).collect();
        let at = |name: &String| described.iter().position(|column| column.name == name);
        let catalog_key: Option<Vec<usize>> =
            now.as_ref().and_then(|now| now.key()).and_then(|names| names.iter().map(at).collect());
        let key = match catalog_key {
            Some(key) if full || is_permutation(&key, &identity) => key,
            _ if full => Vec::new(),
            _ => identity.clone(),
        };
        let known = self.known.get(&relation.oid).filter(|known| known.message == relation.bytes);
        if key.is_empty()
            && let Some(known) = known.and_then(|known| known.table.clone())
        {
            // It has lost its key since, or is gone; what is in the log is from before.
            return Ok(known);
        }
        if key.is_empty() {
            return Err(Error::Fatal(format!(
                "table {name} has no key: ALTER TABLE {} ADD PRIMARY KEY (...), or choose a unique index with REPLICA IDENTITY USING INDEX",
                name.quoted()
            )));
        }
        let plan = |(at, column): (usize, &Column)| Plan {
            form: Form::from(&column.kind),
            key: key.contains(&at),
            identity: identity.contains(&at),
        };
        let plans = columns.iter().enumerate().map(plan).collect();
        let may_lack: Vec<usize> = match full && now.as_ref().is_some_and(|now| now.partitioned) {
            true => (0..columns.len()).filter(|at| !key.contains(at)).collect(),
            false => Vec::new(),
        };
        let may_lack = if may_lack.iter().any(|at| !columns[*at].nullable) { may_lack } else { Vec::new() };
        let schema = Arc::new(Schema::new(table.clone(), Engine::Postgres, columns, key));
        Ok(Arc::new(Table { schema, columns: plans, may_lack }))
    }
}

fn is_permutation(key: &[usize], identity: &[usize]) -> bool {
    key.len() == identity.len() && key.iter().all(|at| identity.contains(at))
}
