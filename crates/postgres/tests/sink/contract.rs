//! What every sink must do.

use crate::fixture::{Target, on_server};
use sync_worker_core::sink::Sink;
use sync_worker_testkit::contract::sink;

impl sink::Fixture for Target {
    async fn sink(&self) -> Box<dyn Sink> {
        self.try_sink(&[sink::TABLE]).await.unwrap()
    }

    async fn rows(&self) -> Vec<(i64, i64, String)> {
        let rows = self.client.rows("a look", "SELECT id, version, note FROM public.t ORDER BY id").await.unwrap();
        let number = |text: Option<&str>| text.unwrap().parse().unwrap();
        rows.iter().map(|row| (number(row.get(0)), number(row.get(1)), row.get(2).unwrap().to_owned())).collect()
    }

    async fn refuse(&self, refused: bool) {
        self.sql(match refused {
            true => "ALTER TABLE t ADD CONSTRAINT refuses CHECK (version <> -1)",
            false => "ALTER TABLE t DROP CONSTRAINT refuses",
        })
        .await;
    }
}

#[test]
fn postgres_is_a_sink() {
    on_server(async |target| {
        target.sql("CREATE TABLE t (id bigint PRIMARY KEY, version bigint NOT NULL, note text NOT NULL)").await;
        sink::holds(&target).await;
    });
}
