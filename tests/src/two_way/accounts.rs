//! Rows of `account` and of tables like it, written and read alike at every kind of member.

use super::is_conflict;
use crate::connection::{Connection, Texts};
use crate::database::Database;
use crate::kind::Kind;
use crate::mongodb::{is_keyed_by, number};
use ::mongodb::Collection;
use ::mongodb::bson::{Document, doc};
use anyhow::{Context, bail};
use futures::TryStreamExt;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    pub id: i64,
    pub writer: String,
    pub a: i32,
    pub b: i32,
    pub counter: i64,
}

const COLUMNS: &str = "id, writer, a, b, counter";

impl Account {
    fn of_texts(row: Texts) -> anyhow::Result<Self> {
        match <[Option<String>; 5]>::try_from(row) {
            Ok([Some(id), Some(writer), Some(a), Some(b), Some(counter)]) => {
                Ok(Self { id: id.parse()?, writer, a: a.parse()?, b: b.parse()?, counter: counter.parse()? })
            }
            Ok(_) | Err(_) => bail!("a row lacks one of {COLUMNS}"),
        }
    }

    fn of_document(row: &Document) -> anyhow::Result<Self> {
        let of = |field: &str| number(row.get(field)).with_context(|| format!("a document without a number {field}"));
        let id = of(if row.contains_key("id") { "id" } else { "_id" })?;
        let (a, b, counter) = (of("a")?, of("b")?, of("counter")?);
        Ok(Self { id, writer: row.get_str("writer")?.to_owned(), a: a.try_into()?, b: b.try_into()?, counter })
    }

    fn values(&self) -> String {
        let Self { id, writer, a, b, counter } = self;
        format!("({id}, '{writer}', {a}, {b}, {counter})")
    }

    fn document(&self, key: &str) -> Document {
        doc! { key: self.id, "writer": self.writer.as_str(), "a": self.a, "b": self.b, "counter": self.counter }
    }
}

/// What is done to a row that is there.
#[derive(Clone, Debug, Default)]
pub struct Change {
    pub writer: Option<String>,
    pub a: Option<i32>,
    pub b: Option<i32>,
    /// Added to the counter.
    pub add: i64,
}

impl Change {
    pub fn by(writer: &str) -> Self {
        Self { writer: Some(writer.to_owned()), ..Self::default() }
    }

    pub fn adding(add: i64) -> Self {
        Self { add, ..Self::default() }
    }

    fn assignments(&self) -> String {
        let mut all = Vec::new();
        all.extend(self.writer.as_ref().map(|writer| format!("writer = '{writer}'")));
        all.extend(self.a.map(|a| format!("a = {a}")));
        all.extend(self.b.map(|b| format!("b = {b}")));
        if self.add != 0 {
            all.push(format!("counter = counter + {}", self.add));
        }
        all.join(", ")
    }

    fn document(&self) -> Document {
        let mut set = Document::new();
        if let Some(writer) = &self.writer {
            set.insert("writer", writer.as_str());
        }
        if let Some(a) = self.a {
            set.insert("a", a);
        }
        if let Some(b) = self.b {
            set.insert("b", b);
        }
        let mut change = Document::new();
        if !set.is_empty() {
            change.insert("$set", set);
        }
        if self.add != 0 {
            change.insert("$inc", doc! { "counter": self.add });
        }
        change
    }
}

/// An application's connection to the rows of one table. Where the worker is in the way for a moment, it tries again.
pub struct Accounts {
    connection: Connection,
    table: String,
    /// What the key of documents is called.
    key: &'static str,
}

/// What the key of accounts is called where they are documents.
pub(super) async fn key_of_documents(connection: &Connection, table: &str) -> anyhow::Result<&'static str> {
    Ok(match connection {
        Connection::Mongodb(documents) if is_keyed_by(documents, table, &["id"]).await? => "id",
        _ => "_id",
    })
}

impl Accounts {
    pub async fn open(database: &Database) -> anyhow::Result<Self> {
        let (connection, table) = (database.connect().await?, "account".to_owned());
        let key = key_of_documents(&connection, &table).await?;
        Ok(Self { connection, table, key })
    }

    /// The rows of another table, from here on.
    pub fn of(&mut self, table: &str) -> &mut Self {
        table.clone_into(&mut self.table);
        self
    }

    fn collection(&self) -> Option<Collection<Document>> {
        match &self.connection {
            Connection::Mongodb(documents) => Some(documents.collection(&self.table)),
            Connection::Postgres(_) | Connection::Mysql(_) => None,
        }
    }

    /// Whether the key was free: a row that is there stays as it is.
    pub async fn insert(&mut self, row: &Account) -> anyhow::Result<bool> {
        loop {
            match self.try_insert(row).await {
                Err(error) if is_conflict(&error) => {}
                done => return done,
            }
        }
    }

    async fn try_insert(&mut self, row: &Account) -> anyhow::Result<bool> {
        if let Some(rows) = self.collection() {
            return match rows.insert_one(row.document(self.key)).await {
                Err(error) if error.to_string().contains("11000") => Ok(false),
                done => Ok(done.map(|_| true)?),
            };
        }
        let (table, values) = (&self.table, row.values());
        if self.connection.kind() == Kind::Postgres {
            let sql = format!("INSERT INTO {table} VALUES {values} ON CONFLICT DO NOTHING RETURNING id");
            return Ok(!self.connection.rows(&sql).await?.is_empty());
        }
        self.connection.execute(&format!("INSERT IGNORE INTO {table} VALUES {values}")).await?;
        Ok(self.connection.number("SELECT ROW_COUNT()").await? == 1)
    }

    /// Rows under keys that are free, in one statement.
    pub async fn insert_all(&mut self, rows: &[Account]) -> anyhow::Result<()> {
        if let Some(collection) = self.collection() {
            collection.insert_many(rows.iter().map(|row| row.document(self.key))).await?;
            return Ok(());
        }
        let values: Vec<String> = rows.iter().map(Account::values).collect();
        let sql = format!("INSERT INTO {} VALUES {}", self.table, values.join(", "));
        loop {
            match self.connection.execute(&sql).await {
                Err(error) if is_conflict(&error) => {}
                done => return done,
            }
        }
    }

    /// Changes the row that is there and returns what it was; None where there is none.
    pub async fn change(&mut self, id: i64, change: &Change) -> anyhow::Result<Option<Account>> {
        self.replace(id, Some(change)).await
    }

    /// Deletes the row that is there and returns what it was; None where there is none.
    pub async fn delete(&mut self, id: i64) -> anyhow::Result<Option<Account>> {
        self.replace(id, None).await
    }

    async fn replace(&mut self, id: i64, change: Option<&Change>) -> anyhow::Result<Option<Account>> {
        loop {
            match self.try_replace(id, change).await {
                Err(error) if is_conflict(&error) => {
                    if self.connection.kind() != Kind::Mongodb {
                        self.connection.execute("ROLLBACK").await?;
                    }
                }
                done => return done,
            }
        }
    }

    /// In one transaction, so that what it returns is what was replaced.
    async fn try_replace(&mut self, id: i64, change: Option<&Change>) -> anyhow::Result<Option<Account>> {
        if let Some(rows) = self.collection() {
            let key = doc! { self.key: id };
            let was = match change {
                Some(change) => rows.find_one_and_update(key, change.document()).await?,
                None => rows.find_one_and_delete(key).await?,
            };
            return was.as_ref().map(Account::of_document).transpose();
        }
        let table = &self.table;
        let look = format!("SELECT {COLUMNS} FROM {table} WHERE id = {id} FOR UPDATE");
        let sql = match change {
            Some(change) => format!("UPDATE {table} SET {} WHERE id = {id}", change.assignments()),
            None => format!("DELETE FROM {table} WHERE id = {id}"),
        };
        self.connection.execute("BEGIN").await?;
        let was = self.connection.rows(&look).await?.into_iter().next().map(Account::of_texts).transpose()?;
        if was.is_some() {
            self.connection.execute(&sql).await?;
        }
        self.connection.execute("COMMIT").await?;
        Ok(was)
    }

    pub async fn read(&mut self, id: i64) -> anyhow::Result<Option<Account>> {
        if let Some(rows) = self.collection() {
            return rows.find_one(doc! { self.key: id }).await?.as_ref().map(Account::of_document).transpose();
        }
        let sql = format!("SELECT {COLUMNS} FROM {} WHERE id = {id}", self.table);
        self.connection.rows(&sql).await?.into_iter().next().map(Account::of_texts).transpose()
    }

    /// Every row, by its key.
    pub async fn all(&mut self) -> anyhow::Result<Vec<Account>> {
        if let Some(rows) = self.collection() {
            let found: Vec<Document> = rows.find(doc! {}).sort(doc! { self.key: 1 }).await?.try_collect().await?;
            return found.iter().map(Account::of_document).collect();
        }
        let sql = format!("SELECT {COLUMNS} FROM {} ORDER BY id", self.table);
        self.connection.rows(&sql).await?.into_iter().map(Account::of_texts).collect()
    }
}
