//! `docs/configuration.md`, generated from the lists of fields.
//!
//! `SYNC_WORKER_UPDATE=1 cargo test -p sync-worker reference` writes it.

use super::section::Field;
use super::{BUS, HTTP, LOG, Purpose, STATE, databases, documents, pipelines, two_way};
use serde::de::DeserializeOwned;
use std::fmt::Write;
use std::path::Path;

/// The fields of `sync_worker_postgres::Config`.
const POSTGRES: [Field; 3] = [
    Field {
        name: "session_replication_role",
        takes: "`\"auto\"`, `\"origin\"` or `\"replica\"`",
        default: "\"auto\"",
        about: "As a target: how triggers and rules treat what is written. `replica`: only those marked ALWAYS or REPLICA \
                fire, as with native logical replication; `origin`: all fire; `auto`: `replica` where the user may set it.",
    },
    Field {
        name: "heartbeat_seconds",
        takes: "number",
        default: "10",
        about: "As a source: how often an idle database is made to move its position, so that it does not pin the \
                server's log. 0: never.",
    },
    Field {
        name: "failover_slot",
        takes: "`true` or `false`",
        default: "true",
        about: "As a source: whether the slot survives a failover to a standby that synchronizes it; PostgreSQL 17 and \
                later. A promoted standby is followed where its log has everything that was read; \
                `synchronized_standby_slots` at the primary sees to that.",
    },
];

/// The fields of `sync_worker_mysql::Config`.
const MYSQL: [Field; 1] = [Field {
    name: "server_id",
    takes: "number",
    default: "",
    about: "As a source: how the worker calls itself as a replica; unique among everything that reads this server's log. \
            Derived from installation, pipeline and database where it is not set.",
}];

const INTRODUCTION: &str = r#"# Configuration

<!-- Generated from the source: SYNC_WORKER_UPDATE=1 cargo test -p sync-worker reference -->

One TOML file, the first that is found: `--config FILE`, `SYNC_WORKER_CONFIG`, `./sync-worker.toml`,
`/etc/sync-worker/config.toml`. `config/` holds examples. Sizes carry a unit (`64MiB`, `1GB`), durations too (`250ms`,
`10s`, `1h30m`).

Environment variables go over the file: `SYNC_WORKER__PIPELINES__CUSTOMERS__SNAPSHOT=never` is `snapshot = "never"` in
`[pipelines.customers]`. Two underscores stand between the levels, case does not matter, `_` also stands for `-`, a number
is a place in a list, from 0. A list of texts may be written with commas between them, a table as in TOML. Without a file
the variables alone can be the configuration.

All mistakes are reported at once, a line each with file, line and column, and the worker exits with 2:

```
sync-worker.toml:12:1: pipelines.customers: unknown field "form", did you mean "from"?
```

Names of databases and pipelines are yours: letters, digits, `_` and `-`, up to 40. They appear in status, metrics and in
the names of what the worker makes in a database, so a pipeline that is renamed is a new one, which starts with a snapshot.
"#;

fn reference() -> String {
    let mut out = INTRODUCTION.to_owned();
    let mut part = |title: &str, text: &str, fields: &[Field]| {
        let _infallible = write!(out, "\n{title}\n");
        if !text.is_empty() {
            let _infallible = write!(out, "\n{text}\n");
        }
        out.push_str("\n| field | takes | default | |\n|---|---|---|---|\n");
        for field in fields {
            let default = if field.default.is_empty() { String::new() } else { format!("`{}`", field.default) };
            let _infallible = writeln!(out, "| `{}` | {} | {default} | {} |", field.name, field.takes, field.about);
        }
    };
    part("## `[databases.NAME]`", "Each database that takes part.", &databases::FIELDS);
    let password = "A password never stands in the file itself. `SYNC_WORKER__DATABASES__NAME__PASSWORD` may hold it. One \
                    in the `url` is taken, with a warning, and shown nowhere.";
    part("### `password`", password, &databases::PASSWORD);
    let url = "Parameters of the `url`: `sslmode` (`disable`, `prefer`, `require`, `verify-ca`, `verify-full`), \
               `sslrootcert`, `sslcert`, `sslkey`, `connect_timeout`, as in libpq.";
    part("### `kind = \"postgres\"`", url, &POSTGRES);
    let url = "Parameters of the `url` are those of MongoDB's drivers (`replicaSet`, `tls`, `tlsCAFile`, `authSource` and so on), \
               but for those that the worker sets itself. The server is a replica set or a sharded cluster.";
    part("### `kind = \"mongodb\"`", url, &[]);
    let url = "Parameters of the `url`: `ssl-mode` (`disabled`, `preferred`, `required`, `verify_ca`, `verify_identity`) \
               and `ssl-ca`, as in MySQL's own clients.";
    part("### `kind = \"mysql\"` and `kind = \"mariadb\"`", url, &MYSQL);
    let pipelines = "Tables of one database and the databases that they go to (`from`, `to`), or tables that several \
                     databases keep in common (`members`). Pipelines that lead back to where they began are refused: a \
                     table whose changes go both ways is in one pipeline with `members`.\n\nEach pipeline has one \
                     partition: a transaction of the source takes effect at a target whole and in commit order.";
    part("## `[pipelines.NAME]`", pipelines, &pipelines::FIELDS);
    let members = "Changes of each member go to all others. Two writes of a row conflict when neither member had seen the \
                   other's; no clock decides whether they do. What lost stands in the ledger: `sync-worker conflicts`.";
    part("### Two-way: `members`", members, &two_way::FIELDS);
    let tables = "Key and columns come from the databases themselves: every table needs a primary key (or, at a \
                  PostgreSQL source, a replica identity index), the same one on both sides.";
    part("### `[[pipelines.NAME.tables]]`", tables, &pipelines::TABLE);
    part("### Tables of two-way pipelines", "", &two_way::TABLE);
    part("### `groups`", "", &two_way::GROUP);
    let document = "A column is a top-level field of its name; a single key column is `_id` itself, several are the fields \
                    of an `_id` that is a document, in the order of the key, and with `key` they are fields of their own. `docs/types.md` says what becomes of the \
                    values. Between two MongoDB databases documents go through as they are.";
    part("### `document`", document, &documents::DOCUMENT);
    part("### `batch_limit` and `transaction_limit`", "", &pipelines::LIMIT);
    part("### `retry`", "", &pipelines::RETRY);
    part("## `[state]`", "", &STATE);
    part("## `[bus]`", "The embedded log; one for each pipeline.", &BUS);
    part("## `[http]`", "", &HTTP);
    part("## `[log]`", "", &LOG);
    out
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let reference = reference();
    if std::env::var_os("SYNC_WORKER_UPDATE").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap();
    assert!(written == reference, "docs/configuration.md is out of date: set SYNC_WORKER_UPDATE=1 and run this test");
}

/// Names of an adapter's fields, as it reports them for one that it does not know.
fn names<T: DeserializeOwned>() -> Vec<String> {
    let text = "url = ''\nsurely_unknown = 0";
    let Err(error) = toml::from_str::<T>(text) else { panic!("an unknown field was taken") };
    let names = error.message().split('`').skip(3).step_by(2);
    names.filter(|name| *name != "url").map(str::to_owned).collect()
}

#[test]
fn every_field_of_an_adapter_is_in_the_reference() {
    let listed = |fields: &[Field]| fields.iter().map(|field| field.name.to_owned()).collect::<Vec<_>>();
    assert_eq!(names::<sync_worker_postgres::Config>(), listed(&POSTGRES));
    assert_eq!(names::<sync_worker_mysql::Config>(), listed(&MYSQL));
}

fn documented_defaults_of_documents() {
    let read = |document: &str| {
        let text = format!(
            "databases.a = {{ kind = \"postgres\", url = \"postgres://u@a/x\" }}\n\
             databases.b = {{ kind = \"mongodb\", url = \"mongodb://u@b/x\" }}\n\
             pipelines.p = {{ from = \"a\", to = [\"b\"], tables = [{{ name = \"t\"{document} }}] }}"
        );
        super::Configuration::read(&text, &[], Purpose::Connect).unwrap()
    };
    let stated = documents::DOCUMENT.map(|field| format!("{} = {}", field.name, field.default));
    let spelled = read(&format!(", document = {{ {} }}", stated.join(", ")));
    assert_eq!(format!("{:?}", read("")), format!("{spelled:?}"));
}

fn documented_defaults_of_two_way() {
    let read = |fields: &str| {
        let text = format!(
            "databases.a = {{ kind = \"postgres\", url = \"postgres://u@a/x\" }}\n\
             databases.b = {{ kind = \"mysql\", url = \"mysql://u@b/x\" }}\n\
             pipelines.p = {{ members = [\"a\", \"b\"], seed = \"a\"{fields}, \
             tables = [{{ name = \"t\", strategy = \"merge\" }}] }}"
        );
        super::Configuration::read(&text, &[], Purpose::Connect).unwrap()
    };
    let stated = two_way::FIELDS.iter().filter(|field| !field.default.is_empty());
    let spelled = stated.map(|field| format!(", {} = {}", field.name, field.default)).collect::<String>();
    assert_eq!(format!("{:?}", read("")), format!("{:?}", read(&spelled)));
}

/// What is written as default is what happens without it.
#[test]
fn defaults_are_as_documented() {
    documented_defaults_of_documents();
    documented_defaults_of_two_way();
    const MINIMAL: &str = r#"
        databases.a = { kind = "postgres", url = "postgres://u@a/x" }
        databases.b = { kind = "mysql", url = "mysql://u@b/x" }
        pipelines.p = { from = "a", to = ["b"], tables = [{ name = "t" }] }
    "#;
    let minimal = super::Configuration::read(MINIMAL, &[], Purpose::Connect).unwrap();
    let lines = |fields: &[Field]| {
        let stated = fields.iter().filter(|field| !field.default.is_empty());
        stated.map(|field| format!("{} = {}\n", field.name, field.default)).collect::<String>()
    };
    let spelled = [
        "[databases.a]\nkind = \"postgres\"\nurl = \"postgres://u@a/x\"\n".to_owned(),
        lines(&databases::FIELDS),
        lines(&POSTGRES),
        "[databases.b]\nkind = \"mysql\"\nurl = \"mysql://u@b/x\"\n".to_owned(),
        lines(&MYSQL),
        "[pipelines.p]\nfrom = \"a\"\nto = [\"b\"]\ntables = [{ name = \"t\" }]\n".to_owned(),
        lines(&pipelines::FIELDS),
        "[state]\n".to_owned(),
        lines(&STATE),
        "[bus]\n".to_owned(),
        lines(&BUS),
        "[http]\n".to_owned(),
        lines(&HTTP),
        "[log]\n".to_owned(),
        lines(&LOG),
    ]
    .concat();
    let spelled = super::Configuration::read(&spelled, &[], Purpose::Connect).unwrap();
    assert_eq!(format!("{minimal:?}"), format!("{spelled:?}"));
}
