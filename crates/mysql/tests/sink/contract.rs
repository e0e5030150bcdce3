//! What every sink must do.

use crate::fixture::Fixture;
use mysql_async::prelude::Queryable;
use sync_worker_core::sink::Sink;
use sync_worker_testkit::contract::sink;
use tokio::sync::Mutex;

struct Target(Mutex<Fixture>);

impl sink::Fixture for Target {
    async fn sink(&self) -> Box<dyn Sink> {
        Box::new(self.0.lock().await.another_sink().await)
    }

    async fn rows(&self) -> Vec<(i64, i64, String)> {
        self.0.lock().await.conn.query("SELECT id, version, note FROM t ORDER BY id").await.unwrap()
    }

    async fn refuse(&self, refused: bool) {
        let sql = match refused {
            true => "ALTER TABLE t ADD CONSTRAINT refuses CHECK (version <> -1)",
            false => "ALTER TABLE t DROP CONSTRAINT refuses",
        };
        self.0.lock().await.run(sql).await;
    }
}

#[tokio::test]
async fn mysql_is_a_sink() {
    // With and without another unique index: an upsert is allowed in one of them.
    for unique in ["", ", UNIQUE (version)"] {
        let table = format!(
            "CREATE TABLE t (id BIGINT PRIMARY KEY, version BIGINT NOT NULL, note VARCHAR(100) NOT NULL{unique})"
        );
        let Some(mut fixture) = Fixture::new(&format!("contract{}", unique.len()), &[&table]).await else { return };
        // Of this one, nobody has taken the target over.
        fixture.scope.pipeline = "contract".into();
        let target = Target(Mutex::new(fixture));
        sink::holds(&target).await;
        target.0.into_inner().close().await;
    }
}
