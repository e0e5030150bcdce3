//! What preflight says, and the errors of a start that can't succeed.

use crate::support::Fixture;
use anyhow::Result;
use sync_worker_core::database::{Database, Role, Scope, TableAt};
use sync_worker_core::error::ErrorClass;
use sync_worker_core::secret::Secret;
use sync_worker_postgres::config::SessionReplicationRole;
use sync_worker_postgres::{Config, Postgres};
use sync_worker_testkit::postgres::TestDatabase;

#[tokio::test]
async fn a_good_source_has_no_findings() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    for role in [Role::Source, Role::Target] {
        let inspection = fixture.postgres.inspect(&fixture.scope, role).await.unwrap();
        let problems: Vec<_> = inspection.findings.iter().filter(|finding| !finding.advice).collect();
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(inspection.tables.len(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_database_whose_texts_may_be_anything_is_told() -> Result<()> {
    let database = TestDatabase::create_in("ENCODING 'SQL_ASCII' LOCALE 'C'").await?;
    let fixture = Fixture::over(database, "CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let inspection = fixture.postgres.inspect(&fixture.scope, Role::Source).await.unwrap();
    assert!(inspection.findings.iter().any(|one| one.problem.contains("SQL_ASCII") && one.advice), "{inspection:?}");
    Ok(())
}

/// Nobody else would say what keeps the server's log.
#[tokio::test]
async fn the_slot_of_a_state_that_is_gone_is_told() -> Result<()> {
    let mut fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    drop(fixture.stream(None).await?);
    let slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND NOT active";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fixture.database.value(slots).await? == "0" {
        assert!(std::time::Instant::now() < deadline, "somebody reads the slot");
    }
    let slot = fixture
        .database
        .value("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()")
        .await?;
    let told = async |fixture: &Fixture| {
        let inspection = fixture.postgres.inspect(&fixture.scope, Role::Source).await.unwrap();
        inspection.findings.into_iter().filter(|one| one.problem.contains("replication slot")).collect::<Vec<_>>()
    };
    assert!(told(&fixture).await.is_empty(), "it is the pipeline's own");
    fixture.scope.installation = "made anew".into();
    let found = told(&fixture).await;
    assert!(found.len() == 1 && found[0].advice && found[0].problem.contains(&slot), "{found:?}");
    assert!(found[0].cure.contains(&format!("pg_drop_replication_slot('{slot}')")), "{found:?}");
    fixture.scope.pipeline = "another".into();
    assert!(told(&fixture).await.is_empty(), "it may be used by the other pipeline");
    Ok(())
}

#[tokio::test]
async fn missing_tables_and_keys_are_named_with_their_cure() -> Result<()> {
    let sql = "CREATE TABLE nokey (id int); CREATE TABLE nothing (id int PRIMARY KEY); \
               ALTER TABLE nothing REPLICA IDENTITY NOTHING; CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY); \
               CREATE TABLE later (id int PRIMARY KEY DEFERRABLE)";
    let fixture = Fixture::new(sql, &["nokey", "nothing", "unlogged", "later", "missing"]).await?;
    let inspection = fixture.postgres.inspect(&fixture.scope, Role::Source).await.unwrap();
    for (table, part, cure) in [
        ("public.nokey", "key", "ADD PRIMARY KEY"),
        ("public.nothing", "NOTHING", "REPLICA IDENTITY DEFAULT"),
        ("public.unlogged", "UNLOGGED", "SET LOGGED"),
        ("public.later", "deferrable", "ADD UNIQUE (\"id\")"),
        ("public.missing", "no such table", "create it"),
    ] {
        let finding = inspection.findings.iter().find(|finding| finding.place.contains(table)).expect(table);
        assert!(finding.problem.contains(part) && finding.cure.contains(cure), "{finding:?}");
    }
    let error = fixture.open(None).await.err().unwrap();
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert!(error.to_string().contains("public.nokey"), "{error}");
    let slots = fixture.database.rows("SELECT FROM pg_replication_slots WHERE database = current_database()").await?;
    assert!(slots.is_empty(), "a start that failed left a slot");
    Ok(())
}

#[tokio::test]
async fn a_user_without_privileges_is_told_which() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let user = format!("user_{}", fixture.database.name);
    fixture.execute(&format!("CREATE ROLE {user} LOGIN PASSWORD 'pass'")).await?;
    let url = fixture.database.url.replace("postgres@", &format!("{user}@"));
    let mut config = Config::new(url);
    config.password = Some(Secret::new("pass".to_owned()));
    let postgres = Postgres::new("crm".into(), config.clone())?;
    let source = postgres.inspect(&fixture.scope, Role::Source).await.unwrap();
    let target = postgres.inspect(&fixture.scope, Role::Target).await.unwrap();
    let cures: Vec<&str> =
        source.findings.iter().chain(&target.findings).map(|finding| finding.cure.as_str()).collect();
    for part in ["REPLICATION", "GRANT SELECT", "GRANT INSERT", "GRANT UPDATE", "GRANT DELETE", "GRANT CREATE"] {
        assert!(cures.iter().any(|cure| cure.contains(part)), "{part} is not in {cures:#?}");
    }
    let error = postgres.source(&fixture.scope, None).await.err().unwrap();
    assert_eq!(error.class(), ErrorClass::Fatal, "{error}");

    // invariant 11, and a wrong password is reported at once
    config.password = Some(Secret::new("hunter2".to_owned()));
    let wrong = Postgres::new("crm".into(), config)?.inspect(&fixture.scope, Role::Source).await.unwrap_err();
    assert_eq!(wrong.class(), ErrorClass::Fatal, "{wrong}");
    assert!(wrong.to_string().contains("28P01") && !wrong.to_string().contains("hunter2"), "{wrong}");
    fixture.execute(&format!("DROP OWNED BY {user}; DROP ROLE {user}")).await
}

/// Two-way: what an action changes in our transaction nobody would see.
#[tokio::test]
async fn actions_that_would_fire_unseen_are_refused() -> Result<()> {
    let tables = "CREATE TABLE parent (id int PRIMARY KEY); \
                  CREATE TABLE child (id int PRIMARY KEY, parent int CONSTRAINT family REFERENCES parent ON DELETE CASCADE)";
    let fixture = Fixture::new(tables, &["parent", "child"]).await?;
    for (role, two_way, refused) in [
        (SessionReplicationRole::Origin, true, true),
        (SessionReplicationRole::Origin, false, false),
        (SessionReplicationRole::Replica, true, false),
    ] {
        let mut config = Config::new(fixture.database.url.clone());
        config.session_replication_role = role;
        let scope = Scope { two_way, ..fixture.scope.clone() };
        let found = Postgres::new("crm".into(), config)?.inspect(&scope, Role::Target).await.unwrap();
        let told =
            found.findings.iter().any(|finding| finding.problem.contains("family of public.child") && !finding.advice);
        assert_eq!(told, refused, "{role:?} {two_way}: {:?}", found.findings);
    }
    Ok(())
}

/// The server's own trigger that checks it would rest, and values come twice.
#[tokio::test]
async fn a_deferrable_constraint_that_would_not_be_checked_is_told_with_its_cure() -> Result<()> {
    let table = "CREATE TABLE t (id int PRIMARY KEY, name text CONSTRAINT once UNIQUE DEFERRABLE)";
    let fixture = Fixture::new(table, &["t"]).await?;
    let told = async |role: SessionReplicationRole, two_way: bool| {
        let mut config = Config::new(fixture.database.url.clone());
        config.session_replication_role = role;
        let scope = Scope { two_way, ..fixture.scope.clone() };
        let found = Postgres::new("crm".into(), config).unwrap().inspect(&scope, Role::Target).await.unwrap();
        found.findings.into_iter().find(|finding| finding.problem.contains("constraint once is deferrable"))
    };
    assert!(told(SessionReplicationRole::Origin, true).await.is_none());
    assert!(told(SessionReplicationRole::Replica, false).await.expect("one-way").advice);
    let finding = told(SessionReplicationRole::Replica, true).await.expect("two-way");
    assert!(!finding.advice, "{finding:?}");
    let insert = |id: u32| format!("SET session_replication_role = replica; INSERT INTO t VALUES ({id}, 'x')");
    fixture.execute(&insert(1)).await?;
    fixture.execute(&insert(2)).await?;
    fixture.execute("DELETE FROM t WHERE id = 2").await?;
    let (statement, _) = finding.cure.split_once(';').expect("a statement");
    fixture.execute(statement).await?;
    assert!(told(SessionReplicationRole::Replica, true).await.is_none());
    assert!(fixture.execute(&insert(2)).await.is_err(), "it is not checked");
    Ok(())
}

#[tokio::test]
async fn a_replication_user_with_a_password_can_stream() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let (user, name) = (format!("user_{}", fixture.database.name), &fixture.database.name);
    let sql = format!(
        "CREATE ROLE {user} LOGIN REPLICATION PASSWORD 'p''ass'; ALTER TABLE t OWNER TO {user}; GRANT CREATE ON DATABASE {name} TO {user}"
    );
    fixture.execute(&sql).await?;
    let mut config = Config::new(fixture.database.url.replace("postgres@", &format!("{user}@")));
    config.password = Some(Secret::new("p'ass".to_owned()));
    let postgres = Postgres::new("crm".into(), config)?;
    let (source, _) = postgres.source(&fixture.scope, None).await.unwrap();
    drop(source);
    postgres.forget_source(&fixture.scope).await.unwrap();
    fixture.execute(&format!("DROP OWNED BY {user} CASCADE; DROP ROLE {user}")).await
}

#[tokio::test]
async fn a_host_that_is_not_there_is_transient() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let postgres = Postgres::new("crm".into(), Config::new("postgres://u@127.0.0.1:1/x"))?;
    let error = postgres.source(&fixture.scope, None).await.err().unwrap();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_primary_is_found_among_several_hosts() -> Result<()> {
    let mut fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let url = fixture.database.url.replace("@", "@127.0.0.1:1,");
    fixture.postgres = Postgres::new("crm".into(), Config::new(url))?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1)").await?;
    assert_eq!(fixture.changes(&mut stream).await?, ["0 c id=1"]);
    Ok(())
}

#[tokio::test]
async fn a_renamed_table_stops_the_stream() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1)").await?;
    fixture.changes(&mut stream).await?;
    fixture.execute("ALTER TABLE t RENAME TO u; INSERT INTO u VALUES (2)").await?;
    let error = loop {
        if let Err(error) = stream.source.next().await {
            break error;
        }
    };
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert!(error.to_string().contains("public.t is called public.u"), "{error}");
    Ok(())
}

/// Its log has the names of the time.
#[tokio::test]
async fn a_table_that_had_another_name_for_a_while_is_the_same_table() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let mut stream = fixture.stream(None).await?;
    fixture.execute("INSERT INTO t VALUES (1)").await?;
    for statement in [
        "ALTER TABLE t RENAME TO u",
        "INSERT INTO u VALUES (2)",
        "ALTER TABLE u RENAME TO t",
        "INSERT INTO t VALUES (3)",
    ] {
        fixture.execute(statement).await?;
    }
    assert_eq!(fixture.changes(&mut stream).await?, ["0 c id=1", "0 c id=2", "0 c id=3"]);
    Ok(())
}

/// As for maintenance: nothing that a person has to mend here.
#[tokio::test]
async fn a_database_that_takes_no_connections_for_a_while_is_transient() -> Result<()> {
    let fixture = Fixture::new("CREATE TABLE t (id int PRIMARY KEY)", &["t"]).await?;
    let close = format!("ALTER DATABASE \"{}\" ALLOW_CONNECTIONS", fixture.database.name);
    let elsewhere = TestDatabase::create().await?;
    elsewhere.execute(&format!("{close} false")).await?;
    let error = fixture.postgres.inspect(&fixture.scope, Role::Source).await.unwrap_err();
    elsewhere.execute(&format!("{close} true")).await?;
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    Ok(())
}

#[tokio::test]
async fn ddl_for_what_is_missing() -> Result<()> {
    let sql = "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(20) NOT NULL, n numeric(10,2))";
    let fixture = Fixture::new(sql, &["t"]).await?;
    let mut reader = fixture.postgres.reader(&fixture.scope).await.unwrap();
    let schema = reader.schema(&"t".into()).await.unwrap();
    let copy = TableAt { table: "t".into(), name: "public.copy".to_owned(), document: Default::default() };
    let statement = fixture.postgres.ddl(&copy, &schema, None).unwrap();
    fixture.execute(&statement).await?;
    fixture.scope.tables.iter().for_each(|at: &TableAt| assert_eq!(at.name, "t"));
    assert_eq!(fixture.postgres.ddl(&copy, &schema, Some(&schema)), None);
    Ok(())
}
