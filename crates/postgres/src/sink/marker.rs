//! The schema `sync_worker` at a target: the marker and the parked rows.

use super::encode::{Array, Element};
use super::failure::SUPERSEDED;
use super::pipeline::{Parameter, Pipeline};
use crate::client::{Client, literal};
use crate::own::Owner;
use bytes::Bytes;
use std::collections::BTreeMap;
use sync_worker_core::convert::Refusal;
use sync_worker_core::echo::WRITTEN;
use sync_worker_core::guard::{Image, Seen};
use sync_worker_core::name::TableName;
use sync_worker_core::record::Offset;
use sync_worker_core::row::Key;
use sync_worker_core::sink::{Marker, ParkedKey, Progress};
use sync_worker_core::value::Value;
use tokio_postgres::Statement;

/// An owner's columns as literals.
fn values(owner: &Owner) -> String {
    let [installation, pipeline, database] =
        [&owner.installation, &owner.pipeline, &owner.database].map(|name| literal(name));
    format!("{installation}, {pipeline}, {database}, {}", owner.partition.0)
}

fn mine(owner: &Owner) -> String {
    format!("(installation, pipeline, database, partition) = ({})", values(owner))
}

/// The statements about marker and parked rows, prepared.
pub struct Ledger {
    advance: Statement,
    park: Statement,
    mark_written: Statement,
    unpark: Statement,
    unpark_table: Statement,
}

/// Rows of `sync_worker.parked` to write.
pub struct ParkedRows {
    tables: Array,
    digests: Array,
    keys: Array,
    offsets: Array,
    reasons: Array,
    /// NULL where the version was refused.
    seen: Array,
}

impl Default for ParkedRows {
    fn default() -> Self {
        Self {
            tables: Array::new(Element::Text),
            digests: Array::new(Element::Bytea),
            keys: Array::new(Element::Bytea),
            offsets: Array::new(Element::Int8),
            reasons: Array::new(Element::Text),
            seen: Array::new(Element::Bytea),
        }
    }
}

impl ParkedRows {
    pub fn push(
        &mut self,
        table: &TableName,
        key: &Key,
        offset: Offset,
        reason: &str,
        seen: Option<&Seen>,
    ) -> Result<(), Refusal> {
        self.push_table(table)?;
        self.digests.push(Value::Bytes(&key.digest()))?;
        self.keys.push(Value::Bytes(key.as_bytes()))?;
        self.offsets.push(Value::Int(signed(offset.0)))?;
        self.reasons.push(Value::Text(reason))?;
        match seen {
            Some(seen) => self.seen.push(Value::Bytes(&seen.to_bytes())),
            None => self.seen.push(Value::Null),
        }
    }

    /// A table alone, for [`Ledger::unpark_tables`].
    pub fn push_table(&mut self, table: &TableName) -> Result<(), Refusal> {
        self.tables.push(Value::Text(table.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        self.tables.len() == 0
    }
}

/// Keys whose parked rows go.
#[derive(Default)]
pub struct ParkedKeys {
    of: BTreeMap<TableName, Array>,
}

impl ParkedKeys {
    pub fn push(&mut self, table: &TableName, key: &Key) -> Result<(), Refusal> {
        let digests = self.of.entry(table.clone()).or_insert_with(|| Array::new(Element::Bytea));
        digests.push(Value::Bytes(&key.digest()))
    }

    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
}

/// The same 64 bits.
#[allow(clippy::cast_possible_wrap)]
fn signed(value: u64) -> i64 {
    value as i64
}

#[allow(clippy::cast_sign_loss)]
fn unsigned(value: i64) -> u64 {
    value as u64
}

/// Takes the marker over under a new epoch and reads what is parked.
pub async fn take_over(client: &mut Client, owner: &Owner, log: &str) -> Result<Progress, tokio_postgres::Error> {
    let (values, rows) = (values(owner), mine(owner));
    let transaction = client.transaction().await?;
    transaction.batch_execute("SET LOCAL lock_timeout = '1s'").await?;
    let sql = format!(
        "INSERT INTO sync_worker.progress (installation, pipeline, database, partition, log, digest, epoch, writes) \
         VALUES ({values}, $1, 0, 0, 0) ON CONFLICT DO NOTHING"
    );
    transaction.execute(&sql, &[&log]).await?;
    let sql = format!(
        "UPDATE sync_worker.progress SET epoch = epoch + 1, writes = writes + 1 WHERE {rows} \
         RETURNING \"offset\", log, digest, epoch, writes"
    );
    let row = transaction.query_one(&sql, &[]).await?;
    let marker = Marker {
        offset: row.try_get::<_, Option<i64>>(0)?.map(|offset| Offset(unsigned(offset))),
        log: row.try_get(1)?,
        digest: unsigned(row.try_get(2)?),
        epoch: unsigned(row.try_get(3)?),
        writes: unsigned(row.try_get(4)?),
    };
    let sql = format!(
        "SELECT table_name, key, \"offset\", reason, substring(seen FOR 16) FROM sync_worker.parked WHERE {rows} ORDER BY 3"
    );
    let parked = transaction.query(&sql, &[]).await?;
    transaction.commit().await?;
    let parked = parked.iter().map(|row| {
        let seen: Option<Vec<u8>> = row.try_get(4)?;
        Ok(ParkedKey {
            table: TableName::new(row.try_get(0)?),
            key: Key::from_bytes(Bytes::from(row.try_get::<_, Vec<u8>>(1)?)),
            offset: Offset(unsigned(row.try_get(2)?)),
            reason: row.try_get(3)?,
            // What can't be read was no image of a row that anything may be written over.
            seen: seen.map(|seen| Image::from_bytes(&seen).unwrap_or(Image::UNKNOWN)),
        })
    });
    Ok(Progress { marker, parked: parked.collect::<Result<_, tokio_postgres::Error>>()? })
}

impl Ledger {
    pub async fn prepare(client: &Client, owner: &Owner) -> Result<Self, tokio_postgres::Error> {
        let (values, rows) = (values(owner), mine(owner));
        // The cast fails at run time only, and its text comes back in the message.
        let check = format!("('{SUPERSEDED} ' || count(*))::pg_catalog.int4");
        let advance = format!(
            "WITH w AS (UPDATE sync_worker.progress SET \"offset\" = $1, log = $2, digest = $3, epoch = $4, writes = $5 \
             WHERE {rows} AND \"offset\" IS NOT DISTINCT FROM $6 AND log = $7 AND epoch = $8 AND writes = $9 RETURNING 1) \
             SELECT CASE WHEN count(*) = 1 THEN 0 ELSE {check} END FROM w"
        );
        let park = format!(
            "INSERT INTO sync_worker.parked (installation, pipeline, database, partition, table_name, key_digest, key, \
             \"offset\", reason, seen) SELECT {values}, u.* FROM unnest($1::text[], $2::bytea[], $3::bytea[], $4::int8[], \
             $5::text[], $6::bytea[]) AS u ON CONFLICT (installation, pipeline, database, partition, table_name, key_digest) \
             DO UPDATE SET key = EXCLUDED.key, \"offset\" = EXCLUDED.\"offset\", reason = EXCLUDED.reason, seen = EXCLUDED.seen"
        );
        // By table, so that the whole key is looked for in the index: of a table that was filled a moment ago the server has no
        // statistics, and a join would read all of its rows for each key.
        let mark_written = format!(
            "UPDATE sync_worker.parked SET reason = '{WRITTEN}' WHERE {rows} AND table_name = $1 AND key_digest = ANY ($2)"
        );
        let unpark =
            format!("DELETE FROM sync_worker.parked WHERE {rows} AND table_name = $1 AND key_digest = ANY ($2)");
        let unpark_table = format!("DELETE FROM sync_worker.parked WHERE {rows} AND table_name = ANY ($1::text[])");
        let (advance, park, mark_written, unpark, unpark_table) = futures::try_join!(
            client.prepare(&advance),
            client.prepare(&park),
            client.prepare(&mark_written),
            client.prepare(&unpark),
            client.prepare(&unpark_table)
        )?;
        Ok(Self { advance, park, mark_written, unpark, unpark_table })
    }

    /// Moves the marker from exactly what was expected, else fails as superseded (invariant 2).
    pub async fn advance(&self, pipeline: &mut Pipeline<'_>, expected: &Marker, marker: &Marker) {
        let offset = |marker: &Marker| marker.offset.map(|offset| signed(offset.0));
        let parameters: Vec<Parameter> = vec![
            Box::new(offset(marker)),
            Box::new(marker.log.clone()),
            Box::new(signed(marker.digest)),
            Box::new(signed(marker.epoch)),
            Box::new(signed(marker.writes)),
            Box::new(offset(expected)),
            Box::new(expected.log.clone()),
            Box::new(signed(expected.epoch)),
            Box::new(signed(expected.writes)),
        ];
        pipeline.execute_with(&self.advance, parameters).await;
    }

    pub async fn park(&self, pipeline: &mut Pipeline<'_>, rows: ParkedRows) {
        let ParkedRows { tables, digests, keys, offsets, reasons, seen } = rows;
        let arrays = [tables, digests, keys, offsets, reasons, seen];
        pipeline.execute_with(&self.park, arrays.into_iter().map(parameter).collect()).await;
    }

    /// Says that a retry has written the versions of these keys, right before their parked rows go.
    pub async fn mark_written(&self, pipeline: &mut Pipeline<'_>, keys: &ParkedKeys) {
        for (table, digests) in &keys.of {
            pipeline.execute_with(&self.mark_written, of_table(table, digests)).await;
        }
    }

    pub async fn unpark(&self, pipeline: &mut Pipeline<'_>, keys: ParkedKeys) {
        for (table, digests) in &keys.of {
            pipeline.execute_with(&self.unpark, of_table(table, digests)).await;
        }
    }

    /// A truncated table has no row that could lack anything.
    pub async fn unpark_tables(&self, pipeline: &mut Pipeline<'_>, rows: ParkedRows) {
        pipeline.execute_with(&self.unpark_table, vec![parameter(rows.tables)]).await;
    }
}

fn of_table(table: &TableName, digests: &Array) -> Vec<Parameter> {
    vec![Box::new(table.as_str().to_owned()), Box::new(digests.clone())]
}

fn parameter(array: Array) -> Parameter {
    Box::new(array)
}
