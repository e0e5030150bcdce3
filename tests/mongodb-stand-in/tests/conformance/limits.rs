//! What is too large or too deep is refused, and does no harm.

use anyhow::{Result, ensure};
use bson::{Bson, Document, RawDocumentBuf, doc};

use crate::deployment::{Deployment, Rows, refused, within};

/// A document with that many levels, itself included.
fn nested(levels: usize) -> Document {
    (1..levels).fold(doc! {"_id": 1}, |inner, _| doc! {"_id": 1, "n": inner})
}

#[tokio::test]
async fn nesting_is_stored_up_to_180_levels() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("nesting").await?.collection("a");
        rows.insert_one(nested(180)).await?;
        // Raw: a driver that decodes 180 levels needs more stack than a test has.
        let found = rows.clone_with_type::<RawDocumentBuf>().find_one(doc! {}).await?;
        ensure!(found == Some(RawDocumentBuf::try_from(&nested(180))?));
        ensure!(refused(rows.insert_one(nested(181)).await)? == 15);
        ensure!(refused(rows.insert_one(nested(250)).await)? == 15, "beyond what a message may hold");
        let path = std::iter::repeat_n("n", 181).collect::<Vec<_>>().join(".");
        ensure!(refused(rows.update_one(doc! {}, doc! {"$set": {path: 1}}).await).is_ok(), "an update went deeper");
        ensure!(rows.count_documents(doc! {}).await? == 1, "the connection is not usable any more");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_document_may_have_16_mb_and_not_more() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("size").await?.collection("a");
        let sized = |bytes: usize| {
            let empty = doc! {"_id": 1, "s": ""}.to_vec().map(|bytes| bytes.len()).unwrap_or_default();
            doc! {"_id": 1, "s": "x".repeat(bytes - empty)}
        };
        let limit = 16 * 1024 * 1024;
        rows.insert_one(sized(limit)).await?;
        let found = rows.find_one(doc! {}).await?.map(|row| row.to_vec()).transpose()?;
        ensure!(found.is_some_and(|bytes| bytes.len() == limit), "other bytes came back");
        ensure!(refused(rows.update_one(doc! {}, doc! {"$set": {"t": 1}}).await)? == 17419, "an update made it larger");
        rows.delete_many(doc! {}).await?;
        ensure!(rows.insert_one(sized(limit + 1)).await.is_err(), "more than 16 MB");
        ensure!(rows.count_documents(doc! {}).await? == 0);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn field_names_that_could_be_operators_are_refused_where_the_server_does() -> Result<()> {
    within(async {
        let deployment = Deployment::start().await?;
        let rows: Rows = deployment.database("names").await?.collection("a");
        let odd = doc! {"_id": 1, "a.b": 1, "o": {"$c": Bson::Null, "": 2}};
        rows.insert_one(&odd).await?;
        ensure!(rows.find_one(doc! {}).await? == Some(odd));
        ensure!(refused(rows.insert_one(doc! {"_id": {"$a": 1}}).await)? == 52);
        let replace = doc! {"update": "a", "updates": [{"q": {"_id": 1}, "u": {"a": 1, "$b": 1}}]};
        let reply = deployment.client.database(&rows.namespace().db).run_command(replace).await?;
        let error = reply.get_array("writeErrors")?[0].as_document().cloned().unwrap_or_default();
        ensure!(error.get_i32("code")? == 52, "{reply}");
        Ok(())
    })
    .await
}
