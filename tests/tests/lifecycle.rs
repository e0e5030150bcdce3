//! A worker's life: it drains on SIGTERM, goes on where it was, says when it can't, and keeps secrets.

use std::time::{Duration, Instant};
use sync_worker_engine::status::{State, Task, TaskStatus};
use sync_worker_tests::connection::Connection;
use sync_worker_tests::database::Database;
use sync_worker_tests::kind::{Direction, Kind};
use sync_worker_tests::load::{Load, LoadSettings};
use sync_worker_tests::proxy::Proxy;
use sync_worker_tests::scenario::{Preparation, fence};
use sync_worker_tests::seed::seed;
use sync_worker_tests::worker::{Worker, binary, printed};
use sync_worker_tests::{compare, each_direction, ledger, tables, wait};

each_direction![
    sigterm_drains_and_a_restart_goes_on,
    a_dead_target_holds_back_no_other,
    secrets_and_row_values_stay_out_of_logs,
    a_lost_log_is_a_gap,
    a_table_that_leaves_comes_back_as_a_new_one,
];

const LIMIT: Duration = Duration::from_secs(120);
const POSTGRES: Direction = Direction { from: Kind::Postgres, to: Kind::Postgres };

async fn sigterm_drains_and_a_restart_goes_on(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "drain").await?;
    preparation.item(1_000).await?;
    let mut scenario = preparation.streaming().await?;
    ledger::install(&scenario.source).await?;
    ledger::install(&scenario.target).await?;
    let load = Load::start(&scenario.source.url(), &LoadSettings { rate: None, ..LoadSettings::new(seed()?) })?;
    for _ in 0..3 {
        scenario.until_changes(&load, 1_000).await?;
        let begun = Instant::now();
        let status = scenario.worker.terminate().await?;
        assert!(status.success(), "{status}{}", scenario.worker.log_tail());
        assert!(begun.elapsed() < Duration::from_secs(10), "drained in {:?}", begun.elapsed());
        scenario.worker.start()?;
        scenario.worker.until_streaming(LIMIT).await?;
    }
    load.stop().await?;
    scenario.settle().await?;
    let verdict = ledger::judge(&ledger::read(&scenario.source).await?, &ledger::read(&scenario.target).await?);
    assert!(verdict.is_good(), "{direction}: {verdict}");
    scenario.finish().await
}

async fn a_dead_target_holds_back_no_other(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "two").await?;
    preparation.item(1_000).await?;
    // The second target is reached through a proxy.
    let second = Database::create(direction.to, "second").await?;
    second.execute(&tables::item(second.kind)).await?;
    second.execute(tables::EMPTY_FENCE).await?;
    let proxy = Proxy::start(&second.address()).await?;
    let url = second.url_at(None, Some(&proxy.address()));
    preparation.settings.database("second", second.kind, &url);
    preparation.settings.pipelines[0].to.push("second".to_owned());
    let scenario = preparation.streaming().await?;
    fence(&scenario.source, &second, LIMIT).await?;

    proxy.swallow();
    let load = Load::start(&scenario.source.url(), &LoadSettings::new(seed()?))?;
    for _ in 0..5 {
        scenario.until_changes(&load, 500).await?;
        scenario.settle().await?;
    }
    load.stop().await?;
    scenario.equal().await?;
    let behind = compare::equal(&scenario.source, &second, "item").await;
    assert!(behind.is_err(), "the proxy swallowed nothing");
    proxy.forward();
    proxy.cut();
    fence(&scenario.source, &second, LIMIT).await?;
    compare::equal(&scenario.source, &second, "item").await?;
    scenario.finish().await
}

/// It leaves with a dead letter, and with a change on the log that the target does not have yet.
async fn a_table_that_leaves_comes_back_as_a_new_one(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "leaves").await?;
    let columns = "id int PRIMARY KEY, v int NOT NULL";
    let note = format!("CREATE TABLE note ({columns})");
    preparation.table("note", &note, &format!("CREATE TABLE note ({columns}, CHECK (v < 100))")).await?;
    preparation.item(10).await?;
    preparation.pipeline("retry = { attempts = 1, first_delay = \"20ms\" }");
    preparation.source.execute("INSERT INTO note VALUES (1, 1), (2, 2), (3, 3)").await?;
    let mut scenario = preparation.streaming().await?;
    scenario.source.execute("UPDATE note SET v = 500 WHERE id = 3").await?;
    let parked = scenario.worker.until("a parked row", LIMIT, |tasks| tasks.iter().any(|task| task.parked == 1));
    parked.await?;
    let mut application = scenario.target.connect().await?;
    application.execute("BEGIN; UPDATE note SET v = v WHERE id = 1").await?;
    let captured = |tasks: &[TaskStatus]| tasks.iter().find(|task| task.task == Task::Capture).map(|task| task.changes);
    let before = captured(&scenario.worker.status().await?);
    scenario.source.execute("UPDATE note SET v = 10 WHERE id = 1").await?;
    scenario.worker.until("a change on the log", LIMIT, |tasks| captured(tasks) > before).await?;
    scenario.worker.kill().await?;

    let mut without = scenario.settings.clone();
    without.pipelines[0].tables.retain(|table| table.name != "note");
    scenario.worker.configure(&without)?;
    scenario.worker.start()?;
    scenario.worker.until_streaming(LIMIT).await?;
    // Until now the transaction of the one that was killed has waited for it.
    application.execute("ROLLBACK").await?;
    let changes =
        "UPDATE note SET v = 20 WHERE id = 1; DELETE FROM note WHERE id = 2; UPDATE note SET v = 7 WHERE id = 3;
         INSERT INTO note VALUES (4, 4); UPDATE item SET version = version + 1";
    scenario.source.execute(changes).await?;
    scenario.settle().await?;
    compare::equal(&scenario.source, &scenario.target, "item").await?;
    scenario.worker.expect(0, &["dead-letters"]).await?;
    assert_eq!(scenario.target.number("SELECT count(*) FROM note WHERE v = id").await?, 3, "it has been written to");

    scenario.worker.terminate().await?;
    scenario.worker.configure(&scenario.settings)?;
    scenario.worker.start()?;
    scenario.worker.until_streaming(LIMIT).await?;
    scenario.settle().await?;
    // The one that was deleted meanwhile.
    let found = scenario.worker.expect(1, &["verify", "--patience", "0"]).await?;
    assert!(found.contains("1 keys differ"), "{found}");
    scenario.worker.expect(0, &["verify", "mirror", "--repair", "--patience", "5"]).await?;
    scenario.finish().await
}

/// A user of its own with a password, who may do everything.
async fn with_password(database: &Database, user: &str, password: &str) -> anyhow::Result<()> {
    let sql = match database.kind {
        Kind::Postgres => format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'"),
        Kind::Mysql => format!("CREATE USER {user} IDENTIFIED BY '{password}'; GRANT ALL ON *.* TO {user}"),
        Kind::Mongodb => anyhow::bail!("MongoDB has no statements"),
    };
    database.execute(&sql).await
}

async fn secrets_and_row_values_stay_out_of_logs(direction: Direction) -> anyhow::Result<()> {
    let (password, value) = ("Pa55word-of-sync", "v4lue-of-a-row");
    let mut preparation = Preparation::new(direction, "secrets").await?;
    preparation.item(20).await?;
    let mut users = Vec::new();
    for (at, database) in [&preparation.source, &preparation.target].into_iter().enumerate() {
        let user = format!("u{at}_{}", database.name);
        with_password(database, &user, password).await?;
        // One in the URL, which is unwise, one in the environment.
        let (login, extra) = match at {
            0 => (format!("{user}:{password}"), ""),
            _ => (user.clone(), "password = { env = \"SYNC_TEST_PASSWORD\" }"),
        };
        preparation.settings.databases[at].url = database.url_at(Some(&login), None);
        preparation.settings.databases[at].extra = extra.to_owned();
        users.push(user);
    }
    preparation.settings.environment.push(("SYNC_TEST_PASSWORD".to_owned(), password.to_owned()));
    preparation.settings.environment.push(("RUST_LOG".to_owned(), "debug".to_owned()));
    preparation.target.execute("ALTER TABLE item ADD CONSTRAINT refuse CHECK (state <> 9)").await?;
    preparation.source.execute(&format!("UPDATE item SET note = '{value}', name = '{value}', state = 1")).await?;
    let mut scenario = preparation.streaming().await?;
    // Some that arrive, some that are refused by a constraint, some by their length, and a row that is missing.
    scenario
        .source
        .execute(&format!(
            "UPDATE item SET name = '{value} again' WHERE id < 5; UPDATE item SET state = 9 WHERE id = 7;
             ALTER TABLE item {} name {}",
            direction.from.pick("ALTER", "MODIFY"),
            direction.from.pick("TYPE varchar(200)", "varchar(200) NOT NULL"),
        ))
        .await?;
    let long = value.repeat(10);
    scenario.target.execute("DELETE FROM item WHERE id = 9").await?;
    scenario
        .source
        .execute(&format!(
            "UPDATE item SET name = '{long}' WHERE id = 8; UPDATE item SET note = '{value}!' WHERE id = 9;
             INSERT INTO item (id, version, name, state) VALUES (30, 1, '{long}', 2)"
        ))
        .await?;
    scenario.settle().await?;
    let parked = |tasks: &[sync_worker_engine::status::TaskStatus]| tasks.iter().any(|task| task.parked >= 3);
    scenario.worker.until("three parked keys", LIMIT, parked).await?;
    scenario.worker.kill().await?;
    scenario.worker.start()?;
    scenario.worker.until_streaming(LIMIT).await?;
    scenario.settle().await?;
    let metrics = scenario.worker.metrics().await?;
    let shown = [
        printed(&scenario.worker.command(&["status", "--json"]).await?),
        printed(&scenario.worker.command(&["dead-letters"]).await?),
        printed(&scenario.worker.command(&["check"]).await?),
    ];
    // The configuration file itself holds one, for it was written there.
    for text in [scenario.worker.log(), metrics].iter().chain(&shown) {
        for secret in [password, value] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{direction}: {secret} shows in {line:?}");
        }
    }
    scenario.worker.terminate().await?;
    scenario.worker.quiet();
    // What the users own goes with the databases.
    drop(scenario);
    for (user, kind) in users.iter().zip([direction.from, direction.to]) {
        let drop = format!("{} {user}", kind.pick("DROP ROLE", "DROP USER"));
        Connection::open(&kind.shared_server()?).await?.execute(&drop).await?;
    }
    Ok(())
}

async fn a_lost_log_is_a_gap(direction: Direction) -> anyhow::Result<()> {
    let mut preparation = Preparation::new(direction, "gap").await?;
    preparation.item(500).await?;
    let mut scenario = preparation.streaming().await?;
    scenario.worker.terminate().await?;
    let log = scenario.worker.folder().join("state/log");
    std::fs::remove_dir_all(&log)?;
    scenario.source.execute("UPDATE item SET version = 7 WHERE id = 7").await?;
    scenario.worker.start()?;
    let gap = |tasks: &[sync_worker_engine::status::TaskStatus]| tasks.iter().all(|task| task.state == State::Gap);
    // With nothing left that could run the worker ends; whoever looks first sees either.
    let told = wait::until("the GAP to be told", LIMIT, async || {
        let shown = scenario.worker.status().await.is_ok_and(|tasks| gap(&tasks));
        Ok((shown || scenario.worker.log().contains("GAP")).then_some(()))
    });
    told.await?;
    let status = scenario.worker.ended(LIMIT).await?;
    assert_eq!(status.code(), Some(1), "{}", scenario.worker.log_tail());
    let log = scenario.worker.log();
    assert!(log.lines().any(|line| line.contains("GAP") && line.contains("snapshot")), "{log}");
    assert_eq!(scenario.target.number("SELECT count(*) FROM item WHERE version = 7").await?, 0);
    // The cure that it names: the state goes, and a new snapshot comes.
    std::fs::remove_dir_all(scenario.worker.folder().join("state"))?;
    scenario.target.execute("DELETE FROM item").await?;
    scenario.worker.start()?;
    scenario.worker.until_streaming(LIMIT).await?;
    scenario.finish().await
}

#[tokio::test]
async fn a_state_folder_belongs_to_one_worker() -> anyhow::Result<()> {
    let scenario = Preparation::new(POSTGRES, "lock").await?.streaming().await?;
    let output = scenario.worker.command(&["run"]).await?;
    let text = printed(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("ERROR") || line.contains("error")).count(), 1, "{text}");
    scenario.finish().await
}

#[tokio::test]
async fn an_idle_database_does_not_pin_the_servers_log() -> anyhow::Result<()> {
    let mut preparation = Preparation::new(POSTGRES, "idle").await?;
    preparation.settings.databases[0].extra.push_str("heartbeat_seconds = 1\n");
    let scenario = preparation.streaming().await?;
    // The server writes much, none of it for this database's pipeline.
    let other = Database::create(Kind::Postgres, "other").await?;
    other.execute("CREATE TABLE noise AS SELECT generate_series(1, 200000) AS n").await?;
    let here = other.connect().await?.value("SELECT pg_current_wal_lsn()").await?.unwrap_or_default();
    let name = &scenario.source.name;
    let passed = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE database = '{name}' AND confirmed_flush_lsn >= '{here}'"
    );
    let mut source = scenario.source.connect().await?;
    wait::until("the slot to pass what others wrote", LIMIT, async || {
        Ok((source.number(&passed).await? == 1).then_some(()))
    })
    .await?;
    drop(source);
    scenario.finish().await
}

#[tokio::test]
async fn health_and_status_tell_a_waiting_target() -> anyhow::Result<()> {
    let target = Database::create(Kind::Postgres, "health").await?;
    let proxy = Proxy::start(&target.address()).await?;
    let mut preparation = Preparation::between(Database::create(Kind::Postgres, "health").await?, target).await?;
    preparation.settings.databases[1].url = preparation.target.url_at(None, Some(&proxy.address()));
    let scenario = preparation.streaming().await?;
    let http = reqwest::Client::new();
    let health = |path: &str| format!("http://{}/health/{path}", scenario.worker.address());
    assert_eq!(http.get(health("ready")).send().await?.status(), 200);
    proxy.swallow();
    proxy.cut();
    let waits = |tasks: &[sync_worker_engine::status::TaskStatus]| {
        tasks.iter().any(|task| task.task == Task::Apply && task.state == State::Waiting && !task.reason.is_empty())
    };
    scenario.source.execute("UPDATE fence SET mark = mark + 1").await?;
    scenario.worker.until("the applier to wait", LIMIT, waits).await?;
    assert_eq!(http.get(health("ready")).send().await?.status(), 503);
    assert_eq!(http.get(health("live")).send().await?.status(), 200);
    proxy.forward();
    proxy.cut();
    scenario.worker.until_streaming(LIMIT).await?;
    assert_eq!(http.get(health("ready")).send().await?.status(), 200);
    scenario.finish().await
}

#[tokio::test]
async fn a_worker_that_was_never_started_is_named() -> anyhow::Result<()> {
    let preparation = Preparation::new(POSTGRES, "none").await?;
    let mut worker = Worker::new(&preparation.settings)?;
    worker.quiet();
    for command in [&["status"][..], &["dead-letters"], &["tail"]] {
        let text = worker.expect(1, command).await?;
        assert_eq!(text.trim().lines().count(), 1, "{text}");
        assert!(text.contains("sync-worker run"), "{text}");
    }
    Ok(())
}

/// A start that waits for a database is alive, is not ready, and ends when it is told to.
#[tokio::test]
async fn signals_and_health_are_answered_while_a_database_is_waited_for() -> anyhow::Result<()> {
    let mut preparation = Preparation::new(POSTGRES, "wait").await?;
    let proxy = Proxy::start(&preparation.target.address()).await?;
    preparation.settings.databases[1].url = preparation.target.url_at(None, Some(&proxy.address()));
    proxy.swallow();
    let mut worker = Worker::new(&preparation.settings)?;
    worker.start()?;
    let http = reqwest::Client::new();
    let health = |path: &str| format!("http://{}/health/{path}", worker.address());
    let ready = wait::until("an answer", LIMIT, async || {
        let Ok(answer) = http.get(health("ready")).send().await else { return Ok(None) };
        Ok(Some((answer.status(), answer.text().await?)))
    });
    let (status, text) = ready.await?;
    assert_eq!(status, 503);
    assert!(text.contains("looking at the databases"), "{text}");
    assert_eq!(http.get(health("live")).send().await?.status(), 200);
    let begun = Instant::now();
    let status = worker.terminate().await?;
    assert!(status.success() && begun.elapsed() < Duration::from_secs(6), "{status} after {:?}", begun.elapsed());
    worker.quiet();
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_stuck_does_not_hold_the_end_back() -> anyhow::Result<()> {
    let direction = Direction { from: Kind::Postgres, to: Kind::Mysql };
    let mut scenario = Preparation::new(direction, "stuck").await?.streaming().await?;
    let mut other = scenario.target.connect().await?;
    other.execute("START TRANSACTION").await?;
    other.execute("UPDATE fence SET mark = -1").await?;
    scenario.source.execute("UPDATE fence SET mark = mark + 1").await?;
    let waits = format!(
        "SELECT count(*) FROM information_schema.PROCESSLIST WHERE DB = '{}' AND STATE = 'updating'",
        scenario.target.name
    );
    wait::until("the worker to wait for the row", LIMIT, async || {
        Ok((scenario.target.number(&waits).await? > 0).then_some(()))
    })
    .await?;
    // Meanwhile more comes to stand behind it, and whoever looks sees that.
    let before = scenario.worker.status().await?;
    let behind = |tasks: &[TaskStatus]| tasks.iter().find(|task| task.task == Task::Apply).map(|task| task.behind);
    for _ in 0..50 {
        scenario.source.execute("UPDATE fence SET mark = mark + 1").await?;
    }
    let more = behind(&before).unwrap_or(0) + 50;
    scenario.worker.until("the records behind the target", LIMIT, |tasks| behind(tasks) >= Some(more)).await?;
    let begun = Instant::now();
    scenario.worker.terminate().await?;
    assert!(begun.elapsed() < Duration::from_secs(10), "ended after {:?}", begun.elapsed());
    other.execute("ROLLBACK").await?;
    scenario.worker.start()?;
    scenario.finish().await
}

#[tokio::test]
async fn commands_go_around_proxies_and_end_quietly_where_nobody_reads_on() -> anyhow::Result<()> {
    let mut preparation = Preparation::new(POSTGRES, "quiet").await?;
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        // Nobody listens on port 9.
        preparation.settings.environment.push((name.to_owned(), "http://127.0.0.1:9".to_owned()));
    }
    let scenario = preparation.streaming().await?;
    let text = scenario.worker.expect(0, &["status"]).await?;
    assert_eq!(text.lines().count(), 2, "{text}");
    for command in ["status", "check", "dead-letters"] {
        let mut child = std::process::Command::new(binary()?)
            .args(["--config".as_ref(), scenario.worker.folder().join("worker.toml").as_os_str(), command.as_ref()])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()?;
        drop(child.stdout.take());
        let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await??;
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {}", printed(&output));
    }
    scenario.finish().await
}
