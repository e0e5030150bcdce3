//! What a server's own settings and the user's privileges keep it from.

use super::Look;
use crate::catalog::QualifiedName;
use crate::error::Error;
use crate::sink::{OLDEST, takes_our_statements};
use std::fmt;

/// A server's variable, what it must be, and the statement that makes it so.
const SOURCE_SETTINGS: [(&str, &str, &str); 5] = [
    ("log_bin", "1", "start the server with --log-bin"),
    ("binlog_format", "ROW", "SET PERSIST binlog_format = 'ROW'; then reconnect every client"),
    ("binlog_row_metadata", "FULL", "SET PERSIST binlog_row_metadata = 'FULL';"),
    (
        "gtid_mode",
        "ON",
        "SET PERSIST enforce_gtid_consistency = ON; then gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE, ON in turn",
    ),
    ("enforce_gtid_consistency", "ON", "SET PERSIST enforce_gtid_consistency = ON;"),
];

/// Databases that stand in the log, and those that do not, as lists with commas; the first list wins.
struct Filters {
    only: String,
    without: String,
}

impl Filters {
    fn any(&self) -> bool {
        !self.only.is_empty() || !self.without.is_empty()
    }

    /// Whether rows of a database's tables are left out.
    fn hide(&self, database: &str) -> bool {
        let names = |list: &str| list.split(',').any(|name| name.trim() == database);
        match self.only.is_empty() {
            true => names(&self.without),
            false => !names(&self.only),
        }
    }
}

impl fmt::Display for Filters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.only.is_empty() {
            true => write!(f, "binlog-ignore-db is {}", self.without),
            false => write!(f, "binlog-do-db is {}", self.only),
        }
    }
}

impl Look<'_> {
    pub(super) async fn source(&mut self, tables: &[QualifiedName], two_way: bool) -> Result<(), Error> {
        if self.variable("version").await?.is_some_and(|version| version.contains("MariaDB")) {
            self.find(None, "the server is MariaDB", "MariaDB is not supported as a source yet; name a MySQL server");
            return Ok(());
        }
        if self.variable("server_id").await?.as_deref() == Some("0") {
            let problem = "server_id is 0: a server without a number gives its log to nobody";
            self.find(None, problem, "SET PERSIST server_id = N; with a number that no other server has");
        }
        for (name, wanted, cure) in SOURCE_SETTINGS {
            // Row format is all that remains where there is no choice.
            let Some(is) = self.variable(name).await? else { continue };
            let right = is.eq_ignore_ascii_case(wanted) || wanted == "1" && is.eq_ignore_ascii_case("ON");
            if !right {
                let wanted = if wanted == "1" { "ON" } else { wanted };
                self.find(None, format!("{name} is {is}, it must be {wanted}"), cure);
            }
        }
        let image = self.variable("binlog_row_image").await?.unwrap_or_default();
        let values = self.variable("binlog_row_value_options").await?.unwrap_or_default();
        if image != "FULL" && two_way {
            let problem = format!("binlog_row_image is {image}: a two-way pipeline must see whole rows");
            self.find(None, problem, "SET PERSIST binlog_row_image = 'FULL'; then reconnect every client");
        } else if image != "FULL" && values == "PARTIAL_JSON" {
            let problem = format!(
                "partial JSON updates stand in the log without the whole document (binlog_row_image is {image})"
            );
            self.find(
                None,
                problem,
                "SET PERSIST binlog_row_image = 'FULL'; or SET PERSIST binlog_row_value_options = '';",
            );
        } else if image != "FULL" {
            let problem = format!("binlog_row_image is {image}: inserts lack defaults, which can't always be known");
            self.advise(None, problem, "SET PERSIST binlog_row_image = 'FULL';");
        }
        for privilege in ["REPLICATION SLAVE", "REPLICATION CLIENT"] {
            if !self.may(privilege, None) {
                let cure = format!("GRANT {privilege} ON *.* TO {};", self.user);
                self.find(None, format!("the user lacks {privilege}"), cure);
            }
        }
        self.replica().await?;
        self.filters(tables).await
    }

    /// A replica may keep what it gets out of its own log.
    async fn replica(&mut self) -> Result<(), Error> {
        let mut logs = self.variable("log_replica_updates").await?;
        if logs.is_none() {
            logs = self.variable("log_slave_updates").await?;
        }
        let channels = self.shown("SHOW REPLICA STATUS", "SHOW SLAVE STATUS").await?;
        if logs.as_deref() == Some("0") && channels.is_some_and(|channels| !channels.is_empty()) {
            let problem =
                "the server is a replica and log_replica_updates is OFF: what it replicates is not in its log";
            self.find(None, problem, "start the server with --log-replica-updates, or point to its primary");
        }
        Ok(())
    }

    /// A server may leave whole databases out of its log.
    async fn filters(&mut self, tables: &[QualifiedName]) -> Result<(), Error> {
        const CURE: &str = "start the server without binlog-do-db and binlog-ignore-db; filter where the log is read";
        let status = self.shown("SHOW BINARY LOG STATUS", "SHOW MASTER STATUS").await?;
        let Some(mut row) = status.and_then(|rows| rows.into_iter().next()) else { return Ok(()) };
        let mut text = |at| row.take_opt::<String, _>(at).and_then(Result::ok).unwrap_or_default();
        let filters = Filters { only: text(2), without: text(3) };
        let mut hidden: Vec<&str> = Vec::new();
        for name in tables.iter().map(|table| table.database.as_str()) {
            if filters.hide(name) && !hidden.contains(&name) {
                hidden.push(name);
            }
        }
        for name in &hidden {
            self.find(None, format!("the server leaves database {name} out of its log ({filters})"), CURE);
        }
        if hidden.is_empty() && filters.any() {
            let problem = format!(
                "a TRUNCATE from a session whose default database the server leaves out of its log is not there ({filters})"
            );
            self.advise(None, problem, CURE);
        }
        Ok(())
    }

    pub(super) async fn target(&mut self) -> Result<(), Error> {
        let version = self.variable("version").await?.unwrap_or_default();
        if !takes_our_statements(&version) {
            let problem = format!("the server is version {version}, which lacks statements that are needed to write");
            self.find(
                None,
                problem,
                format!("a target must be MySQL {}.{}.{} or later", OLDEST[0], OLDEST[1], OLDEST[2]),
            );
        }
        let bookkeeping = QualifiedName { database: "sync_worker".to_owned(), table: "progress".to_owned() };
        let made = "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.TABLES \
                    WHERE TABLE_SCHEMA = 'sync_worker' AND TABLE_NAME IN ('progress', 'parked')";
        // Somebody else may have made them.
        let needed: &[&str] = match self.rows(made).await?.first().map(String::as_str) {
            Some("2") => &["SELECT", "INSERT", "UPDATE", "DELETE"],
            _ => &["CREATE", "SELECT", "INSERT", "UPDATE", "DELETE"],
        };
        let missing: Vec<&str> =
            needed.iter().copied().filter(|privilege| !self.may(privilege, Some(&bookkeeping))).collect();
        if !missing.is_empty() {
            let cure = format!("GRANT {} ON sync_worker.* TO {};", needed.join(", "), self.user);
            self.find(None, format!("the user lacks {} on the database sync_worker", missing.join(", ")), cure);
        }
        if self.variable("read_only").await?.as_deref() == Some("1") {
            self.find(None, "the server is read-only", "point to the primary, or SET GLOBAL read_only = OFF;");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_hide_databases() {
        let filters = |only: &str, without: &str| Filters { only: only.into(), without: without.into() };
        for (filters, hidden, any) in [
            (filters("", ""), false, false),
            (filters("shop", ""), false, true),
            (filters("other, shop", "shop"), false, true),
            (filters("shops", ""), true, true),
            (filters("", "other"), false, true),
            (filters("", "other,shop"), true, true),
        ] {
            assert_eq!((filters.hide("shop"), filters.any()), (hidden, any), "{filters}");
        }
    }
}
