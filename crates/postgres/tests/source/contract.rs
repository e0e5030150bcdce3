//! What every source must do.

use crate::support::Fixture;
use anyhow::Result;
use sync_worker_core::database::{Database, Scope};
use sync_worker_testkit::contract::source::{self, Write};
use tokio_postgres::Client;

impl source::Fixture for Fixture {
    type Transaction = Client;

    fn database(&self) -> &dyn Database {
        &self.postgres
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }

    async fn begin(&self) -> Client {
        let client = self.database.connect().await.unwrap();
        client.batch_execute("BEGIN").await.unwrap();
        client
    }

    async fn write(&self, transaction: &mut Client, write: Write) {
        let sql = match write {
            Write::Insert(id) => format!("INSERT INTO t VALUES ({id}, repeat('x', 1000))"),
            Write::Update(id) => format!("UPDATE t SET note = 'y' || note WHERE id = {id}"),
            Write::Delete(id) => format!("DELETE FROM t WHERE id = {id}"),
        };
        transaction.batch_execute(&sql).await.unwrap();
    }

    async fn commit(&self, transaction: Client) {
        transaction.batch_execute("COMMIT").await.unwrap();
    }

    async fn roll_back(&self, transaction: Client) {
        transaction.batch_execute("ROLLBACK").await.unwrap();
    }

    async fn write_elsewhere(&self) {
        self.execute("INSERT INTO elsewhere VALUES (1)").await.unwrap();
    }
}

#[tokio::test]
async fn postgres_is_a_source() -> Result<()> {
    let sql = "CREATE TABLE t (id bigint PRIMARY KEY, note text); CREATE TABLE elsewhere (id int)";
    source::holds(Fixture::new(sql, &[source::TABLE]).await?).await;
    Ok(())
}
