//! The statements that make a MySQL table fit another member's.

use crate::catalog::{QualifiedName, quoted};
use sync_worker_core::schema::{Column, Schema};
use sync_worker_core::type_names::mysql_name;
use sync_worker_core::types::Engine;

/// `CREATE TABLE`, or `ALTER TABLE` for the columns that `have` lacks; None where nothing is missing, or where the name
/// can't be read. A column whose type has no counterpart here becomes a comment that names it.
pub fn ddl(name: &str, default_database: Option<&str>, wanted: &Schema, have: Option<&Schema>) -> Option<String> {
    let table = QualifiedName::parse(name, default_database).ok()?.quoted();
    if let Some(have) = have {
        let missing = wanted.columns.iter().enumerate().filter(|(_, column)| have.column(&column.name).is_none());
        let line = |(at, column): (usize, &Column)| {
            // The rows that are there have no value yet, and a zero in its place would look like one.
            format!("ALTER TABLE {table} ADD COLUMN {};", definition(wanted, at, &nullable(column)))
        };
        let lines: Vec<String> = missing.map(line).collect();
        return (!lines.is_empty()).then(|| lines.join("\n"));
    }
    let columns = wanted.columns.iter().enumerate();
    let mut parts: Vec<String> =
        columns.map(|(at, column)| format!("    {}", definition(wanted, at, column))).collect();
    let key: Vec<String> = wanted.key.iter().map(|&at| quoted(&wanted.columns[at].name)).collect();
    parts.push(format!("    PRIMARY KEY ({})", key.join(", ")));
    // A binary collation without padding keeps apart what other databases keep apart.
    Some(format!(
        "CREATE TABLE {table} (\n{}\n) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 COLLATE = utf8mb4_0900_bin;",
        parts.join(",\n")
    ))
}

fn nullable(column: &Column) -> Column {
    Column { nullable: true, ..column.clone() }
}

fn definition(schema: &Schema, at: usize, column: &Column) -> String {
    let own = match schema.engine {
        Engine::Mysql => Some(column.type_name.clone()),
        Engine::Postgres | Engine::Mongodb => mysql_name(&column.kind, schema.key.contains(&at)),
    };
    let null = if column.nullable { " NULL" } else { " NOT NULL" };
    match own {
        Some(own) => format!("{} {own}{null}", quoted(&column.name)),
        None => format!("{} longtext{null} /* {} has no counterpart here */", quoted(&column.name), column.type_name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sync_worker_core::types::ColumnType;

    #[test]
    fn a_column_is_added_without_a_value_for_the_rows_that_are_there() {
        let column = |name: &str| Column {
            name: name.into(),
            kind: ColumnType::Int { bits: 32, unsigned: false },
            type_name: "int".into(),
            nullable: false,
            generated: false,
        };
        let schema = |names: &[&str]| {
            let columns = names.iter().map(|name| column(name)).collect();
            Schema::new("t".into(), Engine::Mysql, columns, vec![0])
        };
        let (wanted, have) = (schema(&["id", "n"]), schema(&["id"]));
        let added = ddl("t", Some("shop"), &wanted, Some(&have));
        assert_eq!(added.as_deref(), Some("ALTER TABLE `shop`.`t` ADD COLUMN `n` int NULL;"));
        let made = ddl("t", Some("shop"), &wanted, None).unwrap_or_default();
        assert!(made.contains("`n` int NOT NULL"), "{made}");
        assert_eq!(ddl("t", Some("shop"), &have, Some(&have)), None);
    }
}
