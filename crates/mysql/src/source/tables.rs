//! Which tables of the log are the pipeline's, and how their rows are read.

use super::collations::Collations;
use super::own::OwnTable;
use super::plan::{Catalogs, Plan};
use super::statement::Name;
use super::table_map;
use crate::catalog::{QualifiedName, Table};
use crate::error::Error;
use crate::own_tables;
use std::collections::HashMap;
use std::sync::Arc;
use sync_worker_core::name::TableName;
use sync_worker_core::schema::Schema;

/// Table numbers change whenever a server opens a table again; beyond this many they are all forgotten.
const MOST_TABLES: usize = 16_384;

/// How a server compares the names of databases and tables, by its `lower_case_table_names`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// 0: letters are as they are written.
    Kept,
    /// 1 and 2: a statement may spell a name in other letters than the table maps do.
    Folded,
}

impl Case {
    pub fn of_setting(lower_case_table_names: &str) -> Self {
        if lower_case_table_names == "0" { Case::Kept } else { Case::Folded }
    }

    fn same(self, one: &str, other: &str) -> bool {
        one == other || self == Case::Folded && one.to_lowercase() == other.to_lowercase()
    }
}

#[derive(Clone)]
enum Known {
    Ignored,
    Planned(Arc<Plan>),
    Own(OwnTable, Arc<Plan>),
}

/// Whose rows have a table's number.
pub enum Rows<'a> {
    Pipeline(&'a Arc<Plan>),
    /// Of marker or parked rows, ours or another pipeline's.
    Own(OwnTable, &'a Arc<Plan>),
    Others,
}

/// What a table map asks for.
pub enum Asked {
    Nothing,
    /// The catalog's view of this table, through [`Tables::learn`]; then the same map again.
    Catalog(QualifiedName),
}

pub struct Tables {
    scope: Vec<(QualifiedName, TableName)>,
    case: Case,
    collations: Collations,
    /// By the table's number: the map that was seen last, and what came of it.
    numbers: HashMap<u64, (Box<[u8]>, Known)>,
    /// By the map itself, since numbers change more often than tables. Forgotten at every statement that may alter one.
    maps: HashMap<Box<[u8]>, Known>,
    learned: Option<(QualifiedName, Option<Table>)>,
    /// Definitions that hold where the stream stands, until a statement in the log alters the table.
    settled: HashMap<TableName, Table>,
    /// Marker and parked rows are looked at.
    own: bool,
}

impl Tables {
    pub fn new(scope: Vec<(QualifiedName, TableName)>, case: Case, collations: Collations) -> Self {
        Self {
            scope,
            case,
            collations,
            numbers: HashMap::new(),
            maps: HashMap::new(),
            learned: None,
            settled: HashMap::new(),
            own: false,
        }
    }

    /// From now on marker and parked rows are of interest too.
    pub fn show_own(&mut self) {
        self.own = true;
    }

    fn own(&self, database: &str, table: &str) -> Option<OwnTable> {
        if !self.own || !self.case.same(own_tables::DATABASE, database) {
            return None;
        }
        OwnTable::ALL.into_iter().find(|own| self.case.same(own.as_str(), table))
    }

    /// Whether a table map event is about a table of the pipeline, or one of the worker's own that is of interest.
    pub fn is_ours(&self, body: &[u8]) -> Result<bool, Error> {
        let cut = |invalid: crate::codec::Invalid| Error::Protocol(invalid.0);
        let mut rest = body;
        table_map::table_id(&mut rest).map_err(cut)?;
        let (database, table) = table_map::names(rest).map_err(cut)?;
        Ok(self.named(database, table).is_some() || self.own(database, table).is_some())
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
                match self.named(database, table).cloned() {
                    None => match self.own(database, table) {
                        None => Known::Ignored,
                        Some(own) => {
                            let map = table_map::parse(rest).map_err(cut)?;
                            let table = TableName::new(&format!("{}.{}", own_tables::DATABASE, own.as_str()));
                            // The log alone describes types as plain as these.
                            let plan = Plan::new(&table, &map, Catalogs::default(), &self.collations)?;
                            Known::Own(own, Arc::new(plan))
                        }
                    },
                    Some((name, table)) => {
                        let Some((_, catalog)) = self.learned.take().filter(|(learned, _)| *learned == name) else {
                            return Ok(Asked::Catalog(name));
                        };
                        let map = table_map::parse(rest).map_err(cut)?;
                        let catalogs = Catalogs { newest: catalog.as_ref(), settled: self.settled.get(&table) };
                        Known::Planned(Arc::new(Plan::new(&table, &map, catalogs, &self.collations)?))
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

    /// A table's definition where the stream stands.
    pub fn settle(&mut self, name: &QualifiedName, catalog: Table) -> Result<(), Error> {
        let Some((_, table)) = self.scope.iter().find(|(own, _)| own == name).cloned() else { return Ok(()) };
        let catalogs = Catalogs { newest: Some(&catalog), settled: Some(&catalog) };
        let known = self.numbers.values_mut().map(|(map, known)| (&**map, known));
        for (map, known) in known.chain(self.maps.iter_mut().map(|(map, known)| (&**map, known))) {
            if let Known::Planned(plan) = known
                && plan.schema.table == table
            {
                let map = table_map::parse(map).map_err(|invalid| Error::Protocol(invalid.0))?;
                *plan = Arc::new(Plan::new(&table, &map, catalogs, &self.collations)?);
            }
        }
        self.settled.insert(table, catalog);
        Ok(())
    }

    /// A statement in the log has altered a table of the pipeline.
    pub fn unsettle(&mut self, table: &TableName) {
        self.settled.remove(table);
    }

    /// What a table of the pipeline is called at the server.
    pub fn place(&self, table: &TableName) -> Option<&QualifiedName> {
        self.scope.iter().find(|(_, own)| own == table).map(|(name, _)| name)
    }

    /// How to read rows of the table with this number.
    pub fn rows(&self, number: u64) -> Result<Rows<'_>, Error> {
        match self.numbers.get(&number) {
            Some((_, Known::Planned(plan))) => Ok(Rows::Pipeline(plan)),
            Some((_, Known::Own(own, plan))) => Ok(Rows::Own(*own, plan)),
            Some((_, Known::Ignored)) => Ok(Rows::Others),
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
        self.named(name.database.as_deref().unwrap_or(default_database), &name.table)
    }

    fn named(&self, database: &str, table: &str) -> Option<&(QualifiedName, TableName)> {
        let same = |own: &QualifiedName| self.case.same(&own.database, database) && self.case.same(&own.table, table);
        self.scope.iter().find(|(own, _)| same(own))
    }

    /// Whether a database holds tables of the pipeline.
    pub fn are_in(&self, database: &str) -> bool {
        self.scope.iter().any(|(own, _)| self.case.same(&own.database, database))
    }

    /// A table that a statement with these words may be about.
    pub fn among(&self, words: &[String], default_database: &str) -> Option<&QualifiedName> {
        let said = |name: &str| words.iter().any(|word| self.case.same(word, name));
        let database = |name: &str| self.case.same(name, default_database) || said(name);
        self.scope.iter().map(|(own, _)| own).find(|own| said(&own.table) && database(&own.database))
    }

    /// The newest schema of a table: of its rows, or of the catalog where that was asked.
    pub fn schema(&mut self, name: &QualifiedName, table: &TableName) -> Option<Arc<Schema>> {
        let planned = self.maps.values().find_map(|known| match known {
            Known::Planned(plan) if plan.schema.table == *table => Some(plan.schema.clone()),
            Known::Planned(_) | Known::Own(..) | Known::Ignored => None,
        });
        planned.or_else(|| {
            let (_, catalog) = self.learned.take().filter(|(learned, _)| learned == name)?;
            catalog?.schema(table).map(Arc::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_the_server_compares_them() {
        let own = QualifiedName { database: "shop".into(), table: "customer".into() };
        let tables =
            |setting| Tables::new(vec![(own.clone(), "customer".into())], Case::of_setting(setting), Collations::new());
        let name =
            |database: Option<&str>, table: &str| Name { database: database.map(str::to_owned), table: table.into() };
        for (setting, other_letters) in [("0", false), ("1", true), ("2", true)] {
            let tables = tables(setting);
            assert!(tables.find(&name(None, "customer"), "shop").is_some());
            assert!(tables.find(&name(None, "customers"), "shop").is_none());
            assert_eq!(tables.find(&name(Some("Shop"), "CUSTOMER"), "").is_some(), other_letters);
            assert_eq!(tables.find(&name(None, "Customer"), "SHOP").is_some(), other_letters);
            assert_eq!(tables.are_in("SHOP"), other_letters);
            let words = ["UPDATE".to_owned(), "Customer".to_owned()];
            assert_eq!(tables.among(&words, "Shop").is_some(), other_letters);
        }
    }
}
