//! The statements that make a PostgreSQL table fit another member's.

use crate::catalog::Qualified;
use crate::client::identifier;
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::type_names::postgres_name;
use sync_worker_core::types::Engine;

/// `CREATE TABLE`, or `ALTER TABLE` for the columns that `have` lacks; None where nothing is missing. A column whose type
/// has no counterpart here becomes a comment that names it.
pub fn ddl(name: &str, wanted: &Schema, have: Option<&Schema>) -> Option<String> {
    let table = Qualified::parse(name).quoted();
    if let Some(have) = have {
        let missing = wanted.columns.iter().filter(|column| have.column(&column.name).is_none());
        // The rows that are there have no value yet: NOT NULL would be refused.
        let nullable = |column: &Column| Column { nullable: true, ..column.clone() };
        let lines: Vec<String> = missing
            .map(|column| format!("ALTER TABLE {table} ADD COLUMN {};", definition(wanted.engine, &nullable(column))))
            .collect();
        return (!lines.is_empty()).then(|| lines.join("\n"));
    }
    let mut parts: Vec<String> =
        wanted.columns.iter().map(|column| format!("    {}", definition(wanted.engine, column))).collect();
    let key: Vec<String> = wanted.key.iter().map(|&at| identifier(&wanted.columns[at].name)).collect();
    parts.push(format!("    PRIMARY KEY ({})", key.join(", ")));
    Some(format!("CREATE TABLE {table} (\n{}\n);", parts.join(",\n")))
}

fn definition(engine: Engine, column: &Column) -> String {
    let own = match engine {
        Engine::Postgres => Some(column.type_name.clone()),
        Engine::Mysql | Engine::Mongodb => postgres_name(&column.kind),
    };
    let null = if column.nullable { "" } else { " NOT NULL" };
    match own {
        Some(own) => format!("{} {own}{null}", identifier(&column.name)),
        None => format!("{} text{null} /* {} has no counterpart here */", identifier(&column.name), column.type_name),
    }
}
