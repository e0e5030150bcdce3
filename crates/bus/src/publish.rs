//! Records on their way into the queue: encoded by the publisher, so that the writer only writes.

use crate::error::{Error, Result};
use crate::format;
use crate::frame::{HEADER, MAX_PAYLOAD, TARGET};
use crate::partition::Pending;
use crate::schemas::Schemas;
use bytes::{BufMut, BytesMut};
use std::sync::Arc;
use sync_worker_core::guard::Seen;
use sync_worker_core::record::{Body, Decision, Record};
use sync_worker_core::schema::{Schema, SchemaId};

/// What a record takes besides its row images, about: enough that a buffer rarely grows.
const OVERHEAD: usize = 72;

/// Encodes the records of one publish, in parts of about a frame.
pub fn encode(records: &[Record], schemas: &Schemas) -> Result<Vec<Pending>> {
    let mut left: usize = records.iter().map(estimate).sum();
    let mut checked = Checked { schemas, last: None, wanted: Vec::new() };
    let mut parts = Vec::with_capacity(1 + left / TARGET);
    let mut part = buffer(left);
    let mut count = 0;
    for record in records {
        if part.len() >= TARGET {
            left = left.saturating_sub(part.len());
            parts.push(checked.part(std::mem::replace(&mut part, buffer(left)), std::mem::take(&mut count)));
        }
        checked.check(&record.body)?;
        let start = part.len();
        part.put_u32_le(0);
        format::encode(record, &mut part);
        let length = part.len() - start - 4;
        match u32::try_from(length) {
            Ok(prefix) if part.len() <= MAX_PAYLOAD => part[start..start + 4].copy_from_slice(&prefix.to_le_bytes()),
            _ => return Err(Error::TooLarge { table: table(&record.body), bytes: length }),
        }
        count += 1;
    }
    parts.push(checked.part(part, count));
    Ok(parts)
}

fn estimate(record: &Record) -> usize {
    match &record.body {
        Body::Change(change) | Body::Decision(Decision { change, .. }) => OVERHEAD + change.size(),
        Body::Schema(schema) => OVERHEAD + 48 * schema.columns.len(),
        Body::Commit | Body::Resume(_) | Body::Seeded(_) => OVERHEAD,
        Body::Marker(echo) => {
            let seen = echo.parked.iter().filter_map(|one| one.seen.as_ref()).map(Seen::size);
            OVERHEAD + 48 * (echo.parked.len() + echo.unparked.len()) + seen.sum::<usize>()
        }
        Body::Configuration(two_way) => {
            OVERHEAD + two_way.tables.iter().map(|table| OVERHEAD + 48 * table.schema.columns.len()).sum::<usize>()
        }
    }
}

fn table(body: &Body) -> String {
    match body {
        Body::Change(change) | Body::Decision(Decision { change, .. }) => change.table().to_string(),
        Body::Schema(schema) => schema.table.to_string(),
        Body::Resume(table) | Body::Seeded(table) => table.to_string(),
        Body::Commit | Body::Marker(_) | Body::Configuration(_) => String::new(),
    }
}

fn buffer(estimated: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(HEADER + estimated.min(TARGET + TARGET / 16));
    buffer.put_bytes(0, HEADER);
    buffer
}

/// Sees to it that a reader knows the schema of every change.
struct Checked<'a> {
    schemas: &'a Schemas,
    /// The schema of the record before: durable, or among those that will be.
    last: Option<SchemaId>,
    /// What the next part must make durable first.
    wanted: Vec<Arc<Schema>>,
}

impl Checked<'_> {
    fn check(&mut self, body: &Body) -> Result<()> {
        match body {
            Body::Change(change) | Body::Decision(Decision { change, .. }) => match self.last {
                Some(last) if last == change.schema.id => Ok(()),
                Some(_) | None => self.known(&change.schema),
            },
            Body::Schema(schema) => self.announced(schema),
            // Decisions are in its schemas, which no other record announces.
            Body::Configuration(two_way) => two_way.tables.iter().try_for_each(|table| self.announced(&table.schema)),
            Body::Commit | Body::Marker(_) | Body::Resume(_) | Body::Seeded(_) => Ok(()),
        }
    }

    fn announced(&mut self, schema: &Arc<Schema>) -> Result<()> {
        self.schemas.announce(schema);
        self.known(schema)
    }

    fn known(&mut self, schema: &Arc<Schema>) -> Result<()> {
        match self.schemas.is_durable(schema.id) {
            Some(true) => {}
            Some(false) => self.wanted.push(schema.clone()),
            None => return Err(Error::Unannounced(schema.table.to_string())),
        }
        self.last = Some(schema.id);
        Ok(())
    }

    fn part(&mut self, frame: BytesMut, count: u32) -> Pending {
        Pending { frame, count, schemas: std::mem::take(&mut self.wanted), answer: None, room: None }
    }
}
