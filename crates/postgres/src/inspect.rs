//! Preflight: what keeps a PostgreSQL database from being a source or a target, with the statement that mends it.
//! Changes nothing.

use crate::catalog::{self, Qualified, ReplicaIdentity, Table};
use crate::client::{self, Client, Purpose, identifier, literal};
use crate::config::{Config, SessionReplicationRole};
use crate::error::Error;
use crate::source::slot;
use std::sync::Arc;
use sync_worker_core::database::{Finding, Inspection, Role, Scope, TableAt, clock_ahead};
use sync_worker_core::name::DatabaseName;

/// Below this the output plugin lacks the streaming of transactions in progress.
const OLDEST_VERSION: u32 = 140_000;

pub async fn inspect(config: &Config, name: &DatabaseName, scope: &Scope, role: Role) -> Result<Inspection, Error> {
    let client = client::connect(config, Purpose::Control).await?;
    let mut look = Look {
        client: &client,
        config,
        place: format!("databases.{name}"),
        user: String::new(),
        two_way: scope.two_way,
        as_origin: false,
        found: Inspection::default(),
    };
    look.user = look.value("SELECT current_user").await?;
    look.server(role).await?;
    if role == Role::Source {
        look.left_slots(&slot::name(scope, name)).await?;
    }
    if scope.two_way {
        look.found.clock_ahead = clock(&client).await?;
    }
    for at in &scope.tables {
        look.table(at, role).await?;
    }
    if role == Role::Target {
        look.bookkeeping().await?;
    }
    Ok(look.found)
}

/// How far the server's clock is ahead of this machine's, in microseconds.
pub async fn clock(client: &Client) -> Result<Option<i64>, Error> {
    let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8";
    let ask = async {
        let now = client.value("a look at the clock", sql).await?;
        Ok::<_, Error>(now.and_then(|now| now.parse().ok()))
    };
    clock_ahead(ask).await
}

struct Look<'a> {
    client: &'a Client,
    config: &'a Config,
    place: String,
    user: String,
    two_way: bool,
    /// What is written here fires triggers and the actions of foreign keys.
    as_origin: bool,
    found: Inspection,
}

impl Look<'_> {
    async fn value(&self, sql: &str) -> Result<String, Error> {
        Ok(self.client.value("a look at the server", sql).await?.unwrap_or_default())
    }

    async fn holds(&self, condition: &str) -> Result<bool, Error> {
        Ok(self.value(&format!("SELECT ({condition})")).await? == "t")
    }

    fn find(&mut self, table: Option<&Qualified>, problem: impl Into<String>, cure: impl Into<String>) {
        self.add(table, problem.into(), cure.into(), false);
    }

    fn advise(&mut self, table: Option<&Qualified>, problem: impl Into<String>, cure: impl Into<String>) {
        self.add(table, problem.into(), cure.into(), true);
    }

    fn add(&mut self, table: Option<&Qualified>, problem: String, cure: String, advice: bool) {
        let place = match table {
            Some(table) => format!("{} table {table}", self.place),
            None => self.place.clone(),
        };
        self.found.findings.push(Finding { place, problem, cure, advice });
    }

    async fn server(&mut self, role: Role) -> Result<(), Error> {
        if self.client.version < OLDEST_VERSION {
            let version = self.client.version / 10_000;
            self.find(None, format!("PostgreSQL {version} is too old"), "upgrade to PostgreSQL 14 or later");
        }
        match role {
            Role::Source => self.source_settings().await,
            Role::Target => self.target_settings().await,
        }
    }

    async fn source_settings(&mut self) -> Result<(), Error> {
        let level = self.value("SELECT current_setting('wal_level')").await?;
        if level != "logical" {
            let cure = "ALTER SYSTEM SET wal_level = 'logical'; then restart the server";
            self.find(None, format!("wal_level is {level}, it must be logical"), cure);
        }
        if self.value("SELECT current_setting('server_encoding')").await? == "SQL_ASCII" {
            let problem = "its encoding SQL_ASCII does not say which characters its texts are: one that is not UTF-8 stops the capture";
            self.advise(None, problem, "copy it into a database made with ENCODING 'UTF8' TEMPLATE template0");
        }
        let user = identifier(&self.user);
        if !self.holds("SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user").await? {
            self.find(None, format!("user {user} may not replicate"), format!("ALTER ROLE {user} REPLICATION;"));
        }
        let creates = "has_database_privilege(current_database(), 'CREATE')";
        if !self.holds(creates).await? {
            let database = identifier(&self.value("SELECT current_database()").await?);
            let cure = format!("GRANT CREATE ON DATABASE {database} TO {user};");
            self.find(None, format!("user {user} may not create the publication"), cure);
        }
        for (setting, used) in [
            ("max_replication_slots", "SELECT count(*) FROM pg_replication_slots"),
            ("max_wal_senders", "SELECT count(*) FROM pg_stat_replication"),
        ] {
            let most = self.value(&format!("SELECT current_setting('{setting}')")).await?;
            let taken = self.value(used).await?;
            // A slot of ours may be among them, so a full house is advice, not a problem.
            if most == taken {
                let cure = format!("ALTER SYSTEM SET {setting} to a higher number; then restart the server");
                self.advise(None, format!("all {most} of {setting} are taken"), cure);
            }
        }
        Ok(())
    }

    /// Slots that a pipeline of this name has left where its state was removed: nobody reads them any more, and the server keeps its
    /// log for them.
    async fn left_slots(&mut self, own: &str) -> Result<(), Error> {
        let readable = own.rfind('_').map_or(own, |at| &own[..=at]);
        let sql = format!(
            "SELECT slot_name FROM pg_replication_slots WHERE NOT active AND database = current_database() \
             AND starts_with(slot_name::text, {}) AND length(slot_name) = {} AND slot_name <> {} ORDER BY 1",
            literal(readable),
            own.len(),
            literal(own)
        );
        for row in self.client.rows("a look at the slots", &sql).await? {
            let slot = row.get(0).unwrap_or_default();
            self.advise(
                None,
                format!(
                    "replication slot {slot}, of a pipeline of this name and another state, is not in use and keeps the server's log"
                ),
                format!("if that state is gone: SELECT pg_drop_replication_slot('{slot}'); DROP PUBLICATION IF EXISTS {slot};"),
            );
        }
        Ok(())
    }

    async fn target_settings(&mut self) -> Result<(), Error> {
        let may = match self.client.version >= 150_000 {
            true => {
                "SELECT rolsuper OR has_parameter_privilege('session_replication_role', 'SET') FROM pg_roles WHERE rolname = current_user"
            }
            false => "SELECT rolsuper FROM pg_roles WHERE rolname = current_user",
        };
        let may = self.holds(may).await?;
        let user = identifier(&self.user);
        let grant = format!("GRANT SET ON PARAMETER session_replication_role TO {user};");
        self.as_origin = match self.config.session_replication_role {
            SessionReplicationRole::Origin => true,
            SessionReplicationRole::Auto => !may,
            SessionReplicationRole::Replica => false,
        };
        match self.config.session_replication_role {
            SessionReplicationRole::Replica if !may => {
                self.find(None, format!("user {user} may not set session_replication_role"), grant);
            }
            SessionReplicationRole::Auto if !may => {
                let problem = format!(
                    "user {user} may not set session_replication_role: triggers of the tables fire for what is written here, and foreign keys are checked"
                );
                self.advise(None, problem, grant);
            }
            SessionReplicationRole::Auto | SessionReplicationRole::Origin | SessionReplicationRole::Replica => {}
        }
        Ok(())
    }

    async fn table(&mut self, at: &TableAt, role: Role) -> Result<(), Error> {
        let name = Qualified::parse(&at.name);
        let Some(table) = catalog::table(self.client, &name).await? else {
            let cure = match role {
                Role::Source => "correct its name in the configuration, or create it",
                Role::Target => "create it: `sync-worker schema` prints the statement",
            };
            self.find(Some(&name), "there is no such table", cure);
            return Ok(());
        };
        self.privileges(&name, role).await?;
        if role == Role::Source && table.replica_identity == ReplicaIdentity::Nothing {
            let cure = format!("ALTER TABLE {} REPLICA IDENTITY DEFAULT;", name.quoted());
            self.find(Some(&name), "its replica identity is NOTHING, so updates and deletes can't be published", cure);
        }
        if role == Role::Source && !table.logged {
            let cure = format!("ALTER TABLE {} SET LOGGED;", name.quoted());
            self.find(Some(&name), "it is UNLOGGED, so its changes are nowhere to be read", cure);
        }
        if let (Role::Source, Some((problem, cure))) = (role, table.odd_identity()) {
            self.find(Some(&name), problem, format!("{cure};"));
        }
        if role == Role::Source && self.two_way && table.replica_identity != ReplicaIdentity::Full {
            let cure = format!("ALTER TABLE {} REPLICA IDENTITY FULL;", name.quoted());
            let problem = "its replica identity is not FULL, and a two-way pipeline needs the row before each change";
            self.find(Some(&name), problem, cure);
        }
        if table.row_security
            && !self.holds("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user").await?
        {
            let cure = format!("ALTER ROLE {} BYPASSRLS;", identifier(&self.user));
            self.find(Some(&name), "row-level security would hide rows from this user", cure);
        }
        if role == Role::Target {
            self.triggers(&table);
            if !self.as_origin {
                self.deferrable(&table).await?;
            }
            if self.two_way && self.as_origin {
                self.actions(&table).await?;
            }
        }
        if self.two_way {
            self.keys_told_apart(&table).await?;
        }
        if let Some(column) = table.extension_key() {
            let problem = format!("its key column {} is of type {}, an extension's", column.name, column.type_name);
            self.find(Some(&name), problem, "give it a key of another type");
        }
        match table.schema(&at.table) {
            Ok(schema) => {
                let rows = format!("SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = {}", table.oid);
                self.found.estimates.push(self.value(&rows).await?.parse().unwrap_or(0));
                self.found.tables.push(Arc::new(schema));
                self.found.required.push(table.required().map(str::to_owned).collect());
                self.found.generated.push(table.generated().map(str::to_owned).collect());
            }
            Err(_) => match table.unique_indexes.iter().find(|index| index.deferrable) {
                Some(index) => {
                    let problem = format!("its key {} is deferrable, which the log can't go by", index.name);
                    let (table, columns) = (name.quoted(), index.columns.iter().map(|name| identifier(name)));
                    let columns = columns.collect::<Vec<_>>().join(", ");
                    let cure = format!("ALTER TABLE {table} ADD UNIQUE ({columns}), all of them NOT NULL");
                    self.find(Some(&name), problem, cure);
                }
                None => {
                    let cure = format!("ALTER TABLE {} ADD PRIMARY KEY (...);", name.quoted());
                    self.find(
                        Some(&name),
                        "it has no primary key and no unique index over columns that are NOT NULL",
                        cure,
                    );
                }
            },
        }
        Ok(())
    }

    /// Two-way, keys that are equal to the server and written differently would be two keys to everybody else.
    async fn keys_told_apart(&mut self, table: &Table) -> Result<(), Error> {
        let Some(key) = table.key() else { return Ok(()) };
        let names: Vec<String> = key.iter().map(|name| literal(name)).collect();
        let sql = format!(
            "WITH RECURSIVE part (name, type, within, collates) AS (\
             SELECT a.attname, a.atttypid, false, coalesce(c.collisdeterministic, true) \
             FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation \
             WHERE a.attrelid = {} AND a.attname IN ({}) \
             UNION SELECT p.name, u.type, p.within OR u.within, p.collates FROM part p JOIN pg_type t ON t.oid = p.type \
             CROSS JOIN LATERAL (SELECT t.typbasetype, false WHERE t.typtype = 'd' \
             UNION ALL SELECT t.typelem, true WHERE t.typcategory = 'A' \
             UNION ALL SELECT r.rngsubtype, true FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid) \
             UNION ALL SELECT f.atttypid, true FROM pg_attribute f WHERE t.typtype = 'c' AND f.attrelid = t.typrelid \
             AND f.attnum > 0 AND NOT f.attisdropped) u (type, within)) \
             SELECT DISTINCT name, format_type(type, NULL), NOT collates FROM part WHERE NOT collates \
             OR type::regtype::text IN ('interval', 'jsonb') \
             OR within AND type::regtype::text IN ('numeric', 'real', 'double precision')",
            table.oid,
            names.join(", ")
        );
        for row in self.client.rows("a look at the key", &sql).await? {
            let (column, kind) = (row.get(0).unwrap_or_default(), row.get(1).unwrap_or_default());
            let (problem, cure) = match row.get(2) {
                Some("t") => (
                    format!("its key column {column} has a collation that takes different texts for the same key"),
                    "give it a deterministic one, such as COLLATE \"C\"",
                ),
                _ => (
                    format!(
                        "its key column {column} has values of type {kind}, of which equal ones can be written differently"
                    ),
                    "give it a key of another type",
                ),
            };
            self.find(Some(&table.name), problem, cure);
        }
        Ok(())
    }

    async fn privileges(&mut self, name: &Qualified, role: Role) -> Result<(), Error> {
        let user = identifier(&self.user);
        let schema = literal(&name.schema);
        if !self.holds(&format!("has_schema_privilege({schema}, 'USAGE')")).await? {
            let cure = format!("GRANT USAGE ON SCHEMA {} TO {user};", identifier(&name.schema));
            self.find(Some(name), format!("user {user} may not use its schema"), cure);
            return Ok(());
        }
        let wanted: &[&str] = match role {
            Role::Source => &["SELECT"],
            Role::Target => &["SELECT", "INSERT", "UPDATE", "DELETE"],
        };
        for privilege in wanted {
            let condition = format!("has_table_privilege({}, '{privilege}')", literal(&name.quoted()));
            if !self.holds(&condition).await? {
                let cure = format!("GRANT {privilege} ON {} TO {user};", name.quoted());
                self.find(Some(name), format!("user {user} lacks {privilege}"), cure);
            }
        }
        if role == Role::Source {
            let owner = format!(
                "SELECT pg_has_role(relowner, 'MEMBER') FROM pg_class WHERE oid = {}::regclass",
                literal(&name.quoted())
            );
            if !self.holds(&owner).await? {
                let cure = format!(
                    "ALTER TABLE {} OWNER TO a role that {user} is a member of, or make the publication as its owner",
                    name.quoted()
                );
                self.find(
                    Some(name),
                    format!("user {user} does not own it, so it can't add it to its publication"),
                    cure,
                );
            }
        }
        Ok(())
    }

    /// What an action changes in our transaction its echo hides: a child row that was just written would vanish here alone.
    async fn actions(&mut self, table: &Table) -> Result<(), Error> {
        let keys = format!(
            "SELECT string_agg(conname || ' of ' || conrelid::regclass, ', ' ORDER BY conname) FROM pg_constraint \
             WHERE confrelid = {} AND contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd'))",
            table.oid
        );
        let keys = self.value(&keys).await?;
        if !keys.is_empty() {
            let problem = format!(
                "foreign keys with an action refer to it ({keys}), and an action that fires for what is written here goes unseen"
            );
            let cure = format!(
                "GRANT SET ON PARAMETER session_replication_role TO {}; (PostgreSQL 15 and later) and leave session_replication_role as it \
                 is by default, or drop the action",
                identifier(&self.user)
            );
            self.find(Some(&table.name), problem, cure);
        }
        Ok(())
    }

    /// A deferrable constraint is checked by a trigger of the server's own, which rests like any other for what is written as
    /// `replica`: the index takes values twice. One-way, the source has most likely checked them.
    async fn deferrable(&mut self, table: &Table) -> Result<(), Error> {
        let resting = format!(
            "SELECT c.conname, format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I;', t.tgrelid::regclass, t.tgname) \
             FROM pg_constraint c JOIN pg_trigger t ON t.tgconstraint = c.oid WHERE c.contype IN ('p', 'u', 'x') \
             AND t.tgenabled IN ('O', 'D') AND c.conrelid IN (SELECT {0} UNION ALL SELECT relid FROM pg_partition_tree({0})) \
             ORDER BY c.conname, t.tgname",
            table.oid
        );
        for row in self.client.rows("a look at deferrable constraints", &resting).await? {
            let problem = format!(
                "its constraint {} is deferrable, and PostgreSQL does not check such a one for what is written here",
                row.get(0).unwrap_or_default()
            );
            let cure = format!(
                "{} as a superuser, or make it NOT DEFERRABLE, or set session_replication_role = \"origin\" for this database",
                row.get(1).unwrap_or_default()
            );
            self.add(Some(&table.name), problem, cure, !self.two_way);
        }
        Ok(())
    }

    /// Triggers that fire for what is written here and may alter it.
    fn triggers(&mut self, table: &Table) {
        let firing: Vec<&str> = table
            .triggers
            .iter()
            .filter(|trigger| trigger.fires(self.as_origin))
            .map(|trigger| trigger.name.as_str())
            .collect();
        if !firing.is_empty() {
            let problem = format!("its triggers fire for what is written here: {}", firing.join(", "));
            self.advise(Some(&table.name), problem, "make sure that they do not alter the rows");
        }
    }

    /// The schema for markers and parked keys.
    async fn bookkeeping(&mut self) -> Result<(), Error> {
        let user = identifier(&self.user);
        let exists = self.holds("EXISTS (SELECT FROM pg_namespace WHERE nspname = 'sync_worker')").await?;
        if !exists {
            if !self.holds("has_database_privilege(current_database(), 'CREATE')").await? {
                let cure = format!("CREATE SCHEMA sync_worker AUTHORIZATION {user};");
                self.find(None, format!("user {user} may not create the schema sync_worker"), cure);
            }
            return Ok(());
        }
        if !self.holds("has_schema_privilege('sync_worker', 'USAGE')").await? {
            let cure = format!("GRANT USAGE, CREATE ON SCHEMA sync_worker TO {user};");
            self.find(None, format!("user {user} may not use the schema sync_worker"), cure);
        }
        Ok(())
    }
}
