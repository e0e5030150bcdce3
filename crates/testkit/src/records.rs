//! Records as a capture would publish them, from a seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::name::{DatabaseName, TableName};
use sync_worker_core::position::{Lsn, MongodbPosition, MysqlPosition, Position, PostgresPosition};
use sync_worker_core::record::{Body, Record};
use sync_worker_core::row::{Row, RowBuilder};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::types::{ColumnType, Engine, TextLimit};
use sync_worker_core::value::{Cell, Value};

/// An endless stream of transactions of one origin, the same for the same seed.
pub struct Records {
    random: StdRng,
    origin: DatabaseName,
    engine: Engine,
    last: Position,
    schema: Option<Arc<Schema>>,
    versions: u64,
    /// Columns change about once in so many transactions.
    pub alter_every: u64,
    /// The longest text in a row.
    pub longest: usize,
}

impl Records {
    pub fn new(origin: &str, engine: Engine, seed: u64) -> Self {
        let last = match engine {
            Engine::Postgres => Position::Postgres(PostgresPosition { commit: Lsn(0x16_0000_0000), ordinal: u64::MAX }),
            Engine::Mysql => Position::Mysql(MysqlPosition { file: 7, offset: 4, ordinal: u64::MAX }),
            Engine::Mongodb => {
                Position::Mongodb(MongodbPosition { seconds: 1_700_000_000, increment: 1, ordinal: u64::MAX })
            }
        };
        Self {
            random: StdRng::seed_from_u64(seed),
            origin: DatabaseName::new(origin),
            engine,
            last,
            schema: None,
            versions: 0,
            alter_every: 200,
            longest: 120,
        }
    }

    /// Goes on behind a restart: the schema is announced again.
    pub fn restart(&mut self) {
        self.schema = None;
    }

    /// The records of the next transaction, a schema record before its first row where one is due.
    pub fn transaction(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        if self.random.random_ratio(1, u32::try_from(self.alter_every).unwrap_or(u32::MAX)) {
            self.versions += 1;
            self.schema = None;
        }
        let commit_time = 1_700_000_000_000_000 + self.random.random_range(0..1_000_000_000);
        if self.random.random_ratio(1, 10) {
            let schema = self.schema(commit_time, &mut records);
            for _ in 0..self.random.random_range(1..5) {
                let row = self.row(&schema);
                let change = Change { schema: schema.clone(), op: Op::Read, before: None, after: Some(row) };
                records.push(self.record(self.last, None, true, commit_time, Body::Change(change)));
            }
        }
        let schema = self.schema(commit_time, &mut records);
        let start = self.begin();
        let rows = self.random.random_range(1..=6);
        let end_apart = self.random.random_ratio(1, 8);
        let name = Arc::<str>::from(format!("{}", self.random.random::<u32>()));
        for ordinal in 0..rows {
            let change = self.change(&schema);
            let last = ordinal + 1 == rows && !end_apart;
            let transaction = (ordinal == 0).then(|| name.clone());
            let position = start.with_ordinal(ordinal);
            records.push(self.record(position, transaction, last, commit_time, Body::Change(change)));
            self.last = position;
        }
        if end_apart {
            records.push(self.record(start.end_of_transaction(), None, true, commit_time, Body::Commit));
            self.last = start.end_of_transaction();
        }
        records
    }

    fn schema(&mut self, commit_time: i64, records: &mut Vec<Record>) -> Arc<Schema> {
        if let Some(schema) = &self.schema {
            return schema.clone();
        }
        let schema = Arc::new(schema(self.engine, self.versions));
        records.push(self.record(self.last, None, true, commit_time, Body::Schema(schema.clone())));
        self.schema = Some(schema.clone());
        schema
    }

    fn begin(&mut self) -> Position {
        let step = self.random.random_range(40..100_000);
        match self.last {
            Position::Postgres(last) => {
                Position::Postgres(PostgresPosition { commit: Lsn(last.commit.0 + step), ordinal: 0 })
            }
            Position::Mysql(last) if self.random.random_ratio(1, 50) => {
                Position::Mysql(MysqlPosition { file: last.file + 1, offset: 157, ordinal: 0 })
            }
            Position::Mysql(last) => {
                Position::Mysql(MysqlPosition { file: last.file, offset: last.offset + step, ordinal: 0 })
            }
            Position::Mongodb(last) => {
                Position::Mongodb(MongodbPosition { seconds: last.seconds + 1, increment: 1, ordinal: 0 })
            }
        }
    }

    fn record(
        &self,
        position: Position,
        transaction: Option<Arc<str>>,
        last: bool,
        commit_time: i64,
        body: Body,
    ) -> Record {
        let previous = Some(self.last);
        Record { origin: self.origin.clone(), position, previous, transaction, last, commit_time, body }
    }

    fn change(&mut self, schema: &Arc<Schema>) -> Change {
        let (op, before, after) = match self.random.random_range(0..10) {
            0..4 => (Op::Create, None, Some(self.row(schema))),
            4..6 => (Op::Update, None, Some(self.row(schema))),
            6..8 => (Op::Update, Some(self.row(schema)), Some(self.row(schema))),
            8 => (Op::Delete, Some(self.row(schema)), None),
            _ if self.random.random_ratio(1, 20) => (Op::Truncate, None, None),
            _ => (Op::Delete, Some(self.row(schema)), None),
        };
        Change { schema: schema.clone(), op, before, after }
    }

    fn row(&mut self, schema: &Schema) -> Row {
        let mut builder = RowBuilder::default();
        builder.push(Cell::Present(Value::Int(self.random.random_range(0..1_000))));
        for _ in 1..schema.columns.len() {
            let length = self.random.random_range(0..=self.longest);
            match self.random.random_range(0..4) {
                0 => builder.push(Cell::Unchanged),
                1 => builder.push(Cell::Present(Value::Null)),
                _ => builder.push(Cell::Present(Value::Text(&"lorem ipsum dolor ".repeat(1 + length / 18)[..length]))),
            }
        }
        builder.finish()
    }
}

/// A table of one key column and two or more text columns; each version is another schema.
pub fn schema(engine: Engine, version: u64) -> Schema {
    let column = |name: String, kind: ColumnType, type_name: &str, nullable| Column {
        name,
        kind,
        type_name: type_name.to_owned(),
        nullable,
        generated: false,
    };
    let mut columns = vec![column("id".to_owned(), ColumnType::Int { bits: 64, unsigned: false }, "bigint", false)];
    for number in 0..2 + version % 5 {
        let kind = ColumnType::Text { limit: TextLimit::Characters(200), padded: false };
        columns.push(column(format!("note_{version}_{number}"), kind, "character varying(200)", true));
    }
    Schema::new(TableName::new("customer"), engine, columns, vec![0])
}

/// Whether two records mean the same, to the last byte.
pub fn same(one: &Record, other: &Record) -> bool {
    let bodies = match (&one.body, &other.body) {
        (Body::Change(one), Body::Change(other)) => same_change(one, other),
        (Body::Schema(one), Body::Schema(other)) => one == other,
        (Body::Commit, Body::Commit) => true,
        (Body::Marker(one), Body::Marker(other)) => one == other,
        (Body::Configuration(one), Body::Configuration(other)) => one == other,
        (Body::Decision(one), Body::Decision(other)) => {
            one.seen == other.seen && same_change(&one.change, &other.change)
        }
        (Body::Resume(one), Body::Resume(other)) | (Body::Seeded(one), Body::Seeded(other)) => one == other,
        (
            Body::Change(_)
            | Body::Schema(_)
            | Body::Commit
            | Body::Marker(_)
            | Body::Configuration(_)
            | Body::Decision(_)
            | Body::Resume(_)
            | Body::Seeded(_),
            _,
        ) => false,
    };
    let head = |record: &Record| (record.position, record.previous, record.last, record.commit_time);
    bodies && one.origin == other.origin && head(one) == head(other) && one.transaction == other.transaction
}

fn same_change(one: &Change, other: &Change) -> bool {
    *one.schema == *other.schema && one.op == other.op && one.before == other.before && one.after == other.after
}
