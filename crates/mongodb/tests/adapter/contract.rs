//! What every source and every sink must do.

use crate::fixture::Fixture;
use anyhow::Result;
use bson::doc;
use bson::oid::ObjectId;
use mongodb::ClientSession;
use sync_worker_core::database::{Database, Scope};
use sync_worker_core::sink::Sink;
use sync_worker_testkit::contract::source::Write;
use sync_worker_testkit::contract::{sink, source};

impl source::Fixture for Fixture {
    type Transaction = ClientSession;

    fn database(&self) -> &dyn Database {
        &self.mongodb
    }

    fn scope(&self) -> &Scope {
        &self.scope
    }

    async fn begin(&self) -> ClientSession {
        let mut session = self.client.start_session().await.unwrap();
        session.start_transaction().await.unwrap();
        session
    }

    async fn write(&self, transaction: &mut ClientSession, write: Write) {
        let rows = self.rows(source::TABLE);
        match write {
            Write::Insert(id) => {
                rows.insert_one(doc! { "_id": id, "note": "x".repeat(1000) }).session(transaction).await.map(drop)
            }
            Write::Update(id) => {
                let update = doc! { "$set": { "note": ObjectId::new().to_hex() } };
                rows.update_one(doc! { "_id": id }, update).session(transaction).await.map(drop)
            }
            Write::Delete(id) => rows.delete_one(doc! { "_id": id }).session(transaction).await.map(drop),
        }
        .unwrap();
    }

    async fn commit(&self, mut transaction: ClientSession) {
        transaction.commit_transaction().await.unwrap();
    }

    async fn roll_back(&self, mut transaction: ClientSession) {
        transaction.abort_transaction().await.unwrap();
    }

    async fn write_elsewhere(&self) {
        self.rows("elsewhere").insert_one(doc! {}).await.unwrap();
    }
}

impl sink::Fixture for Fixture {
    async fn sink(&self) -> Box<dyn Sink> {
        self.mongodb.sink(&self.scope).await.unwrap()
    }

    async fn rows(&self) -> Vec<(i64, i64, String)> {
        let all = self.all(sink::TABLE).await.unwrap();
        let rows = all.iter().filter(|row| row.get_object_id("_id").is_err());
        let number = |row: &bson::Document, name: &str| row.get_i64(name).unwrap();
        rows.map(|row| (number(row, "_id"), number(row, "version"), row.get_str("note").unwrap().to_owned())).collect()
    }

    /// The version is taken by a document that is nobody's row.
    async fn refuse(&self, refused: bool) {
        let rows = Fixture::rows(self, sink::TABLE);
        match refused {
            true => rows.insert_one(doc! { "version": sink::REFUSED }).await.map(drop),
            false => rows.delete_many(doc! { "version": sink::REFUSED }).await.map(drop),
        }
        .unwrap();
    }
}

#[tokio::test]
async fn mongodb_is_a_source() -> Result<()> {
    for images in [false, true] {
        let Some(fixture) = Fixture::new(&[source::TABLE]).await? else { return Ok(()) };
        if images {
            fixture.post_images(source::TABLE).await?;
        }
        source::holds(fixture).await;
    }
    Ok(())
}

#[tokio::test]
async fn mongodb_is_a_sink() -> Result<()> {
    let Some(fixture) = Fixture::new(&[sink::TABLE]).await? else { return Ok(()) };
    let index = doc! { "key": { "version": 1 }, "name": "version_1", "unique": true };
    fixture.database.run_command(doc! { "createIndexes": sink::TABLE, "indexes": [index] }).await?;
    sink::holds(&fixture).await;
    Ok(())
}
