//! Preflight finds what stands in the way, and nothing else.

use crate::fixture::Fixture;
use anyhow::{Result, anyhow};
use sync_worker_core::database::{Database, Inspection, Role};
use sync_worker_core::secret::Secret;
use sync_worker_mysql::{Config, Mysql};

async fn inspected(database: &Mysql, fixture: &Fixture, role: Role) -> Result<Inspection> {
    database.inspect(&fixture.scope, role).await.map_err(|error| anyhow!("{error:?}"))
}

fn has(inspection: &Inspection, place: &str, problem: &str, cure: &str) {
    let found = inspection.findings.iter().any(|finding| {
        finding.place.ends_with(place) && finding.problem.contains(problem) && finding.cure.contains(cure)
    });
    assert!(found, "no finding of {problem:?} at {place} with {cure:?} among {:#?}", inspection.findings);
}

#[tokio::test]
async fn a_good_database_has_no_findings() -> Result<()> {
    let create = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(10) CHARACTER SET latin1)";
    let Some(fixture) =
        Fixture::new(&[create, "INSERT INTO t VALUES (1, 'a'), (2, 'b')", "ANALYZE TABLE t"], &["t"]).await?
    else {
        return Ok(());
    };
    for role in [Role::Source, Role::Target] {
        let inspection = inspected(&fixture.mysql, &fixture, role).await?;
        assert!(inspection.findings.is_empty(), "{:#?}", inspection.findings);
        assert_eq!(inspection.tables.len(), 1);
        assert_eq!(inspection.estimates, [2]);
    }
    Ok(())
}

#[tokio::test]
async fn all_that_is_wrong_with_tables_is_named_at_once() -> Result<()> {
    let creates = [
        "CREATE TABLE keyless (a INT UNIQUE, b INT)",
        "CREATE TABLE myisam (id INT PRIMARY KEY) ENGINE = MyISAM",
        "CREATE TABLE sjis (id INT PRIMARY KEY, v VARCHAR(9) CHARACTER SET sjis)",
        "CREATE TABLE folded (id VARCHAR(9) COLLATE utf8mb4_0900_ai_ci PRIMARY KEY)",
        "CREATE VIEW shown AS SELECT 1 AS one",
    ];
    let tables = ["keyless", "myisam", "sjis", "folded", "shown", "missing"];
    let Some(fixture) = Fixture::new(&creates, &tables).await? else { return Ok(()) };
    let inspection = inspected(&fixture.mysql, &fixture, Role::Source).await?;
    has(&inspection, ".keyless", "no primary key", "ADD PRIMARY KEY");
    has(&inspection, ".myisam", "MyISAM", "ENGINE = InnoDB");
    has(&inspection, ".sjis", "column v has character set sjis", "CHARACTER SET utf8mb4");
    has(&inspection, ".folded", "utf8mb4_0900_ai_ci", "COLLATE utf8mb4_0900_bin");
    has(&inspection, ".shown", "view", "");
    has(&inspection, ".missing", "no such table", "create it");
    Ok(())
}

#[tokio::test]
async fn each_missing_privilege_is_named_with_its_grant() -> Result<()> {
    let Some(fixture) = Fixture::new(&["CREATE TABLE t (id INT PRIMARY KEY)"], &["t"]).await? else { return Ok(()) };
    let digits: String = fixture.database.name.chars().rev().filter(char::is_ascii_digit).take(18).collect();
    let (user, role) = (format!("u{digits}"), format!("r{digits}"));
    let name = &fixture.database.name;
    let statements = [
        format!("CREATE USER {user} IDENTIFIED BY 'x'"),
        format!("CREATE ROLE {role}"),
        format!("GRANT SELECT ON {name}.* TO {user}"),
        format!("GRANT REPLICATION SLAVE ON *.* TO {role}"),
        format!("GRANT {role} TO {user}"),
        format!("SET DEFAULT ROLE {role} TO {user}"),
    ];
    fixture.run(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let url = fixture.database.url.replace("root@", &format!("{user}@"));
    let database = Mysql::new("shop".into(), Config { url, password: Some(Secret::new("x".into())), server_id: None })?;
    let outcome = async {
        let source = inspected(&database, &fixture, Role::Source).await?;
        assert_eq!(source.findings.len(), 1, "{:#?}", source.findings);
        let named = format!("GRANT REPLICATION CLIENT ON *.* TO '{user}'@'%';");
        has(&source, "shop", "REPLICATION CLIENT", &named);
        let target = inspected(&database, &fixture, Role::Target).await?;
        let own = format!("ON sync_worker.* TO '{user}'@'%';");
        has(&target, "shop", "SELECT, INSERT, UPDATE, DELETE on the database sync_worker", &own);
        has(
            &target,
            ".t",
            "lacks INSERT, UPDATE, DELETE",
            &format!("GRANT INSERT, UPDATE, DELETE ON `{name}`.`t` TO '{user}'"),
        );
        assert_eq!(target.findings.len(), 2, "{:#?}", target.findings);
        anyhow::Ok(())
    };
    let outcome = outcome.await;
    fixture.run(&[&format!("DROP USER {user}"), &format!("DROP ROLE {role}")]).await?;
    outcome
}

#[tokio::test]
async fn a_target_needs_no_more_than_its_rows() -> Result<()> {
    let create = ["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)"];
    let Some(fixture) = Fixture::new(&create, &["t"]).await? else { return Ok(()) };
    let failed = |error| anyhow!("{error:?}");
    // An administrator has made the tables of sync_worker.
    fixture.mysql.sink(&fixture.scope).await.map_err(failed)?.take_over("log").await.map_err(failed)?;
    let digits: String = fixture.database.name.chars().rev().filter(char::is_ascii_digit).take(18).collect();
    let user = format!("w{digits}");
    let privileges = "SELECT, INSERT, UPDATE, DELETE";
    let statements = [
        format!("CREATE USER {user} IDENTIFIED BY 'x'"),
        format!("GRANT {privileges} ON {}.* TO {user}", fixture.database.name),
        format!("GRANT {privileges} ON sync_worker.* TO {user}"),
    ];
    fixture.run(&statements.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let url = fixture.database.url.replace("root@", &format!("{user}@"));
    let database = Mysql::new("shop".into(), Config { url, password: Some(Secret::new("x".into())), server_id: None })?;
    let outcome = async {
        let target = inspected(&database, &fixture, Role::Target).await?;
        assert!(target.findings.is_empty(), "{:#?}", target.findings);
        database.sink(&fixture.scope).await.map_err(failed)?.take_over("log").await.map_err(failed)?;
        // A comparison reads a target, whose log is none of its business.
        let mut reader = database.reader(&fixture.scope).await.map_err(failed)?;
        let chunk = reader.read_range(&"t".into(), &Default::default(), 1 << 20).await.map_err(failed)?;
        assert_eq!(chunk.rows.len(), 2);
        anyhow::Ok(())
    };
    let outcome = outcome.await;
    fixture.run(&[&format!("DROP USER {user}")]).await?;
    outcome
}
