//! What people get wrong: each mistake is one line that names the place and the cure, ends with 2 or 1, and leaves
//! everything as it was.

use std::time::Duration;
use sync_worker_engine::status::{State, Task, TaskStatus};
use sync_worker_tests::connection::Connection;
use sync_worker_tests::database::Database;
use sync_worker_tests::each_direction;
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::proxy::Proxy;
use sync_worker_tests::scenario::Preparation;
use sync_worker_tests::servers::Servers;
use sync_worker_tests::worker::{Worker, printed};

each_direction![
    a_wrong_password,
    a_table_without_a_key,
    a_missing_target_table,
    a_type_that_does_not_fit,
    check_says_all_of_them_at_once,
];

const LIMIT: Duration = Duration::from_secs(120);
const MIXED: Direction = Direction { from: Kind::Postgres, to: Kind::Mysql };

/// What is defined and stored at both ends, our bookkeeping for this test included.
async fn all(preparation: &Preparation) -> anyhow::Result<Vec<Vec<String>>> {
    let mut found = Vec::new();
    for database in [&preparation.source, &preparation.target] {
        found.push(database.catalog().await?);
        if database.kind == Kind::Mysql {
            // Shared by all tests of the server, so only rows of this one's pipeline count.
            let mut connection = database.connect().await?;
            let there = connection
                .number("SELECT count(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'sync_worker' AND TABLE_NAME = 'progress'")
                .await?;
            let pipeline = &preparation.settings.pipelines[0].name;
            let rows = format!("SELECT count(*) FROM sync_worker.progress WHERE pipeline = '{pipeline}'");
            found.push(vec![if there == 1 { connection.number(&rows).await?.to_string() } else { "0".to_owned() }]);
        }
    }
    Ok(found)
}

async fn prepared(direction: Direction) -> anyhow::Result<Preparation> {
    let mut preparation = Preparation::new(direction, "mistake").await?;
    preparation.settings.pipelines[0].name = preparation.target.name.clone();
    Ok(preparation)
}

/// The lines that are problems, whatever the log's form.
fn problems(text: &str) -> Vec<String> {
    let is_problem = |line: &&str| {
        line.contains("\"level\":\"ERROR\"") || line.starts_with("error: ") || line.starts_with("problem: ")
    };
    text.lines().filter(is_problem).map(str::to_owned).collect()
}

/// `check` and `run` both end with 1 and say it in one line with these parts, and nothing has changed.
async fn refused(preparation: &Preparation, parts: &[&str]) -> anyhow::Result<()> {
    let before = all(preparation).await?;
    let mut worker = Worker::new(&preparation.settings)?;
    worker.quiet();
    for command in ["check", "run"] {
        let output = tokio::time::timeout(LIMIT, worker.command(&[command])).await??;
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(1), "{command}: {text}");
        let lines = problems(&text);
        assert_eq!(lines.len(), 1, "{command}: {text}");
        for part in parts {
            assert!(lines[0].contains(part), "{command}: {part:?} is not in {}", lines[0]);
        }
    }
    assert_eq!(all(preparation).await?, before);
    Ok(())
}

async fn a_wrong_password(direction: Direction) -> anyhow::Result<()> {
    for at in [0, 1] {
        let mut preparation = prepared(direction).await?;
        let database = if at == 0 { &preparation.source } else { &preparation.target };
        let user = format!("p_{}", database.name);
        let sql = match database.kind {
            Kind::Postgres => format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 'right-one'"),
            Kind::Mysql => format!("CREATE USER {user} IDENTIFIED BY 'right-one'; GRANT ALL ON *.* TO {user}"),
            Kind::Mongodb => anyhow::bail!("MongoDB has no statements"),
        };
        database.execute(&sql).await?;
        let (kind, url) = (database.kind, database.url_at(Some(&user), None));
        preparation.settings.databases[at].url = url;
        preparation.settings.databases[at].extra = "password = { env = \"SYNC_TEST_PASSWORD\" }\n".to_owned();
        preparation.settings.environment.push(("SYNC_TEST_PASSWORD".to_owned(), "wr0ng-one".to_owned()));
        let name = format!("databases.{}", if at == 0 { "source" } else { "target" });
        let refused = refused(&preparation, &[&name, "password", &user]).await;
        let drop = format!("{} {user}", kind.pick("DROP ROLE", "DROP USER"));
        Connection::open(&kind.shared_server()?).await?.execute(&drop).await?;
        refused?;
    }
    Ok(())
}

async fn a_table_without_a_key(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = prepared(direction).await?;
    preparation
        .table("bag", "CREATE TABLE bag (id int, name text)", "CREATE TABLE bag (id int PRIMARY KEY, name text)")
        .await?;
    refused(&preparation, &["databases.source", "bag", "primary key", "ALTER TABLE"]).await
}

async fn a_missing_target_table(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = prepared(direction).await?;
    preparation.source.execute("CREATE TABLE lonely (id int PRIMARY KEY)").await?;
    preparation.add("lonely");
    refused(&preparation, &["databases.target", "lonely", "no such table", "sync-worker schema"]).await
}

async fn a_type_that_does_not_fit(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = prepared(direction).await?;
    preparation
        .table(
            "fit",
            "CREATE TABLE fit (id int PRIMARY KEY, born date)",
            "CREATE TABLE fit (id int PRIMARY KEY, born int)",
        )
        .await?;
    refused(&preparation, &["databases.target", "fit", "born", "date", "int"]).await
}

async fn check_says_all_of_them_at_once(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = prepared(direction).await?;
    preparation.table("bag", "CREATE TABLE bag (id int, name text)", "CREATE TABLE bag (id int, name text)").await?;
    preparation.source.execute("CREATE TABLE lonely (id int PRIMARY KEY)").await?;
    preparation.add("lonely");
    preparation.add("nowhere");
    preparation
        .table(
            "fit",
            "CREATE TABLE fit (id int PRIMARY KEY, born date)",
            "CREATE TABLE fit (id int PRIMARY KEY, born int)",
        )
        .await?;
    let made = |twice: &str| {
        format!(
            "CREATE TABLE made (id int PRIMARY KEY, twice int{twice}, thrice int GENERATED ALWAYS AS (id * 3) STORED)"
        )
    };
    preparation.table("made", &made(" GENERATED ALWAYS AS (id * 2) STORED"), &made("")).await?;
    preparation.settings.database("gone", direction.to, &format!("{}://nobody@127.0.0.1:9/none", direction.to));
    preparation.settings.pipelines[0].to.push("gone".to_owned());
    let before = all(&preparation).await?;
    let mut worker = Worker::new(&preparation.settings)?;
    worker.quiet();
    let output = worker.command(&["check"]).await?;
    assert_eq!(output.status.code(), Some(1));
    let text = printed(&output);
    let lines = problems(&text);
    for parts in [
        ["databases.source", "bag", "primary key"],
        ["databases.target", "bag", "primary key"],
        ["databases.target", "lonely", "no such table"],
        ["databases.source", "nowhere", "no such table"],
        ["databases.target", "nowhere", "no such table"],
        ["databases.target", "fit", "born"],
        ["databases.gone", "127.0.0.1:9", "can't reach"],
    ] {
        let told = lines.iter().filter(|line| parts.iter().all(|part| line.contains(part))).count();
        assert_eq!(told, 1, "{parts:?} in {text}");
    }
    assert_eq!(lines.len(), 7, "{text}");
    let made: Vec<_> = text.lines().filter(|line| line.contains("made")).collect();
    assert!(
        made.len() == 1 && ["advice: ", "databases.target", "twice"].iter().all(|part| made[0].contains(part)),
        "{text}"
    );
    let json = worker.command(&["check", "--json"]).await?;
    let findings: serde_json::Value = serde_json::from_slice(&json.stdout)?;
    let problems = findings.as_array().map(|all| all.iter().filter(|one| one["advice"] == false).count());
    assert_eq!(problems, Some(7), "{findings}");
    assert_eq!(all(&preparation).await?, before);
    Ok(())
}

#[tokio::test]
async fn a_mistyped_configuration_tells_every_mistake_with_its_place() -> anyhow::Result<()> {
    let mut preparation = prepared(MIXED).await?;
    preparation.settings.databases[0].extra.push_str("prioriti = 1\n");
    preparation.settings.pipelines[0].from = "sorce".to_owned();
    preparation.pipeline("snapshot_chunk_row = 10\nretry = { attempts = \"many\" }");
    preparation.settings.extra.push_str("[htp]\nlisten = \"127.0.0.1:1\"\n");
    let before = all(&preparation).await?;
    let mut worker = Worker::new(&preparation.settings)?;
    worker.quiet();
    for command in ["check", "run", "verify", "status", "schema"] {
        let output = worker.command(&[command]).await?;
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(2), "{command}: {text}");
        for parts in [
            ["prioriti", "did you mean \"priority\""],
            ["sorce", "did you mean \"source\""],
            ["snapshot_chunk_row", "did you mean \"snapshot_chunk_rows\""],
            ["attempts", "number"],
            ["htp", "did you mean \"http\""],
        ] {
            let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            let line = line.unwrap_or_else(|| panic!("{command}: {parts:?} in {text}"));
            assert!(line.contains("worker.toml:"), "{line}");
        }
        assert_eq!(text.lines().count(), 5, "{text}");
    }
    assert!(!worker.folder().join("state").exists());
    assert_eq!(all(&preparation).await?, before);
    Ok(())
}

#[tokio::test]
async fn an_unreachable_host_is_told_by_check_and_waited_for_by_run() -> anyhow::Result<()> {
    for at in [0, 1] {
        let mut preparation = prepared(MIXED).await?;
        let database = if at == 0 { &preparation.source } else { &preparation.target };
        // Nobody listens on port 9.
        let url = database.url_at(None, Some("127.0.0.1:9"));
        preparation.settings.databases[at].url = url;
        let before = all(&preparation).await?;
        let mut worker = Worker::new(&preparation.settings)?;
        let place = format!("databases.{}", if at == 0 { "source" } else { "target" });
        for command in ["check", "verify"] {
            let output = worker.command(&[command]).await?;
            let text = printed(&output);
            assert_eq!(output.status.code(), Some(1), "{command}: {text}");
            let lines = problems(&text);
            assert_eq!(lines.len(), 1, "{command}: {text}");
            for part in ["can't reach", "127.0.0.1:9"] {
                assert!(lines[0].contains(part), "{command}: {part} is not in {text}");
            }
        }
        assert_eq!(all(&preparation).await?, before);
        worker.start()?;
        let waits = |tasks: &[sync_worker_engine::status::TaskStatus]| {
            tasks.iter().any(|task| task.state == State::Waiting && task.reason.contains("127.0.0.1:9"))
        };
        worker.until("a task to wait", LIMIT, waits).await?;
        let log = worker.log();
        assert!(log.lines().any(|line| line.contains(&place) || line.contains("127.0.0.1:9")), "{log}");
        assert!(worker.terminate().await?.success());
        worker.quiet();
    }
    Ok(())
}

/// What a start would have refused stops the task that found the database at last, and nothing is written there.
#[tokio::test]
async fn a_database_that_comes_later_is_looked_at_before_anything_is_done_with_it() -> anyhow::Result<()> {
    for at in [0, 1] {
        let mut preparation = prepared(MIXED).await?;
        let (here, there) =
            ("CREATE TABLE fit (id int PRIMARY KEY, born date)", "CREATE TABLE fit (id int PRIMARY KEY, born int)");
        preparation.table("fit", here, there).await?;
        let database = if at == 0 { &preparation.source } else { &preparation.target };
        let proxy = Proxy::start(&database.address()).await?;
        preparation.settings.databases[at].url = database.url_at(None, Some(&proxy.address()));
        let before = all(&preparation).await?;
        proxy.swallow();
        let mut worker = Worker::new(&preparation.settings)?;
        worker.start()?;
        let task = if at == 0 { Task::Capture } else { Task::Apply };
        let is = |tasks: &[TaskStatus], state: State, part: &str| {
            tasks.iter().any(|one| one.task == task && one.state == state && one.reason.contains(part))
        };
        worker.until("a task to wait", LIMIT, |tasks| is(tasks, State::Waiting, "127.0.0.1")).await?;
        proxy.forward();
        worker
            .until("a task to fail", LIMIT, |tasks| is(tasks, State::Failed, "column born: date can't become int"))
            .await?;
        // The other one was there all the time, and is in use.
        let own = if at == 0 { 0..1 } else { 1..before.len() };
        assert_eq!(all(&preparation).await?[own.clone()], before[own]);
        worker.terminate().await?;
        worker.quiet();
    }
    Ok(())
}

/// Rows that the source keeps apart must not become one.
#[tokio::test]
async fn a_text_key_that_is_compared_without_case_at_the_target() -> anyhow::Result<()> {
    let folds = "CREATE TABLE word (word varchar(40) PRIMARY KEY, count int) DEFAULT COLLATE utf8mb4_0900_ai_ci";
    let exact = "CREATE TABLE word (word varchar(40) PRIMARY KEY, count int) DEFAULT COLLATE utf8mb4_0900_bin";
    let postgres = "CREATE TABLE word (word varchar(40) PRIMARY KEY, count int)";
    let mysql = Direction { from: Kind::Mysql, to: Kind::Mysql };
    for (direction, source) in [(MIXED, postgres), (mysql, exact)] {
        let mut preparation = prepared(direction).await?;
        preparation.table("word", source, folds).await?;
        let parts =
            ["databases.target", "word", "utf8mb4_0900_ai_ci", "'a' and 'A'", "COLLATE utf8mb4_0900_bin NOT NULL;"];
        refused(&preparation, &parts).await?;
        let mut worker = Worker::new(&preparation.settings)?;
        worker.quiet();
        let text = printed(&worker.command(&["check"]).await?);
        let (_, cure) = text.lines().next().and_then(|line| line.split_once("; ALTER")).unwrap_or_default();
        preparation.target.execute(&format!("ALTER{cure}")).await?;
        worker.expect(0, &["check"]).await?;
    }
    // Of what is one row at the source, too, there is only one.
    let mut preparation = prepared(mysql).await?;
    preparation.table("word", folds, folds).await?;
    let mut worker = Worker::new(&preparation.settings)?;
    worker.quiet();
    worker.expect(0, &["check"]).await?;
    let scenario = preparation.streaming().await?;
    scenario
        .source
        .execute(
            "INSERT INTO word VALUES ('a', 1), ('b', 1), ('c', 1), ('d', 1); UPDATE word SET word = 'A' WHERE word = 'a';
             UPDATE word SET count = 2 WHERE word <> 'c'; DELETE FROM word WHERE word = 'B'; INSERT INTO word VALUES ('B', 3)",
        )
        .await?;
    scenario.finish().await
}

#[tokio::test]
async fn wrong_usage_ends_with_2() -> anyhow::Result<()> {
    let mut worker = Worker::new(&prepared(MIXED).await?.settings)?;
    worker.quiet();
    for arguments in [&["walk"][..], &["run", "--fast"], &["dead-letters", "retry"], &["verify", "a", "b"]] {
        let text = worker.expect(2, arguments).await?;
        assert!(text.contains("error"), "{text}");
    }
    let text = worker.expect(1, &["verify", "nothing"]).await?;
    assert!(text.contains("nothing"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_missing_privilege_is_told_with_its_statement() -> anyhow::Result<()> {
    for kind in [Kind::Postgres, Kind::Mysql] {
        let mut preparation = prepared(Direction { from: kind, to: kind }).await?;
        let mut users: Vec<(String, &Database)> = Vec::new();
        for database in [&preparation.source, &preparation.target] {
            let user = format!("q_{}", database.name);
            let sql = match kind {
                Kind::Postgres => format!("CREATE ROLE {user} LOGIN PASSWORD 'q'"),
                Kind::Mysql => {
                    format!("CREATE USER {user} IDENTIFIED BY 'q'; GRANT SELECT ON {}.* TO {user}", database.name)
                }
                Kind::Mongodb => anyhow::bail!("MongoDB has no statements"),
            };
            database.execute(&sql).await?;
            users.push((user, database));
        }
        let urls: Vec<String> =
            users.iter().map(|(user, database)| database.url_at(Some(&format!("{user}:q")), None)).collect();
        let names: Vec<String> = users.into_iter().map(|(user, _)| user).collect();
        for (at, url) in urls.into_iter().enumerate() {
            preparation.settings.databases[at].url = url;
        }
        let mut worker = Worker::new(&preparation.settings)?;
        worker.quiet();
        let checked = printed(&worker.command(&["check"]).await?);
        let run = tokio::time::timeout(LIMIT, worker.command(&["run"])).await??;
        for user in names {
            let drop = format!("{} {user}", kind.pick("DROP ROLE", "DROP USER"));
            Connection::open(&kind.shared_server()?).await?.execute(&drop).await?;
        }
        assert_eq!(run.status.code(), Some(1), "{}", printed(&run));
        let wanted: &[[&str; 3]] = match kind {
            Kind::Postgres => &[
                ["databases.source", "may not replicate", "ALTER ROLE"],
                ["databases.source", "lacks SELECT", "GRANT SELECT"],
                ["databases.target", "lacks INSERT", "GRANT INSERT"],
            ],
            Kind::Mongodb => &[],
            Kind::Mysql => &[
                ["databases.source", "lacks REPLICATION SLAVE", "GRANT REPLICATION SLAVE"],
                ["databases.target", "fence", "GRANT"],
                ["databases.target", "sync_worker", "GRANT"],
            ],
        };
        for parts in wanted {
            assert!(checked.lines().any(|line| parts.iter().all(|part| line.contains(part))), "{parts:?} in {checked}");
        }
    }
    Ok(())
}

/// As a member of a two-way pipeline it is a source, too.
#[tokio::test]
async fn a_mysql_source_that_does_not_log_what_foreign_keys_change_is_told() -> anyhow::Result<()> {
    let servers = Servers::new()?;
    let server = servers.start(Kind::Mysql, "source", &["innodb-native-foreign-keys=ON"])?;
    let mut preparation = Preparation::between(
        Database::create_on(&server, "cascades").await?,
        Database::create(Kind::Postgres, "cascades").await?,
    )
    .await?;
    preparation.item(3).await?;
    let family = "CREATE TABLE parent (id bigint PRIMARY KEY) SELECT id FROM item; ALTER TABLE item ADD CONSTRAINT family \
                  FOREIGN KEY (id) REFERENCES parent (id) ON DELETE CASCADE";
    preparation.source.execute(family).await?;
    let mut worker = Worker::new(&preparation.settings)?;
    worker.quiet();
    let checked = worker.expect(1, &["check"]).await?;
    let parts = ["databases.source", "family changes its rows by an action", "DROP FOREIGN KEY `family`"];
    assert!(problems(&checked).iter().any(|line| parts.iter().all(|part| line.contains(part))), "{checked}");
    Ok(())
}

#[tokio::test]
async fn a_mysql_source_that_keeps_changes_out_of_its_log_is_told() -> anyhow::Result<()> {
    let servers = Servers::new()?;
    let settings = ["binlog-do-db=elsewhere", "log-replica-updates=OFF"];
    let source = Database::create_on(&servers.start(Kind::Mysql, "source", &settings)?, "filtered").await?;
    // A target may go without any log.
    let target = Database::create_on(&servers.start(Kind::Mysql, "target", &["skip-log-bin"])?, "filtered").await?;
    source.execute("CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'nowhere.invalid', SOURCE_USER = 'nobody'").await?;
    source.execute("SET GLOBAL server_id = 0").await?;
    let mut preparation = Preparation::between(source, target).await?;
    preparation.item(3).await?;
    let mut worker = Worker::new(&preparation.settings)?;
    worker.quiet();
    let checked = worker.expect(1, &["check"]).await?;
    for parts in [
        ["databases.source", "binlog-do-db is elsewhere", "without binlog-do-db"],
        ["databases.source", "log_replica_updates is OFF", "--log-replica-updates"],
        ["databases.source", "server_id is 0", "SET PERSIST server_id"],
    ] {
        let told = problems(&checked).iter().any(|line| parts.iter().all(|part| line.contains(part)));
        assert!(told, "{parts:?} in {checked}");
    }
    assert_eq!(problems(&checked).len(), 3, "{checked}");
    // The rows differ, and that is all that a comparison finds.
    let text = worker.expect(1, &["verify", "--patience", "0"]).await?;
    assert!(problems(&text).is_empty(), "{text}");
    Ok(())
}
