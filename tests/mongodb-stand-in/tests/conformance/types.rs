//! BSON values come back as they were sent.

use anyhow::{Context, Result, ensure};
use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, JavaScriptCodeWithScope, Regex, Timestamp, doc};
use futures::TryStreamExt;

use crate::deployment::{Deployment, Rows, refused, within};

#[tokio::test]
async fn every_type_and_binary_subtype_comes_back_byte_for_byte() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("types").await?.collection("t");
        let mut row = doc! {
            "_id": ObjectId::new(), "double": 1.5, "nan": f64::NAN, "negative zero": -0.0, "string": "x\u{0}y",
            "document": {"b": 1, "a": 2}, "array": [1, "2", Bson::Null], "undefined": Bson::Undefined, "bool": true,
            "date": DateTime::from_millis(-5), "null": Bson::Null,
            "regex": Regex { pattern: "^a".try_into()?, options: "i".try_into()? },
            "code": Bson::JavaScriptCode("f()".into()),
            "scoped": JavaScriptCodeWithScope { code: "g".into(), scope: doc! {"q": 1} },
            "symbol": Bson::Symbol("sy".into()), "int": 7, "timestamp": Timestamp { time: 4_000_000_000, increment: 3 },
            "long": i64::MAX, "decimal": Bson::Decimal128("1.20E+3".parse()?), "min": Bson::MinKey, "max": Bson::MaxKey,
        };
        for subtype in (0..=8u8).chain([128]) {
            let binary = Binary { subtype: BinarySubtype::from(subtype), bytes: vec![9; 16] };
            row.insert(format!("binary {subtype}"), binary);
        }
        rows.insert_one(&row).await?;
        let found = rows.find_one(doc! {"_id": row.get("_id")}).await?.context("the row is gone")?;
        ensure!(found.to_vec()? == row.to_vec()?, "other bytes: {found}");
        rows.update_one(doc! {}, doc! {"$set": {"zz": 1}}).await?;
        row.insert("zz", 1);
        let found = rows.find_one(doc! {}).await?.context("the row is gone")?;
        ensure!(found.to_vec()? == row.to_vec()?, "other bytes after an update: {found}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ids_of_all_types_stand_in_the_servers_order() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("id_order").await?.collection("t");
        let in_order = [
            Bson::MinKey,
            Bson::Null,
            Bson::Int32(-1),
            Bson::Decimal128("0.5".parse()?),
            Bson::Double(0.75),
            Bson::Int64(1),
            Bson::String("a".into()),
            Bson::Document(doc! {"a": 1}),
            Bson::Document(doc! {"b": 0}),
            Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![1] }),
            Bson::ObjectId(ObjectId::new()),
            Bson::Boolean(false),
            Bson::DateTime(DateTime::from_millis(0)),
            Bson::Timestamp(Timestamp { time: 1, increment: 1 }),
            Bson::MaxKey,
        ];
        rows.insert_many(in_order.iter().rev().map(|id| doc! {"_id": id.clone()})).await?;
        let found: Vec<_> = rows.find(doc! {}).sort(doc! {"_id": 1}).await?.try_collect().await?;
        let ids: Vec<Bson> = found.into_iter().filter_map(|mut row| row.remove("_id")).collect();
        ensure!(ids == in_order, "{ids:?}");
        ensure!(refused(rows.insert_one(doc! {"_id": 1.0}).await)? == 11000, "1.0 and NumberLong(1) are two rows");
        ensure!(refused(rows.insert_one(doc! {"_id": [1]}).await)? == 53, "an array is an _id");
        Ok(())
    })
    .await
}
