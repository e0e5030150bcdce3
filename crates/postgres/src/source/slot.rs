//! The slot and the publication that a pipeline has at its source.

use crate::catalog::{Qualified, Table};
use crate::client::{Client, identifier, literal};
use crate::error::Error;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use sync_worker_core::database::Scope;
use sync_worker_core::name::DatabaseName;
use sync_worker_core::position::Lsn;
use tokio::time::Instant;
use tokio_postgres::SimpleQueryRow;

/// How long a slot may stay in the hands of a connection that we have ended.
const HAND_OVER: Duration = Duration::from_secs(5);

/// The name of slot and publication, the same for both: at most 63 bytes, of letters, digits and underscores. Slots are
/// shared by all databases of a server, so the database is in it, too.
pub fn name(scope: &Scope, database: &DatabaseName) -> String {
    let whole = format!("{}\0{}\0{database}", scope.installation, scope.pipeline);
    let readable: String = scope
        .pipeline
        .as_str()
        .chars()
        .map(|character| match character.to_ascii_lowercase() {
            character if character.is_ascii_alphanumeric() => character,
            _ => '_',
        })
        .take(30)
        .collect();
    format!("sync_worker_{readable}_{:016x}", xxhash_rust::xxh3::xxh3_64(whole.as_bytes()))
}

/// A slot as `pg_replication_slots` shows it.
#[derive(Debug)]
pub struct Slot {
    pub plugin: String,
    pub database: String,
    /// Why the server can't serve it any more.
    pub lost: Option<String>,
    pub confirmed: Option<Lsn>,
}

pub async fn find(client: &Client, name: &str) -> Result<Option<Slot>, Error> {
    let sql = format!(
        "SELECT plugin, database, wal_status, to_jsonb(s) ->> 'invalidation_reason', to_jsonb(s) ->> 'conflicting', \
         confirmed_flush_lsn FROM pg_replication_slots s WHERE slot_name = {}",
        literal(name)
    );
    let rows = client.rows("a look at the slot", &sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let text = |column: usize| row.try_get(column).ok().flatten().unwrap_or_default();
    let lost = match (text(3), text(2), text(4)) {
        ("", "lost", _) => Some("its log was removed (max_slot_wal_keep_size)".to_owned()),
        ("", _, "true") => Some("it conflicted with recovery".to_owned()),
        ("", _, _) => None,
        (reason, _, _) => Some(reason.to_owned()),
    };
    Ok(Some(Slot { plugin: text(0).to_owned(), database: text(1).to_owned(), lost, confirmed: text(5).parse().ok() }))
}

/// Makes the slot and returns where it starts: transactions that commit at or after this point are in it.
pub async fn create(client: &Client, name: &str, failover: bool) -> Result<Lsn, Error> {
    let failover = if failover && client.version >= 170_000 { ", failover => true" } else { "" };
    let sql = format!(
        "SELECT lsn FROM pg_create_logical_replication_slot({}, 'pgoutput', false, false{failover})",
        literal(name)
    );
    // It waits for every transaction that is running now, which may be hours; the wait is one for locks.
    client.rows("the time limits of a session", "SET statement_timeout = 0; SET lock_timeout = 0").await?;
    let mut creating = std::pin::pin!(client.value("the creation of the slot", &sql));
    let lsn = tokio::select! {
        lsn = &mut creating => lsn,
        () = tokio::time::sleep(Duration::from_secs(5)) => {
            tracing::info!(slot = name, "the new slot waits for the transactions that are running at the source");
            creating.await
        }
    }?;
    client.rows("the time limits of a session", "RESET statement_timeout; RESET lock_timeout").await?;
    lsn.and_then(|lsn| lsn.parse().ok()).ok_or(Error::Protocol("a slot without a position"))
}

/// Ends whoever reads the slot: a connection of ours that the server has not missed yet. Whoever holds the lease of a
/// capture is the one to read its slot.
pub async fn release(client: &Client, name: &str) -> Result<(), Error> {
    let sql = format!(
        "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = {} AND active_pid IS NOT NULL",
        literal(name)
    );
    let deadline = Instant::now() + HAND_OVER;
    while !client.rows("to end the former reader of the slot", &sql).await?.is_empty() {
        if Instant::now() > deadline {
            let problem = format!("slot {name} is still read by another connection");
            return Err(Error::Lost { doing: "the start of the stream".into(), problem });
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

pub async fn drop_slot(client: &Client, name: &str) -> Result<(), Error> {
    release(client, name).await?;
    let sql = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {}",
        literal(name)
    );
    client.rows("to drop the slot", &sql).await.map(|_| ())
}

pub async fn drop_publication(client: &Client, name: &str) -> Result<(), Error> {
    let sql = format!("DROP PUBLICATION IF EXISTS {}", identifier(name));
    client.rows("to drop the publication", &sql).await.map(|_| ())
}

/// What became of a publication that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Publication {
    Unchanged,
    Created,
    /// Its tables were others.
    Altered,
}

/// Whether the publication `p` has the options that ours are made with: all operations, and partitions as their root.
const WHOLE: &str = "(p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AND p.pubviaroot)";

/// Makes the publication hold exactly these tables.
pub async fn publish(client: &Client, name: &str, tables: &[Table]) -> Result<Publication, Error> {
    let sql = format!("SELECT {WHOLE} FROM pg_publication p WHERE pubname = {}", literal(name));
    let rows = client.rows("a look at the publication", &sql).await?;
    // Without ONLY, tables that inherit from this one would be in it and their rows would look like its own.
    let clause = |table: &Table| table.from_clause();
    let list = tables.iter().map(clause).collect::<Vec<_>>().join(", ");
    let publication = identifier(name);
    let is_whole = |row: &SimpleQueryRow| row.get(0) == Some("t");
    let Some(row) = rows.first() else {
        let sql = format!("CREATE PUBLICATION {publication} FOR TABLE {list} WITH (publish_via_partition_root = true)");
        client.rows("the creation of the publication", &sql).await?;
        return Ok(Publication::Created);
    };
    if !is_whole(row) {
        let sql = format!(
            "ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)"
        );
        client.rows("a change of the publication", &sql).await?;
    }
    let have: BTreeSet<u32> = published(client, name).await?.into_keys().collect();
    let wanted: BTreeSet<u32> = tables.iter().map(|table| table.oid).collect();
    if have == wanted {
        return Ok(Publication::Unchanged);
    }
    let sql = format!("ALTER PUBLICATION {publication} SET TABLE {list}");
    client.rows("a change of the publication", &sql).await?;
    Ok(Publication::Altered)
}

/// Which tables a stream was opened over, and the row of the catalog that makes each a part of the publication: one that
/// was taken out and put back has another.
#[derive(Debug)]
pub struct Membership {
    publication: String,
    rows: BTreeMap<u32, u32>,
    names: BTreeMap<u32, Qualified>,
}

/// A table of a [`Membership`] as it is now.
struct Member {
    oid: u32,
    is_there: bool,
    /// The row that makes it a part of the publication.
    row: Option<u32>,
    /// The table that has its name.
    named: Option<u32>,
}

impl Membership {
    pub async fn now(client: &Client, publication: &str, tables: &[Table]) -> Result<Self, Error> {
        let names = tables.iter().map(|table| (table.oid, table.name.clone())).collect();
        let mut membership = Self { publication: publication.to_owned(), rows: BTreeMap::new(), names };
        let now = membership.look(client).await?;
        membership.rows = now.into_iter().filter_map(|member| Some((member.oid, member.row?))).collect();
        Ok(membership)
    }

    async fn look(&self, client: &Client) -> Result<Vec<Member>, Error> {
        let table = |(oid, name): (&u32, &Qualified)| {
            format!("({oid}::oid, {}::name, {}::name)", literal(&name.schema), literal(&name.table))
        };
        let tables: Vec<String> = self.names.iter().map(table).collect();
        let sql = format!(
            "SELECT t.oid, c.oid, r.oid, n.oid FROM (VALUES {}) AS t (oid, schema_name, table_name) \
             LEFT JOIN pg_class c ON c.oid = t.oid \
             LEFT JOIN (pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid AND p.pubname = {} AND {WHOLE}) \
             ON r.prrelid = t.oid \
             LEFT JOIN (pg_class n JOIN pg_namespace s ON s.oid = n.relnamespace) \
             ON s.nspname = t.schema_name AND n.relname = t.table_name AND n.relkind IN ('r', 'p', 'f')",
            tables.join(", "),
            literal(&self.publication)
        );
        let rows = client.rows("a look at the publication", &sql).await?;
        let number = |row: &SimpleQueryRow, at| row.get(at).and_then(|text| text.parse::<u32>().ok());
        let member = |row: &SimpleQueryRow| {
            let (is_there, row_of, named) = (number(row, 1).is_some(), number(row, 2), number(row, 3));
            Some(Member { oid: number(row, 0)?, is_there, row: row_of, named })
        };
        Ok(rows.iter().filter_map(member).collect())
    }

    /// A table whose changes are not all sent any more. One that was dropped has none, unless another one has its name.
    pub async fn lost(&self, client: &Client) -> Result<Option<String>, Error> {
        let now = self.look(client).await?;
        Ok(now.iter().find_map(|member| {
            let table = self.names.get(&member.oid)?.to_string();
            if member.named.is_some_and(|named| named != member.oid) {
                return Some(made_again(&table));
            }
            let taken_out_of_it = member.is_there && member.row.as_ref() != self.rows.get(&member.oid);
            taken_out_of_it.then(|| taken_out(&table, &self.publication))
        }))
    }
}

/// What a GAP says of a table whose name is another one's.
pub fn made_again(table: &str) -> String {
    format!("table {table} was dropped and made again, or another one has taken its name")
}

/// What a GAP says of such a table.
pub fn taken_out(table: &str, publication: &str) -> String {
    format!("table {table} was taken out of the publication {publication}, or some of its changes were")
}

/// The publication's tables by oid, each with the row of the catalog that makes it a part of it; none where it leaves operations out, and not those of which it leaves rows or
/// columns out (PostgreSQL 15 and later).
pub async fn published(client: &Client, name: &str) -> Result<BTreeMap<u32, u32>, Error> {
    let sql = format!(
        "SELECT r.prrelid, r.oid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = {} \
         AND {WHOLE} AND to_jsonb(r) ->> 'prqual' IS NULL AND to_jsonb(r) ->> 'prattrs' IS NULL",
        literal(name)
    );
    let rows = client.rows("a look at the publication", &sql).await?;
    let number = |row: &SimpleQueryRow, at| row.get(at).and_then(|text| text.parse().ok());
    Ok(rows.iter().filter_map(|row| Some((number(row, 0)?, number(row, 1)?))).collect())
}

/// A table of the publication as its comment remembers it: its oid, and the row that makes it a part of the publication.
pub type Remembered = BTreeMap<String, (u32, Option<u32>)>;

/// Writes into the publication's comment which tables it was made for: a table that is dropped leaves a publication
/// without a trace, and so does one that is taken out and put back.
pub async fn remember(client: &Client, name: &str, tables: &[Table]) -> Result<(), Error> {
    let published = published(client, name).await?;
    let member = |table: &Table| Some((table.name.to_string(), (table.oid, Some(*published.get(&table.oid)?))));
    let members: Remembered = tables.iter().filter_map(member).collect();
    if remembered(client, name).await? == members {
        return Ok(());
    }
    let text = serde_json::to_string(&members).unwrap_or_default();
    let sql = format!("COMMENT ON PUBLICATION {} IS {}", identifier(name), literal(&text));
    client.rows("a comment on the publication", &sql).await.map(|_| ())
}

/// What [`remember`] wrote; nothing where somebody else wrote the comment.
pub async fn remembered(client: &Client, name: &str) -> Result<Remembered, Error> {
    let sql =
        format!("SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = {}", literal(name));
    let text = client.value("a look at the publication", &sql).await?;
    Ok(text.as_deref().map(remembered_in).unwrap_or_default())
}

/// Older builds remembered a table's oid alone.
fn remembered_in(text: &str) -> Remembered {
    let Ok(tables) = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(text) else {
        return Remembered::new();
    };
    let of = |table: serde_json::Value| match table {
        serde_json::Value::Number(oid) => Some((u32::try_from(oid.as_u64()?).ok()?, None)),
        both => serde_json::from_value(both).ok(),
    };
    tables.into_iter().filter_map(|(name, table)| Some((name, of(table)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_older_builds_have_remembered_counts() {
        let found = remembered_in(r#"{"public.a": 16385, "public.b": [16386, 16390], "c": "by somebody else"}"#);
        let expected = [("public.a", (16385, None)), ("public.b", (16386, Some(16390)))];
        assert_eq!(found, expected.map(|(name, table)| (name.to_owned(), table)).into());
        assert!(remembered_in("a comment by somebody else").is_empty());
    }

    #[test]
    fn names_are_valid_and_differ() {
        let scope = |pipeline: &str| Scope {
            installation: "0198c5a0".into(),
            pipeline: pipeline.into(),
            tables: Vec::new(),
            two_way: false,
            spill: "spill".into(),
        };
        let long = "Kunden-Übersicht und noch sehr viel mehr als in einen Namen passt";
        let one = name(&scope(long), &"crm".into());
        let other = name(&scope(long), &"shop".into());
        assert!(one.len() <= 63 && one != other, "{one}");
        assert!(one.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'), "{one}");
        assert!(one.starts_with("sync_worker_kunden__bersicht"), "{one}");
    }
}
