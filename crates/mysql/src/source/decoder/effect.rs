//! What statements in the log mean to the stream.

use super::{Decoder, Step};
use crate::error::Error;
use crate::source::statement::Statement;
use sync_worker_core::change::{Change, Op};
use sync_worker_core::source::REDEFINED;

impl Decoder {
    pub(super) fn statement(&mut self, statement: Statement<'_>, database: &str) -> Result<Step, Error> {
        let begun = self.current.as_ref().is_some_and(|current| current.begun);
        match statement {
            Statement::Begin | Statement::CreateWithRows => {
                if let Some(current) = &mut self.current {
                    current.begun = true;
                }
                return Ok(Step::Done);
            }
            Statement::Commit => return self.finish().map(|()| Step::Done),
            Statement::Rollback | Statement::RollbackTo => {
                let changed = self.current.as_ref().is_some_and(|one| one.sent > 0 || !one.changes.is_empty());
                if changed {
                    let text = "a transaction was rolled back after it wrote to a table without transactions together with one of this pipeline; ALTER TABLE ... ENGINE = InnoDB for all of them, and take a new snapshot";
                    return Err(Error::Gap(text.to_owned()));
                }
                return match statement == Statement::RollbackTo {
                    true => Ok(Step::Done),
                    false => self.finish().map(|()| Step::Done),
                };
            }
            Statement::Savepoint | Statement::XaEnd => return Ok(Step::Done),
            Statement::XaStart(name) => {
                if let Some(current) = &mut self.current {
                    self.prepared.begin(name, current.gtid);
                    current.held = Some(name.into());
                }
                return Ok(Step::Done);
            }
            Statement::XaCommit(name) => {
                let current = self.current.as_ref().ok_or(Error::Protocol("a decision outside a transaction"))?;
                let decision = current.gtid;
                return Ok(match self.prepared.take(name) {
                    Some(held) => Step::Decided(held),
                    None => Step::Undecided { name: name.to_owned(), decision },
                });
            }
            Statement::XaRollback(name) => {
                if let Some(held) = self.prepared.take(name) {
                    self.taken.add(held.gtid);
                }
            }
            Statement::Truncate(name) => {
                if let Some((qualified, table)) = self.tables.find(&name, database).cloned() {
                    let Some(schema) = self.tables.schema(&qualified, &table) else {
                        return Ok(Step::Catalog(qualified));
                    };
                    if let Some(current) = &mut self.current {
                        current.changes.push(Change { schema, op: Op::Truncate, before: None, after: None });
                        current.size += std::mem::size_of::<Change>();
                    }
                }
            }
            Statement::Moves { tables, what } => {
                if let Some((name, _)) = tables.iter().find_map(|name| self.tables.find(name, database)) {
                    return Err(lost(&format!("table {name} was {what}")));
                }
                self.tables.forget();
            }
            Statement::DropDatabase(name) => {
                if self.tables.are_in(&name) {
                    return Err(lost(&format!("database {name} was dropped")));
                }
            }
            Statement::Alter(name) => {
                if let Some((name, table)) = self.tables.find(&name, database).cloned() {
                    tracing::warn!(table = %name, "{REDEFINED}");
                    self.tables.unsettle(&table);
                }
                self.tables.forget();
            }
            Statement::Writes(names) => {
                if let Some(name) = self.tables.among(&names, database) {
                    return Err(lost(&format!(
                        "table {name} was written in statement format (binlog_format must be ROW)"
                    )));
                }
            }
            Statement::Other => self.tables.forget(),
        }
        match begun {
            // inside a transaction, before its commit
            true => Ok(Step::Done),
            false => self.finish().map(|()| Step::Done),
        }
    }
}

fn lost(what: &str) -> Error {
    Error::Gap(format!("{what}, which leaves no row events; remove the pipeline's state and take a new snapshot"))
}
