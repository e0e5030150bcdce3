//! What every write to `account` replaced, at each member: triggers that fire for applications and for the worker alike, and with
//! MongoDB the database's own stream.

use super::{Member, TwoWay};
use crate::connection::{Connection, Texts};
use crate::kind::Kind;
use crate::mongodb::{note_time, number, since_noted};
use ::mongodb::bson::Document;
use anyhow::{Context, bail};

/// A write of a row, by the writer ids that name versions. None is no row.
#[derive(Clone, Debug)]
pub struct Replaced {
    pub member: &'static str,
    pub id: i64,
    pub old: Option<String>,
    pub new: Option<String>,
}

impl TwoWay {
    /// From here on each member keeps what [`Self::replaced`] returns. Before the worker's first start.
    pub async fn log_replaced(&self) -> anyhow::Result<()> {
        for member in &self.members {
            let kind = member.database.kind;
            match member.database.connect().await? {
                Connection::Mongodb(documents) => note_time(&documents).await?,
                mut connection => {
                    for statement in logging(kind) {
                        connection.execute(&statement).await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Every write to `account` since [`Self::log_replaced`], in the order of each key at each member.
    pub async fn replaced(&self) -> anyhow::Result<Vec<Replaced>> {
        let mut all = Vec::new();
        for member in &self.members {
            match member.database.connect().await? {
                Connection::Mongodb(documents) => {
                    for event in since_noted(&documents, "account").await? {
                        let writer = |image: Option<&Document>| {
                            image.and_then(|image| image.get_str("writer").ok()).map(str::to_owned)
                        };
                        let id = event.document_key.as_ref().and_then(|key| number(key.get("_id")));
                        all.push(Replaced {
                            member: member.name,
                            id: id.context("an event without a key")?,
                            old: writer(event.full_document_before_change.as_ref()),
                            new: writer(event.full_document.as_ref()),
                        });
                    }
                }
                mut connection => {
                    let rows = connection.rows("SELECT id, old_writer, new_writer FROM replaced ORDER BY n").await?;
                    for row in rows {
                        all.push(of_texts(member, row)?);
                    }
                }
            }
        }
        Ok(all)
    }
}

fn of_texts(member: &Member, row: Texts) -> anyhow::Result<Replaced> {
    match <[Option<String>; 3]>::try_from(row) {
        Ok([Some(id), old, new]) => Ok(Replaced { member: member.name, id: id.parse()?, old, new }),
        Ok(_) | Err(_) => bail!("a strange row of the log of {}", member.name),
    }
}

fn logging(kind: Kind) -> Vec<String> {
    let table = kind.pick(
        "CREATE TABLE replaced (n BIGSERIAL PRIMARY KEY, id BIGINT NOT NULL, old_writer VARCHAR(40), new_writer VARCHAR(40))",
        "CREATE TABLE replaced (n BIGINT AUTO_INCREMENT PRIMARY KEY, id BIGINT NOT NULL, old_writer VARCHAR(40), \
         new_writer VARCHAR(40))",
    );
    let mut statements = vec![table.to_owned()];
    if kind == Kind::Postgres {
        let function = "CREATE FUNCTION note_replaced() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
             INSERT INTO public.replaced (id, old_writer, new_writer) VALUES (coalesce(NEW.id, OLD.id), OLD.writer, NEW.writer); \
             RETURN NULL; END $$";
        let trigger = "CREATE TRIGGER note_replaced AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW \
             EXECUTE FUNCTION note_replaced()";
        let always = "ALTER TABLE account ENABLE ALWAYS TRIGGER note_replaced";
        statements.extend([function, trigger, always].map(str::to_owned));
    } else {
        let of_kind = [
            ("INSERT", "NEW.id, NULL, NEW.writer"),
            ("UPDATE", "NEW.id, OLD.writer, NEW.writer"),
            ("DELETE", "OLD.id, OLD.writer, NULL"),
        ];
        statements.extend(of_kind.map(|(kind, values)| {
            format!(
                "CREATE TRIGGER note_{kind} AFTER {kind} ON account FOR EACH ROW \
                 INSERT INTO replaced (id, old_writer, new_writer) VALUES ({values})"
            )
        }));
    }
    statements
}
