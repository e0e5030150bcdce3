//! How a table's rows are documents, as the configuration says; the defaults are what most tables want.

use crate::schema::Schema;
use crate::types::ColumnType;

/// What becomes of a document's fields that the table has no column for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OtherFields {
    /// The row is refused, by the field's name.
    #[default]
    Refuse,
    Ignore,
    /// A JSON column takes them all.
    Column(String),
}

/// How timestamps become fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// As dates, which have milliseconds; a value with more digits is refused.
    #[default]
    Refuse,
    /// Columns of more than milliseconds as ISO 8601 texts of six digits, all of their values alike.
    Text,
}

impl Times {
    /// Whether the values of this column are texts in a document.
    pub fn are_text(self, column: &ColumnType) -> bool {
        let fine =
            matches!(column, ColumnType::Timestamp { precision: 4.. } | ColumnType::TimestampTz { precision: 4.. });
        fine && self == Times::Text
    }
}

/// How a table's rows are documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentMapping {
    pub other_fields: OtherFields,
    /// The key columns are fields beside `_id`.
    pub keep_key_columns: bool,
    pub times: Times,
    /// The fields that the key columns are, in the order of the key; none: `_id`.
    pub key: Vec<String>,
}

/// What keeps a table from being mapped, with the cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub column: Option<String>,
    pub problem: String,
    pub cure: String,
}

impl DocumentMapping {
    /// Whether documents can be rows of this table.
    pub fn check_rows(&self, table: &Schema) -> Result<(), Unfit> {
        self.check_key(table)?;
        match &self.other_fields {
            OtherFields::Column(name) => {
                let column = table.column(name);
                let problem = match column.map(|at| &table.columns[at]) {
                    None => "other_fields names it, and the table has no such column".to_owned(),
                    Some(column) if !matches!(column.kind, ColumnType::Json { .. }) => {
                        format!("other_fields names it, and it is {}, not JSON", column.type_name)
                    }
                    Some(_) => return Ok(()),
                };
                let cure = "name a JSON column of the table".to_owned();
                Err(Unfit { column: Some(name.clone()), problem, cure })
            }
            // Words about a field that has no place stand where a column would: never in the key, which is told by it.
            OtherFields::Refuse if table.key.len() == table.columns.len() => Err(Unfit {
                column: None,
                problem: "it has key columns only, so no row can be refused for the other fields of its document"
                    .to_owned(),
                cure: "write document = { other_fields = \"ignore\" }, or give the table another column".to_owned(),
            }),
            OtherFields::Refuse | OtherFields::Ignore => Ok(()),
        }
    }

    /// Whether rows of this table can be documents.
    pub fn check_documents(&self, table: &Schema) -> Result<(), Unfit> {
        self.check_key(table)?;
        let unfit = |problem: &str, cure: &str| {
            Err(Unfit { column: Some("_id".to_owned()), problem: problem.to_owned(), cure: cure.to_owned() })
        };
        match table.column("_id") {
            Some(column) if !table.key.contains(&column) && !self.key.is_empty() => {
                unfit("it is no key column, and a document's _id is MongoDB's own", "rename it, or make it the key")
            }
            Some(column) if !table.key.contains(&column) => {
                unfit("it is no key column, and a document's _id is its key", "rename it, or make it the key")
            }
            Some(_) if table.key.len() > 1 && self.keep_key_columns => unfit(
                "with keep_key_columns it would be a field beside the _id that the whole key makes",
                "rename it, or leave keep_key_columns out",
            ),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the fields of `key` are one for each key column, and nothing else's.
    fn check_key(&self, table: &Schema) -> Result<(), Unfit> {
        if self.key.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = table.key.iter().map(|&at| table.columns[at].name.as_str()).collect();
        if names.len() != self.key.len() {
            return Err(Unfit {
                column: None,
                problem: format!(
                    "document.key names {}, and its key is ({})",
                    if self.key.len() == 1 { "1 field".to_owned() } else { format!("{} fields", self.key.len()) },
                    names.join(", ")
                ),
                cure: "name one field for each key column, in the order of the key".to_owned(),
            });
        }
        let other = |at: &usize| !table.key.contains(at) && self.key.contains(&table.columns[*at].name);
        match (0..table.columns.len()).find(other) {
            Some(at) => Err(Unfit {
                column: Some(table.columns[at].name.clone()),
                problem: "it is no key column, and document.key names the field that it would be".to_owned(),
                cure: "rename it, or name another field".to_owned(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Column;
    use crate::types::Engine;

    fn schema(columns: &[(&str, &str)], key: usize) -> Schema {
        let column = |(name, kind): &(&str, &str)| Column {
            name: (*name).to_owned(),
            kind: kind.parse().unwrap(),
            type_name: (*kind).to_owned(),
            nullable: true,
            generated: false,
        };
        Schema::new("t".into(), Engine::Postgres, columns.iter().map(column).collect(), (0..key).collect())
    }

    #[test]
    fn the_column_for_other_fields_is_json() {
        let table = schema(&[("id", "int(64)"), ("rest", "json"), ("note", "text")], 1);
        let problem = |name: &str| {
            let mapping = DocumentMapping { other_fields: OtherFields::Column(name.to_owned()), ..Default::default() };
            mapping.check_rows(&table).err().map(|unfit| unfit.problem)
        };
        assert_eq!(problem("rest"), None);
        assert!(problem("note").unwrap().contains("it is text"));
        assert!(problem("x").unwrap().contains("no such column"));
    }

    #[test]
    fn a_table_of_key_columns_has_no_place_for_words() {
        let table = schema(&[("a", "int(64)"), ("b", "int(64)")], 2);
        assert!(DocumentMapping::default().check_rows(&table).is_err());
        let ignore = DocumentMapping { other_fields: OtherFields::Ignore, ..Default::default() };
        assert_eq!(ignore.check_rows(&table), Ok(()));
    }

    #[test]
    fn a_document_has_one_id() {
        let (keep, plain) =
            (DocumentMapping { keep_key_columns: true, ..Default::default() }, DocumentMapping::default());
        let other = schema(&[("id", "int(64)"), ("_id", "text")], 1);
        assert!(plain.check_documents(&other).is_err());
        let own = schema(&[("_id", "int(64)"), ("n", "text")], 1);
        assert_eq!((plain.check_documents(&own), keep.check_documents(&own)), (Ok(()), Ok(())));
        let part = schema(&[("_id", "int(64)"), ("n", "text")], 2);
        assert_eq!(plain.check_documents(&part), Ok(()));
        assert!(keep.check_documents(&part).is_err());
    }

    #[test]
    fn a_key_of_fields_has_one_for_each_key_column_and_no_other_column() {
        let mapping = |fields: &[&str]| DocumentMapping {
            key: fields.iter().map(|field| (*field).to_owned()).collect(),
            ..Default::default()
        };
        let table = schema(&[("id", "int(64)"), ("part", "text"), ("n", "text")], 2);
        for check in [DocumentMapping::check_rows, DocumentMapping::check_documents] {
            assert_eq!(check(&mapping(&["sku", "part"]), &table), Ok(()));
            let few = check(&mapping(&["sku"]), &table).unwrap_err();
            assert!(few.problem.contains("names 1 field, and its key is (id, part)"), "{few:?}");
            let taken = check(&mapping(&["sku", "n"]), &table).unwrap_err();
            assert_eq!(taken.column.as_deref(), Some("n"));
        }
        let own = schema(&[("id", "int(64)"), ("_id", "text")], 1);
        assert_eq!(mapping(&["sku"]).check_rows(&own), Ok(()), "a document's _id goes into a column of that name");
        assert!(mapping(&["sku"]).check_documents(&own).unwrap_err().problem.contains("MongoDB's own"));
    }
}
