//! Logging in, and TLS.

use anyhow::{Result, ensure};
use bson::{Document, doc};
use sync_worker_mongodb_stand_in::{Options, StandIn, Tls};

use crate::deployment::{Deployment, connect, real, refused, within};

fn users() -> Options {
    Options { users: vec![("worker".to_owned(), "s3cret,=/".to_owned())], ..Options::default() }
}

#[tokio::test]
async fn only_the_right_password_gets_in() -> Result<()> {
    within(async {
        let Some(deployment) = Deployment::stand_in("users of its own", users()).await? else { return Ok(()) };
        let anonymous = deployment.client.database("db").collection::<Document>("a");
        ensure!(refused(anonymous.find_one(doc! {}).await)? == 13, "an anonymous read");
        let url = deployment.stand_in.as_ref().map(StandIn::url).unwrap_or_default();
        let as_user = |password: &str| url.replace("mongodb://", &format!("mongodb://worker:{password}@"));
        let client = connect(&as_user("s3cret%2C%3D%2F")).await?;
        client.database("db").collection("a").insert_one(doc! {"_id": 1}).await?;
        let status = client.database("admin").run_command(doc! {"connectionStatus": 1}).await?;
        let users = status.get_document("authInfo")?.get_array("authenticatedUsers")?;
        ensure!(users == &[doc! {"user": "worker", "db": "admin"}.into()], "{status}");
        let mut wrong = mongodb::options::ClientOptions::parse(as_user("wrong")).await?;
        wrong.server_selection_timeout = Some(std::time::Duration::from_secs(3));
        let client = mongodb::Client::with_options(wrong)?;
        let error = client.database("db").collection::<Document>("a").find_one(doc! {}).await.err();
        ensure!(error.is_some_and(|error| error.to_string().contains("uthentication")), "the wrong password got in");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn tls_is_spoken_with_the_given_certificate() -> Result<()> {
    within(async {
        let folder = tempfile::tempdir()?;
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, issued.cert.pem())?;
        std::fs::write(&key, issued.signing_key.serialize_pem())?;
        let tls = Some(Tls { certificate: certificate.clone(), key });
        if real().is_some() {
            println!("skipped on a real replica set: a certificate of its own");
            return Ok(());
        }
        let stand_in = StandIn::start(Options { tls, ..users() }).await?;
        let url = stand_in.url().replace("mongodb://", "mongodb://worker:s3cret%2C%3D%2F@");
        let client = connect(&format!("{url}&tlsCAFile={}", certificate.display())).await?;
        client.database("db").collection("a").insert_one(doc! {"_id": 1}).await?;
        let mut untrusting = mongodb::options::ClientOptions::parse(&url).await?;
        untrusting.server_selection_timeout = Some(std::time::Duration::from_secs(2));
        let client = mongodb::Client::with_options(untrusting)?;
        ensure!(
            client.database("db").run_command(doc! {"ping": 1}).await.is_err(),
            "an unknown certificate was trusted"
        );
        Ok(())
    })
    .await
}
