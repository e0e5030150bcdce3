//! Changes of documents whose key is fields: an event names a document by its `_id`, so both keys come from the documents
//! before and after the change.

use crate::codec::Rows;
use crate::error::Error;
use crate::source::event::{Collection, Parts, image};
use sync_worker_core::change::{Change, Op};
use sync_worker_core::value::{Cell, Damaged};

/// What needs the documents before and after each change.
pub const NEEDS: &str = "a key of fields";

/// `whole`: the document before it is wanted, too, and not its key alone.
pub(super) fn change(parts: &Parts<'_>, table: &Collection, whole: bool, rows: &mut Rows) -> Result<Change, Error> {
    const LACKING: Damaged = Damaged("an event without its document");
    let (key, schema) = (&table.key, table.schema.clone());
    let known = |document| if whole { image(Some(document)) } else { Cell::Unchanged };
    let after = parts.full.map(|full| rows.of(key, full, image(Some(full)))).transpose()?;
    Ok(match parts.operation {
        "insert" => Change { schema, op: Op::Create, before: None, after: Some(after.ok_or(LACKING)?) },
        "delete" => {
            let before = parts.before.ok_or(LACKING)?;
            Change { schema, op: Op::Delete, before: Some(rows.of(key, before, known(before))?), after: None }
        }
        _ => {
            let (old, after) = (parts.before.ok_or(LACKING)?, after.ok_or(LACKING)?);
            let before = rows.of(key, old, known(old))?;
            let stays = !whole && schema.key_of(&before)? == schema.key_of(&after)?;
            Change { schema, op: Op::Update, before: (!stays).then_some(before), after: Some(after) }
        }
    })
}
