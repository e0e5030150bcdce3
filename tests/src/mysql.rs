//! What is particular to MySQL: making and removing a test's database, looking at what is defined there.

use crate::connection::Connection;

pub fn create(name: &str) -> String {
    format!("CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_bin")
}

pub async fn remove(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    connection.execute(&format!("DROP DATABASE IF EXISTS {name}")).await
}

/// Columns, indexes and triggers.
pub fn catalog(name: &str) -> [String; 3] {
    [
        format!(
            "SELECT 'column', TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, EXTRA
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = '{name}' ORDER BY 2, 3"
        ),
        format!(
            "SELECT 'index', TABLE_NAME, INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS
             WHERE TABLE_SCHEMA = '{name}' ORDER BY 2, 3, SEQ_IN_INDEX"
        ),
        format!(
            "SELECT 'trigger', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = '{name}' ORDER BY 2"
        ),
    ]
}

/// The tables themselves, as they can be written in a statement.
pub fn tables(name: &str) -> String {
    format!(
        "SELECT CONCAT('`', TABLE_SCHEMA, '`.`', TABLE_NAME, '`') FROM information_schema.TABLES
         WHERE TABLE_SCHEMA = '{name}' AND TABLE_TYPE = 'BASE TABLE' ORDER BY 1"
    )
}

pub async fn column_types(connection: &mut Connection, table: &str) -> anyhow::Result<Vec<(String, String)>> {
    let sql = format!(
        "SELECT COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{table}' ORDER BY ORDINAL_POSITION"
    );
    crate::compare::pairs(connection.rows(&sql).await?)
}

pub async fn key_columns(connection: &mut Connection, table: &str) -> anyhow::Result<Vec<String>> {
    let sql = format!(
        "SELECT COLUMN_NAME FROM information_schema.STATISTICS
         WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{table}' AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX"
    );
    Ok(connection.rows(&sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}
