//! What is particular to PostgreSQL: making and removing a test's database, looking at what is defined there.

use crate::connection::Connection;
use std::time::Duration;

pub fn create(name: &str) -> String {
    format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'")
}

/// Replication slots and the walsenders that use them go first, or they keep the database.
pub async fn remove(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    let slots = format!("FROM pg_replication_slots WHERE database = '{name}'");
    // A walsender needs a moment to let go of its slot.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        connection
            .execute(&format!("SELECT pg_terminate_backend(active_pid) {slots} AND active_pid IS NOT NULL"))
            .await?;
        let dropped = connection.execute(&format!("SELECT pg_drop_replication_slot(slot_name) {slots}")).await;
        match dropped {
            Ok(()) => break,
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
            Err(_) => tokio::task::yield_now().await,
        }
    }
    connection.execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

/// Waits until nobody holds a slot of this database: a killed worker's walsender lingers for a moment.
pub async fn slots_are_free(connection: &mut Connection, name: &str) -> anyhow::Result<()> {
    let sql = format!("SELECT count(*) FROM pg_replication_slots WHERE database = '{name}' AND active");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while connection.number(&sql).await? > 0 {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "a slot of {name} is still held");
    }
    Ok(())
}

/// Tables, columns, indexes, triggers, publications and slots.
pub const CATALOG: [&str; 5] = [
    "SELECT 'column', table_schema, table_name, column_name, data_type, is_nullable, column_default
     FROM information_schema.columns WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 2, 3, 4",
    "SELECT 'index', indexdef FROM pg_indexes WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 2",
    "SELECT 'trigger', tgrelid::regclass, tgname, tgenabled FROM pg_trigger ORDER BY 2, 3",
    "SELECT 'publication', pubname FROM pg_publication ORDER BY 2",
    "SELECT 'slot', slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 2",
];

/// The tables themselves, as they can be written in a statement.
pub const TABLES: &str = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
    WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1";

pub async fn column_types(connection: &mut Connection, table: &str) -> anyhow::Result<Vec<(String, String)>> {
    let sql = format!(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute
         WHERE attrelid = '\"{table}\"'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
    );
    crate::compare::pairs(connection.rows(&sql).await?)
}

pub async fn key_columns(connection: &mut Connection, table: &str) -> anyhow::Result<Vec<String>> {
    let sql = format!(
        "SELECT a.attname FROM pg_index i CROSS JOIN unnest(i.indkey) WITH ORDINALITY AS k(attnum, place)
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = '\"{table}\"'::regclass AND i.indisprimary ORDER BY k.place"
    );
    Ok(connection.rows(&sql).await?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
}
