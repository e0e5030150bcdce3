//! Which tables of the log are the pipeline's, and how their rows are read.

use super::plan::{Collations, Plan};
use super::statement::Name;
use super::table_map;
use crate::catalog::{QualifiedName, Table};
use crate::error::Error;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::name::TableName;
use sync_worker_core::schema::Schema;

/// Table numbers change whenever a server opens a table again; beyond this many they are all forgotten.
const MOST_TABLES: usize = 16_384;

#[derive(Clone)]
enum Known {
    Ignored,
    Planned(Arc<Plan>),
}

/// What a table map asks for.
pub enum Asked {
    Nothing,
    /// The catalog's view of this table, through [`Tables::learn`]; then the same map again.
    Catalog(QualifiedName),
}

pub struct Tables {
    scope: Vec<(QualifiedName, TableName)>,
    collations: Collations,
    /// By the table's number: the map that was seen last, and what came of it.
    numbers: HashMap<u64, (Box<[u8]>, Known)>,
    /// By the map itself, since numbers change more often than tables. Forgotten at every statement that may alter one.
    maps: HashMap<Box<[u8]>, Known>,
    learned: Option<(QualifiedName, Option<Table>)>,
}

impl Tables {
    pub fn new(scope: Vec<(QualifiedName, TableName)>, collations: Collations) -> Self {
        Self { scope, collations, numbers: HashMap::new(), maps: HashMap::new(), learned: None }
    }

    /// Takes a table map event's body.
    pub fn map(&mut self, body: &[u8]) -> Result<Asked, Error> {
        let cut = |invalid: crate::codec::Invalid| Error::Protocol(invalid.0);
        let mut rest = body;
        let number = table_map::table_id(&mut rest).map_err(cut)?;
        if let Some((seen, _)) = self.numbers.get(&number)
            && **seen == *rest
        {
            return Ok(Asked::Nothing);
        }
        let known = match self.maps.get(rest) {
            Some(known) => known.clone(),
            None => {
                let (database, table) = table_map::names(rest).map_err(cut)?;
                let ours = self.scope.iter().find(|(name, _)| name.database == database && name.table == table);
                match ours {
                    None => Known::Ignored,
                    Some((name, table)) => {
                        let Some((_, catalog)) = self.learned.take().filter(|(learned, _)| learned == name) else {
                            return Ok(Asked::Catalog(name.clone()));
                        };
                        let map = table_map::parse(rest).map_err(cut)?;
                        Known::Planned(Arc::new(Plan::new(table, &map, catalog.as_ref(), &self.collations)?))
                    }
                }
            }
        };
        if self.numbers.len() >= MOST_TABLES {
            self.numbers.clear();
            self.maps.clear();
        }
        self.maps.insert(rest.into(), known.clone());
        self.numbers.insert(number, (rest.into(), known));
        Ok(Asked::Nothing)
    }

    /// The catalog's view of a table that a map asked for.
    pub fn learn(&mut self, name: QualifiedName, table: Option<Table>) {
        self.learned = Some((name, table));
    }

    /// How to read rows of the table with this number; None where they are not ours.
    pub fn plan(&self, number: u64) -> Result<Option<&Arc<Plan>>, Error> {
        match self.numbers.get(&number) {
            Some((_, Known::Planned(plan))) => Ok(Some(plan)),
            Some((_, Known::Ignored)) => Ok(None),
            None => Err(Error::Protocol("rows without a table map")),
        }
    }

    /// A definition may have changed: what is known is looked up again.
    pub fn forget(&mut self) {
        self.numbers.clear();
        self.maps.clear();
    }

    /// The pipeline's table that a statement names.
    pub fn find(&self, name: &Name, default_database: &str) -> Option<&(QualifiedName, TableName)> {
        let database = name.database.as_deref().unwrap_or(default_database);
        let mut scope = self.scope.iter();
        scope.find(|(own, _)| own.database == database && own.table == name.table)
    }

    /// The newest schema of a table: of its rows, or of the catalog where that was asked.
    pub fn schema(&mut self, name: &QualifiedName, table: &TableName) -> Option<Arc<Schema>> {
        let planned = self.maps.values().find_map(|known| match known {
            Known::Planned(plan) if plan.schema.table == *table => Some(plan.schema.clone()),
            Known::Planned(_) | Known::Ignored => None,
        });
        planned.or_else(|| {
            let (_, catalog) = self.learned.take().filter(|(learned, _)| learned == name)?;
            catalog?.schema(table).map(Arc::new)
        })
    }

    pub fn scope(&self) -> &[(QualifiedName, TableName)] {
        &self.scope
    }
}
