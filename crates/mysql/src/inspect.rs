//! Preflight: what keeps a MySQL database from being a source or a target, with the statement that mends it. Changes
//! nothing.

mod server;

use crate::catalog::{self, QualifiedName, Table, quoted};
use crate::client::Client;
use crate::codec::Format;
use crate::codec::charset::Charset;
use crate::collation::{self, Folds};
use crate::config::Config;
use crate::error::Error;
use mysql_async::Row as DriverRow;
use mysql_async::prelude::Queryable;
use std::sync::Arc;
use sync_worker_core::database::{Finding, Folding, Inspection, Role, Scope, TableAt, clock_ahead};
use sync_worker_core::name::DatabaseName;

/// From this release on a cascade's changes to child rows stand in the log.
const LOGS_CASCADES: (u32, u32) = (9, 6);

pub async fn inspect(config: &Config, name: &DatabaseName, scope: &Scope, role: Role) -> Result<Inspection, Error> {
    let mut client = Client::connect(config).await?;
    let default = config.address()?.database;
    let mut look = Look {
        client: &mut client,
        place: format!("databases.{name}"),
        user: String::new(),
        grants: Vec::new(),
        found: Inspection::default(),
    };
    look.user = look.user().await?;
    look.grants = look.grants().await?;
    let names = scope.tables.iter().map(|at| QualifiedName::parse(&at.name, default.as_deref()));
    let names: Vec<QualifiedName> = names.collect::<Result<_, _>>()?;
    match role {
        Role::Source => look.source(&names, scope.two_way).await?,
        Role::Target => look.target().await?,
    }
    if scope.two_way {
        look.found.clock_ahead = clock(look.client).await?;
    }
    for at in &scope.tables {
        look.table(at, role, default.as_deref()).await?;
    }
    Ok(look.found)
}

/// How far the server's clock is ahead of this machine's, in microseconds.
pub async fn clock(client: &mut Client) -> Result<Option<i64>, Error> {
    let ask = async {
        let query = client.conn.query::<i64, _>("SELECT CAST(UNIX_TIMESTAMP(SYSDATE(6)) * 1000000 AS SIGNED)");
        let now = client.liveness.watch("a look at the clock", query).await?;
        Ok::<_, Error>(now.first().copied())
    };
    clock_ahead(ask).await
}

struct Look<'a> {
    client: &'a mut Client,
    place: String,
    /// As a GRANT names it.
    user: String,
    /// As `SHOW GRANTS` prints them, in upper case.
    grants: Vec<String>,
    found: Inspection,
}

impl Look<'_> {
    /// The first column of every row.
    async fn rows(&mut self, sql: &str) -> Result<Vec<String>, Error> {
        let query = self.client.conn.query::<String, _>(sql);
        self.client.liveness.watch("a look at the server", query).await
    }

    /// The rows of a statement that shows how a server is, with an older word for it where the new one is unknown; None
    /// where the user may not see it.
    async fn shown(&mut self, new: &str, old: &str) -> Result<Option<Vec<DriverRow>>, Error> {
        for sql in [new, old] {
            let query = self.client.conn.query::<DriverRow, _>(sql);
            match self.client.liveness.watch("a look at the server", query).await {
                Ok(rows) => return Ok(Some(rows)),
                Err(error) if error.code() == Some(1064) => {}
                Err(error) if error.code() == Some(1227) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn user(&mut self) -> Result<String, Error> {
        let account = self.rows("SELECT CURRENT_USER()").await?.into_iter().next().unwrap_or_default();
        let (name, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
        Ok([name, host].map(|part| format!("'{}'", part.replace('\'', "''"))).join("@"))
    }

    /// What the user may do by itself and by its active roles.
    async fn grants(&mut self) -> Result<Vec<String>, Error> {
        let roles = self.rows("SELECT CURRENT_ROLE()").await?.into_iter().next();
        let statement = match roles.filter(|roles| roles != "NONE" && !roles.is_empty()) {
            Some(roles) => format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}"),
            None => "SHOW GRANTS".to_owned(),
        };
        Ok(self.rows(&statement).await?.into_iter().map(|grant| grant.to_uppercase()).collect())
    }

    async fn variable(&mut self, name: &str) -> Result<Option<String>, Error> {
        let sql = format!("SELECT CAST(@@global.{name} AS CHAR)");
        match self.rows(&sql).await {
            Ok(rows) => Ok(rows.into_iter().next()),
            // An unknown variable: this server has no such setting.
            Err(error) if error.code() == Some(1193) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn find(&mut self, table: Option<&QualifiedName>, problem: impl Into<String>, cure: impl Into<String>) {
        self.add(table, problem.into(), cure.into(), false);
    }

    fn advise(&mut self, table: Option<&QualifiedName>, problem: impl Into<String>, cure: impl Into<String>) {
        self.add(table, problem.into(), cure.into(), true);
    }

    fn add(&mut self, table: Option<&QualifiedName>, problem: String, cure: String, advice: bool) {
        let place = match table {
            Some(table) => format!("{} table {table}", self.place),
            None => self.place.clone(),
        };
        self.found.findings.push(Finding { place, problem, cure, advice });
    }

    /// Whether a privilege is granted on everything, on a database or on a table.
    fn may(&self, privilege: &str, on: Option<&QualifiedName>) -> bool {
        self.grants.iter().any(|grant| {
            let Some((privileges, rest)) = grant.strip_prefix("GRANT ").and_then(|grant| grant.split_once(" ON "))
            else {
                return false;
            };
            let named = privileges
                .split(',')
                .any(|one| matches!(one.trim(), "ALL PRIVILEGES" | "ALL") || one.trim() == privilege);
            let object = rest.split(" TO ").next().unwrap_or_default().replace('`', "");
            let covers = object == "*.*"
                || on.is_some_and(|on| {
                    let database = on.database.to_uppercase();
                    // A database's name is a pattern in a grant.
                    let pattern = object.split('.').next().unwrap_or_default().replace("\\_", "_").replace("\\%", "%");
                    let same = pattern == database
                        || pattern == "%"
                        || pattern.strip_suffix('%').is_some_and(|head| database.starts_with(head));
                    same && (object.ends_with(".*") || object == format!("{database}.{}", on.table.to_uppercase()))
                });
            named && covers
        })
    }

    async fn table(&mut self, at: &TableAt, role: Role, default: Option<&str>) -> Result<(), Error> {
        let name = QualifiedName::parse(&at.name, default)?;
        let wanted: &[&str] = match role {
            Role::Source => &["SELECT"],
            Role::Target => &["SELECT", "INSERT", "UPDATE", "DELETE"],
        };
        let missing: Vec<&str> = wanted.iter().copied().filter(|privilege| !self.may(privilege, Some(&name))).collect();
        if !missing.is_empty() {
            let cure = format!("GRANT {} ON {} TO {};", missing.join(", "), name.quoted(), self.user);
            self.find(Some(&name), format!("the user lacks {}", missing.join(", ")), cure);
        }
        let Some(table) = catalog::table(self.client, &name).await? else {
            let cure = match role {
                Role::Source => "correct its name in the configuration, or create it",
                Role::Target => "create it: `sync-worker schema` prints the statement",
            };
            self.find(Some(&name), "there is no such table", cure);
            return Ok(());
        };
        match table.storage.as_deref() {
            Some(storage) if storage.eq_ignore_ascii_case("InnoDB") => {}
            Some(storage) => {
                let problem =
                    format!("its engine {storage} has no transactions, so its changes stand in the log outside ours");
                self.find(Some(&table.name), problem, format!("ALTER TABLE {} ENGINE = InnoDB;", table.name.quoted()));
            }
            None => self.find(Some(&table.name), "it is a view", "name the table that it shows"),
        }
        match role {
            Role::Source => {
                self.cascades(&table).await?;
                self.columns(&table);
            }
            Role::Target if !table.triggers.is_empty() => {
                let problem = format!("its triggers fire for what is written here: {}", table.triggers.join(", "));
                self.advise(Some(&table.name), problem, "make sure that they do not alter the rows");
            }
            Role::Target => {}
        }
        let folding = self.key(&table, role);
        let Some(schema) = table.schema(&at.table) else {
            let cure = format!("ALTER TABLE {} ADD PRIMARY KEY (...);", table.name.quoted());
            self.find(
                Some(&table.name),
                "it has no primary key and no unique index over columns that are NOT NULL",
                cure,
            );
            return Ok(());
        };
        self.found.tables.push(Arc::new(schema));
        self.found.estimates.push(table.rows);
        self.found.required.push(table.required().map(str::to_owned).collect());
        self.found.generated.push(table.generated().map(str::to_owned).collect());
        self.found.folding.push(folding);
        Ok(())
    }

    /// Before 9.6 a foreign key's action changes child rows without a word in the log.
    async fn cascades(&mut self, table: &Table) -> Result<(), Error> {
        let acts = |action: &str| !matches!(action, "NO ACTION" | "RESTRICT");
        let acting = table.foreign_keys.iter().find(|key| acts(&key.on_delete) || acts(&key.on_update));
        let Some(key) = acting else { return Ok(()) };
        let version = self.variable("version").await?.unwrap_or_default();
        let mut numbers = version.split(['.', '-']).filter_map(|part| part.parse::<u32>().ok());
        let version_number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let native = self.variable("innodb_native_foreign_keys").await?.is_some_and(|value| value == "1");
        if version_number < LOGS_CASCADES || version.contains("MariaDB") || native {
            let problem = format!(
                "foreign key {} changes its rows by an action, which this server ({version}) does not log",
                key.name
            );
            let cure = format!(
                "ALTER TABLE {} DROP FOREIGN KEY {}; and delete child rows in the application, or upgrade to MySQL 9.6 or later without innodb_native_foreign_keys",
                table.name.quoted(),
                quoted(&key.name)
            );
            self.find(Some(&table.name), problem, cure);
        }
        Ok(())
    }

    /// Columns whose values can't be read from the log or from the table.
    fn columns(&mut self, table: &Table) {
        for column in &table.columns {
            let (name, of) = (&column.column.name, table.name.quoted());
            if let Some(set) = column.character_set.as_deref().filter(|set| !Charset::is_readable(set)) {
                let problem = format!("column {name} has character set {set}, which can't be read from the log");
                let cure = format!(
                    "ALTER TABLE {of} MODIFY {} {} CHARACTER SET utf8mb4;",
                    quoted(name),
                    column.column.type_name
                );
                self.find(Some(&table.name), problem, cure);
            } else if Format::of_column(column).is_none() {
                let problem = format!("column {name} has type {}, which can't be read", column.column.type_name);
                self.find(Some(&table.name), problem, format!("ALTER TABLE {of} MODIFY {} ...;", quoted(name)));
            }
        }
    }

    /// Key columns that take values for one although they differ. At a target the preflight compares them with the
    /// source's.
    fn key(&mut self, table: &Table, role: Role) -> Vec<Folding> {
        let names = table.key.iter().flat_map(|key| &key.columns);
        let mut found = Vec::new();
        for column in names.filter_map(|name| table.column(name)) {
            let Some((collation, folds)) = collation::folds(column) else { continue };
            let name = &column.column.name;
            let cure = format!(
                "ALTER TABLE {} MODIFY {} {} CHARACTER SET utf8mb4 COLLATE {} NOT NULL;",
                table.name.quoted(),
                quoted(name),
                column.column.type_name,
                collation::EXACT
            );
            if role == Role::Source && folds == Folds::Letters {
                let problem = format!(
                    "key column {name} is compared by {collation}: keys that differ elsewhere may be one row here"
                );
                self.advise(Some(&table.name), problem, cure.clone());
            }
            let (column, collation) = (name.clone(), collation.to_owned());
            let advice = folds != Folds::Letters;
            found.push(Folding { column, collation, alike: folds.alike(), cure, advice });
        }
        found
    }
}
