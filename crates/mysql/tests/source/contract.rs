//! What every source must do.

use crate::fixture::Fixture;
use anyhow::Result;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use sync_worker_core::database::{Database, Scope};
use sync_worker_testkit::contract::source::{self, Write};

impl source::Fixture for Fixture {
    type Transaction = Conn;

    fn database(&self) -> &dyn Database {
        &self.mysql
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }

    async fn begin(&self) -> Conn {
        let mut conn = self.database.connect().await.unwrap();
        conn.query_drop("BEGIN").await.unwrap();
        conn
    }

    async fn write(&self, transaction: &mut Conn, write: Write) {
        let sql = match write {
            Write::Insert(id) => format!("INSERT INTO t VALUES ({id}, REPEAT('x', 1000))"),
            Write::Update(id) => format!("UPDATE t SET note = CONCAT('y', note) WHERE id = {id}"),
            Write::Delete(id) => format!("DELETE FROM t WHERE id = {id}"),
        };
        transaction.query_drop(sql).await.unwrap();
    }

    async fn commit(&self, mut transaction: Conn) {
        transaction.query_drop("COMMIT").await.unwrap();
        transaction.disconnect().await.unwrap();
    }

    async fn roll_back(&self, mut transaction: Conn) {
        transaction.query_drop("ROLLBACK").await.unwrap();
        transaction.disconnect().await.unwrap();
    }

    async fn write_elsewhere(&self) {
        self.run(&["INSERT INTO elsewhere VALUES (1)"]).await.unwrap();
    }
}

#[tokio::test]
async fn mysql_is_a_source() -> Result<()> {
    let tables = ["CREATE TABLE t (id BIGINT PRIMARY KEY, note TEXT)", "CREATE TABLE elsewhere (id INT)"];
    let Some(fixture) = Fixture::new(&tables, &[source::TABLE]).await? else { return Ok(()) };
    source::holds(fixture).await;
    Ok(())
}
