//! Where documents and a relational table do not fit each other.

use sync_worker_core::convert::Conversion;
use sync_worker_core::database::Finding;
use sync_worker_core::document::mapping::{DocumentMapping, OtherFields, Times, Unfit};
use sync_worker_core::name::DatabaseName;
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::types::{ColumnType, Engine};

pub(super) fn findings(
    database: &DatabaseName,
    name: &str,
    mapping: &DocumentMapping,
    from: &Schema,
    to: &Schema,
) -> Vec<Finding> {
    let place = |column: &str| format!("databases.{database} table {name} column {column}");
    let (table, unfit) = match from.engine {
        Engine::Mongodb => (to, mapping.check_rows(to)),
        Engine::Postgres | Engine::Mysql => (from, mapping.check_documents(from)),
    };
    let mut findings = Vec::new();
    if let Err(Unfit { column, problem, cure }) = unfit {
        let place = column.map_or_else(|| format!("databases.{database} table {name}"), |column| place(&column));
        findings.push(Finding { place, problem, cure, advice: false });
    }
    for (at, column) in table.columns.iter().enumerate() {
        let found = match from.engine {
            Engine::Mongodb => into_column(mapping, column, table.key.contains(&at)),
            Engine::Postgres | Engine::Mysql => into_field(mapping, column),
        };
        let finding = |(problem, cure, advice)| Finding { place: place(&column.name), problem, cure, advice };
        findings.extend(found.into_iter().map(finding));
    }
    findings
}

/// Problem, cure, and whether it is advice only.
type Found = Vec<(String, String, bool)>;

fn into_field(mapping: &DocumentMapping, column: &Column) -> Found {
    let problem = match column.kind {
        ColumnType::Named { .. } => return vec![no_form(column)],
        ColumnType::Timestamp { precision: 4.. } | ColumnType::TimestampTz { precision: 4.. }
            if mapping.times == Times::Refuse =>
        {
            format!(
                "MongoDB's dates have milliseconds: a row with more digits in its {} is refused and becomes a dead letter",
                column.type_name
            )
        }
        _ => return Vec::new(),
    };
    let cure = "give the column three digits of a second, or write document = { times = \"text\" }";
    vec![(problem, cure.to_owned(), true)]
}

fn into_column(mapping: &DocumentMapping, column: &Column, is_key: bool) -> Found {
    let refused = match &column.kind {
        ColumnType::Named { .. } => return vec![no_form(column)],
        kind => Conversion::new(&ColumnType::Field, kind).err(),
    };
    if let Some(refusal) = refused {
        return vec![(refusal.to_string(), "change the column's type".to_owned(), false)];
    }
    // The column of the other fields is never without a value.
    let filled = mapping.other_fields == OtherFields::Column(column.name.clone());
    if column.nullable || is_key || filled {
        return Vec::new();
    }
    let problem = "it takes no NULL, and a field that a document lacks becomes NULL: such a row is refused and becomes a \
                   dead letter";
    vec![(problem.to_owned(), "let it be NULL, or make sure that every document has the field".to_owned(), true)]
}

fn no_form(column: &Column) -> (String, String, bool) {
    let problem = format!("{} has no form in a document", column.type_name);
    (problem, "change the column's type".to_owned(), false)
}
