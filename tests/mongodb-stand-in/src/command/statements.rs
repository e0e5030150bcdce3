//! Write commands of several statements: each is executed once, in order, with its own error.

use bson::RawDocumentBuf;
use bson::raw::cstr;

use super::dispatch::Context;
use crate::failure::{Stop, code};
use crate::value::read::Read;

/// Runs the statements from where the command stood before it waited.
pub fn run(
    context: &mut Context<'_>,
    count: usize,
    in_transaction: bool,
    mut statement: impl FnMut(&mut Context<'_>, usize) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let ordered = context.request.flag("ordered").unwrap_or(true);
    while context.progress.next < count {
        let index = context.progress.next;
        match statement(context, index) {
            Ok(()) => {}
            Err(Stop::Failed(failure)) if !(in_transaction && failure.code == code::WRITE_CONFLICT) => {
                context.progress.errors.push(failure.statement(index));
                if ordered || in_transaction {
                    context.progress.next = count;
                    break;
                }
            }
            Err(stop) => return Err(stop),
        }
        context.progress.next += 1;
    }
    Ok(())
}

pub fn with_errors(context: &mut Context<'_>, mut reply: RawDocumentBuf) -> RawDocumentBuf {
    if !context.progress.errors.is_empty() {
        reply.append(cstr!("writeErrors"), &context.progress.errors);
    }
    reply
}
