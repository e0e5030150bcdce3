//! What is understood, and how mistakes are told.

use super::{Adapter, Configuration, Invalid, Purpose};
use crate::telemetry::Format;
use std::path::{Path, PathBuf};
use std::time::Duration;
use sync_worker_core::document::mapping::{DocumentMapping, OtherFields, Times};
use sync_worker_core::name::DatabaseName;
use sync_worker_core::rules::{ColumnGroup, Merge, OnDelete, Strategy};
use sync_worker_engine::pipeline::Resolution;
use sync_worker_engine::seeding::Seed;

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Configuration, Vec<String>> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let variables: Vec<_> = variables.iter().map(owned).collect();
    Configuration::read(text, &variables, Purpose::Connect).map_err(|problems| {
        let invalid = Invalid { file: Some(PathBuf::from("f.toml")), problems };
        invalid.to_string().lines().map(str::to_owned).collect()
    })
}

fn mistakes(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match read(text, variables) {
        Ok(_) => panic!("was taken:\n{text}"),
        Err(lines) => lines,
    }
}

const GOOD: &str = r#"
[databases.crm]
kind = "postgres"
url = "postgres://sync@crm.internal:5432/app"

[databases.shop]
kind = "mysql"
url = "mysql://sync@shop.internal:3306/shop"

[pipelines.customers]
from = "crm"
to = ["shop"]

[[pipelines.customers.tables]]
name = "customer"
at = { crm = "public.customer" }
"#;

/// `GOOD` with one line replaced.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

#[test]
fn the_examples_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let configuration = Configuration::read(&text, &[], Purpose::Ask);
        let configuration = configuration.unwrap_or_else(|problems| panic!("{path:?}: {problems:?}"));
        assert!(configuration.warnings.is_empty(), "{path:?}: {:?}", configuration.warnings);
        assert!(!configuration.pipelines.is_empty());
        count += 1;
    }
    assert_eq!(count, 5);
}

#[test]
fn a_configuration_is_read() {
    let more = "[state]\npath = \"/var/x\"\n[bus]\nretention_size = \"2GiB\"\n[http]\nlisten = \"[::1]:80\"\n[log]\nformat = \"json\"";
    let configuration = read(&format!("{GOOD}{more}"), &[]).unwrap();
    assert_eq!(configuration.databases.len(), 2);
    let plan = &configuration.pipelines[0];
    assert_eq!((plan.name.as_str(), plan.from.as_str(), plan.to[0].as_str()), ("customers", "crm", "shop"));
    assert_eq!(plan.tables[0].name.as_str(), "customer");
    assert_eq!(plan.tables[0].at[&DatabaseName::new("crm")], "public.customer");
    assert!(plan.snapshot.initial);
    assert_eq!(configuration.state, PathBuf::from("/var/x"));
    assert_eq!(configuration.bus.max_bytes, 2 << 30);
    assert_eq!(configuration.http.to_string(), "[::1]:80");
    assert_eq!(configuration.log.format, Format::Json);
}

#[test]
fn all_mistakes_are_told_at_once_with_place_and_meaning() {
    let text = r#"
[database.crm]
kind = "postgres"

[databases.shop]
kind = "mysqll"
url = "mysql://sync@shop/shop"
priority = "high"

[databases.logs]
kind = "postgres"
url = "mysql://sync@logs/logs"
sesion_replication_role = "replica"
failover_slot = "yes"

[pipelines.customers]
memebers = ["shop", "logs"]
from = "shp"
to = ["logs", "logs"]
snapshot = "intial"
snapshot_chunk_rows = 0
retry = { attemps = 3, first_delay = 10, max_delay = "soon" }
batch_limit = { rows = 10, size = "8 MiBs" }

[[pipelines.customers.tables]]
nmae = "customer"
at = { shop = "customer", longs = "x" }

[http]
listen = "localhost"

[log]
level = "inof"
"#;
    let expected = [
        r#"f.toml:2:2: unknown field "database", did you mean "databases"?"#,
        r#"f.toml:6:8: databases.shop.kind: there is no "mysqll", did you mean "mysql"?"#,
        r#"f.toml:8:12: databases.shop.priority: must be a whole number"#,
        r#"f.toml:13:1: databases.logs: unknown field "sesion_replication_role", did you mean "session_replication_role"?"#,
        r#"f.toml:14:17: databases.logs.failover_slot: must be a boolean"#,
        r#"f.toml:17:1: pipelines.customers: unknown field "memebers", did you mean "members"?"#,
        r#"f.toml:18:8: pipelines.customers.from: there is no database "shp", did you mean "shop"?"#,
        r#"f.toml:19:15: pipelines.customers.to: names logs twice"#,
        r#"f.toml:20:12: pipelines.customers.snapshot: there is no "intial", did you mean "initial"?"#,
        r#"f.toml:21:23: pipelines.customers.snapshot_chunk_rows: must be from 1 to 10000000"#,
        r#"f.toml:22:11: pipelines.customers.retry: unknown field "attemps", did you mean "attempts"?"#,
        r#"f.toml:22:38: pipelines.customers.retry.first_delay: 10 lacks its unit; write it as in "10s""#,
        r#"f.toml:22:54: pipelines.customers.retry.max_delay: "soon" is no duration; write a number and its unit, as in "10s""#,
        r#"f.toml:23:35: pipelines.customers.batch_limit.size: "8 MiBs" is no size; write a number and its unit, as in "64MiB""#,
        r#"f.toml:25:1: pipelines.customers.tables[0].name: is missing; write name = "customer""#,
        r#"f.toml:26:1: pipelines.customers.tables[0]: unknown field "nmae", did you mean "name"?"#,
        r#"f.toml:27:27: pipelines.customers.tables[0].at: "longs" is no database of this pipeline, did you mean "logs"?"#,
        r#"f.toml:30:10: http.listen: "localhost" is no address with a port, as in "127.0.0.1:3001" or "[::1]:3001""#,
        r#"f.toml:33:9: log.level: there is no level "inof", did you mean "info"?"#,
    ];
    let found = mistakes(text, &[]);
    for line in &expected {
        assert!(found.iter().any(|one| one == line), "missing: {line}\nfound:\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
}

#[test]
fn single_mistakes_are_told() {
    let cases = [
        (
            with("to = [\"shop\"]", "to = [\"shop\"]\nstrategy = \"merge\""),
            "customers.strategy: is for two-way pipelines",
        ),
        (with("at = {", "delta = [\"id\"]\nat = {"), "pipelines.customers.tables[0].delta: is for two-way pipelines"),
        (
            with("to = [\"shop\"]", "to = [\"shop\"]\npriority = 1"),
            "f.toml:13:1: pipelines.customers.priority: is a field of a database: write it in [databases.NAME]",
        ),
        (with("to = [\"shop\"]", "to = [\"crm\"]"), "pipelines.customers.to: names crm, which is the source"),
        (with("to = [\"shop\"]", "to = []"), "pipelines.customers.to: names no database"),
        (with("to = [\"shop\"]", "to = \"shop\""), "pipelines.customers.to: must be a list of texts, not text"),
        (with("to = [\"shop\"]", ""), "f.toml:10:12: pipelines.customers.to: is missing"),
        (with("kind = \"mysql\"\n", ""), "f.toml:6:12: databases.shop.kind: is missing"),
        (with("mysql://", "postgres://"), "databases.shop.url: does not begin with mysql://"),
        (with("[pipelines.customers]", "[pipelines.\"a/b\"]"), "\"a/b\" can't be a name"),
        (
            with("name = \"customer\"\n", "name = \"customer\"\n[[pipelines.customers.tables]]\nname = \"customer\"\n"),
            "two tables \"customer\"",
        ),
        (
            with("at = {", "[[pipelines.customers.tables]]\nname = \"other\"\nat = { shop = \"customer\","),
            "customer and other are both \"customer\" at shop",
        ),
        (
            with("at = {", "[[pipelines.customers.tables]]\nname = \"other\"\nat = { shop = \"shop.`customer`\","),
            "customer and other are both \"shop.`customer`\" at shop",
        ),
        (
            with("at = {", "[[pipelines.customers.tables]]\nname = \"other\"\nat = { shop = \"other\","),
            "customer and other are both \"public.customer\" at crm",
        ),
        (with("kind = \"postgres\"", "kind = \"postgres\"\nkind = \"mysql\""), "f.toml:4:1: duplicate key"),
        (
            with("url = \"mysql", "password = \"hunter2\"\nurl = \"mysql"),
            "databases.shop.password: does not stand in the file itself",
        ),
        (
            with("url = \"mysql", "password = { env = \"SURELY_NOT_SET\" }\nurl = \"mysql"),
            "databases.shop.password: environment variable SURELY_NOT_SET is not set",
        ),
        (
            with("url = \"mysql", "password = { file = \"/nowhere/x\" }\nurl = \"mysql"),
            "databases.shop.password: can't read /nowhere/x: No such file",
        ),
        (with("url = \"mysql", "password = { }\nurl = \"mysql"), "databases.shop.password: names no source"),
        (format!("{GOOD}\n[bus]\nsegment_size = \"2GiB\""), "bus.segment_size: is larger than retention_size"),
        (String::new(), "databases: is missing"),
    ];
    for (text, part) in cases {
        let found = mistakes(&text, &[]).join("\n");
        assert!(found.contains(part), "{part}\nfound: {found}");
        assert!(!found.contains("hunter2"), "{found}");
    }
}

#[test]
fn the_mapping_of_documents_is_read_and_its_mistakes_are_told() {
    const ENDS: &str = "from = \"crm\"\nto = [\"shop\"]";
    const COPY: &str = "[databases.copy]\nkind = \"mongodb\"\nurl = \"mongodb://sync@copy.internal/copy\"\n";
    let to = |document: &str| {
        let text = with("mysql://sync@shop.internal:3306/shop", "mongodb://sync@shop.internal/shop");
        text.replace("\"mysql\"", "\"mongodb\"") + &format!("document = {{ {document} }}\n")
    };
    let from = |document: &str| to(document).replace(ENDS, "from = \"shop\"\nto = [\"crm\"]");
    let mapping = |text: &str| read(text, &[]).unwrap().pipelines[0].tables[0].document.clone();
    let (kept, rest) = (
        DocumentMapping { keep_key_columns: true, times: Times::Text, ..Default::default() },
        DocumentMapping { other_fields: OtherFields::Column("rest".to_owned()), ..Default::default() },
    );
    assert_eq!(mapping(&to("keep_key_columns = true, times = \"text\"")), kept);
    assert_eq!(mapping(&from("other_fields = \"column:rest\"")), rest);
    let keyed = |fields: &[&str]| DocumentMapping {
        key: fields.iter().map(|field| (*field).to_owned()).collect(),
        ..Default::default()
    };
    assert_eq!(mapping(&to("key = \"sku\"")), keyed(&["sku"]));
    assert_eq!(mapping(&from("key = [\"region\", \"number\"]")), keyed(&["region", "number"]));
    assert_eq!(mapping(&to("key = \"_id\"")), keyed(&[]));
    let place = "pipelines.customers.tables[0].document";
    for (text, part) in [
        (to("other_feilds = \"ignore\""), ": unknown field \"other_feilds\", did you mean \"other_fields\"?"),
        (to("other_fields = \"ignor\""), ".other_fields: there is no \"ignor\", did you mean \"ignore\"?"),
        (
            from("other_fields = \"colum:rest\""),
            ".other_fields: there is no \"colum:rest\"; there are refuse, ignore, column:NAME",
        ),
        (to("keep_key_columns = \"yes\""), ".keep_key_columns: must be true or false, not text"),
        (to("times = \"txt\""), ".times: there is no \"txt\", did you mean \"text\"?"),
        (to("other_fields = \"column:rest\""), ".other_fields: can name a column where the source is MongoDB only"),
        (from("times = \"text\""), ".times: is for rows that go to MongoDB"),
        (from("keep_key_columns = true"), ".keep_key_columns: is for rows that go to MongoDB"),
        (to("key = []"), ".key: names no field"),
        (to("key = 7"), ".key: must be"),
        (to("key = \"a.b\""), ".key: can't name \"a.b\": it is a top-level field"),
        (from("key = [\"a\", \"$b\"]"), ".key: can't name \"$b\""),
        (from("key = [\"a\", \"a\"]"), ".key: names \"a\" twice"),
        (to("key = [\"_id\", \"a\"]"), ".key: names _id among several fields: leave key out"),
        (to("key = \"a\", keep_key_columns = true"), ".keep_key_columns: stands beside key"),
        (
            from("key = \"a\"").replace("to = [\"crm\"]", "to = [\"crm\", \"copy\"]") + COPY,
            ".key: can't be fields between two MongoDB databases",
        ),
        (
            to("key = \"a\"").replace(ENDS, "members = [\"crm\", \"shop\", \"copy\"]\nseed = \"crm\"") + COPY,
            ".key: can't be fields between two MongoDB databases",
        ),
        (format!("{GOOD}document = {{ times = \"text\" }}\n"), ": is for pipelines between MongoDB and another kind"),
    ] {
        let found = mistakes(&text, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("f.toml:17:") && found[0].contains(&format!("{place}{part}")), "{found:?}");
    }
    let variable = "SYNC_WORKER__PIPELINES__CUSTOMERS__TABLES__0__DOCUMENT";
    for (text, fields) in [("sku", &["sku"][..]), ("region, number", &["region", "number"])] {
        let configuration = read(&to(""), &[(&format!("{variable}__KEY"), text)]).unwrap();
        assert_eq!(configuration.pipelines[0].tables[0].document, keyed(fields));
    }
    let configuration = read(&to(""), &[(variable, "{ keep_key_columns = true }")]).unwrap();
    assert!(configuration.pipelines[0].tables[0].document.keep_key_columns);
    let configuration = read(&to(""), &[(&format!("{variable}__KEEP_KEY_COLUMNS"), "true")]).unwrap();
    assert!(configuration.pipelines[0].tables[0].document.keep_key_columns);
}

#[test]
fn the_environment_goes_over_the_file() {
    let variables = [
        ("SYNC_WORKER__DATABASES__SHOP__SERVER_ID", "77"),
        ("SYNC_WORKER__DATABASES__SHOP__PASSWORD", "0123"),
        ("SYNC_WORKER__DATABASES__MIRROR__KIND", "mariadb"),
        ("SYNC_WORKER__DATABASES__MIRROR__URL", "mysql://sync@mirror/shop"),
        ("SYNC_WORKER__PIPELINES__CUSTOMERS__TO", "shop, mirror"),
        ("SYNC_WORKER__PIPELINES__CUSTOMERS__SNAPSHOT_PARALLEL", "7"),
        ("SYNC_WORKER__PIPELINES__CUSTOMERS__RETRY__MAX_DELAY", "2m"),
        ("SYNC_WORKER__PIPELINES__CUSTOMERS__BATCH_LIMIT", "{ rows = 5 }"),
        ("SYNC_WORKER__PIPELINES__CUSTOMERS__TABLES__0__AT__MIRROR", "kunde"),
        ("SYNC_WORKER__PIPELINES__CUSTOMERS__TABLES__1__NAME", "address"),
        ("SYNC_WORKER_CONFIG", "not ours"),
        ("PATH", "not ours"),
    ];
    let configuration = read(GOOD, &variables).unwrap();
    let Adapter::Mysql(shop) = &configuration.databases[&DatabaseName::new("shop")].adapter else { panic!() };
    assert_eq!(shop.server_id, Some(77));
    assert_eq!(shop.password.as_ref().unwrap().expose(), "0123");
    let plan = &configuration.pipelines[0];
    assert_eq!(plan.to.iter().map(DatabaseName::as_str).collect::<Vec<_>>(), ["shop", "mirror"]);
    assert_eq!((plan.snapshot.parallel, plan.limits.batch_rows), (7, 5));
    assert_eq!(plan.retry.longest_delay, Duration::from_secs(120));
    assert_eq!(plan.tables[0].at[&DatabaseName::new("mirror")], "kunde");
    assert_eq!(plan.tables[1].name.as_str(), "address");
    assert!(!format!("{configuration:?}").contains("0123"));
}

#[test]
fn mistakes_of_the_environment_name_the_variable() {
    let variables = [
        ("SYNC_WORKER__PIPELINES__CUSTOMERS__SNAPSHT", "never"),
        ("SYNC_WORKER__PIPELINES__CUSTOMERS__SNAPSHOT_PARALLEL", "many"),
        ("SYNC_WORKER__PIPELINES__CUSTOMERS__TABLES__7__NAME", "x"),
        ("SYNC_WORKER__", "x"),
    ];
    let found = mistakes(GOOD, &variables).join("\n");
    for part in [
        "environment variable SYNC_WORKER__PIPELINES__CUSTOMERS__SNAPSHT: pipelines.customers: unknown field \"snapsht\", did you mean \"snapshot\"?",
        "environment variable SYNC_WORKER__PIPELINES__CUSTOMERS__SNAPSHOT_PARALLEL: pipelines.customers.snapshot_parallel: must be from 1 to 64",
        "environment variable SYNC_WORKER__PIPELINES__CUSTOMERS__TABLES__7__NAME: there is no item 7 in a list of 1",
        "environment variable SYNC_WORKER__: names no field",
    ] {
        assert!(found.contains(part), "{part}\nfound: {found}");
    }
}

#[test]
fn no_syntax_error_shows_a_secret() {
    let text = with("url = \"mysql://sync@", "url = \"mysql://sync:hunter2@").replace("3306/shop\"", "3306/shop");
    let found = mistakes(&text, &[]).join("\n");
    assert!(found.contains("f.toml:8:"), "{found}");
    assert!(!found.contains("hunter2"), "{found}");
}

#[test]
fn a_password_that_breaks_its_url_is_not_shown() {
    let postgres = "postgres://sync@crm.internal:5432/app";
    let mysql = "mysql://sync@shop.internal:3306/shop";
    for (old, scheme) in [(postgres, "postgres"), (mysql, "mysql"), (mysql, "mongodb")] {
        for password in ["hun?ter2", "hun/ter2", "hun#ter2", "hun?ter2=x&y", "12/ter2", "h@n?ter2", "?ssl-mode=ter2"] {
            let text = with(old, &format!("{scheme}://sync:{password}@there:99/app"));
            let text = if scheme == "mongodb" { text.replace("kind = \"mysql\"", "kind = \"mongodb\"") } else { text };
            let found = mistakes(&text, &[]).join("\n");
            assert!(found.contains(".url: its user or password ends early"), "{scheme} {password}: {found}");
            assert!(!found.contains("ter2") && !found.contains("hun"), "{scheme} {password}: {found}");
        }
    }
}

#[test]
fn a_password_in_a_url_is_taken_with_a_warning_and_masked() {
    let configuration = read(&with("sync@shop", "sync:hunter2@shop"), &[]).unwrap();
    assert!(configuration.warnings[0].starts_with("databases.shop.url holds a password"));
    assert!(!format!("{configuration:?}").contains("hunter2"));
}

#[test]
fn a_password_file_loses_its_last_line_break_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (written, password) in [("a b \r\n", "a b "), ("x\n\n", "x\n"), ("y", "y")] {
        let file = folder.path().join("password");
        std::fs::write(&file, written).unwrap();
        let text = with("url = \"mysql", &format!("password = {{ file = {file:?} }}\nurl = \"mysql"));
        let configuration = read(&text, &[]).unwrap();
        let Adapter::Mysql(shop) = &configuration.databases[&DatabaseName::new("shop")].adapter else { panic!() };
        assert_eq!(shop.password.as_ref().unwrap().expose(), password);
    }
}

#[test]
fn pipelines_that_lead_back_are_refused() {
    let back = |text: &str| format!("{GOOD}\n[pipelines.back]\nfrom = \"shop\"\nto = [\"crm\"]\n{text}");
    let found = mistakes(&back("tables = [{ name = \"customer\" }]"), &[]);
    assert_eq!(
        found,
        [concat!(
            "f.toml:10:1: pipelines.customers: leads back to where it began (crm public.customer -> shop customer, ",
            "shop customer -> crm customer): a table whose changes go both ways is in one pipeline with members, and in ",
            "no other between them"
        )]
    );
    assert!(read(&back("tables = [{ name = \"customer\", at = { crm = \"other.customer\" } }]"), &[]).is_ok());
    // Another name for the same database hides nothing, and neither does a way round.
    let round = r#"
[databases.also]
kind = "mysql"
url = "mysql://other@SHOP.internal/elsewhere"

[databases.third]
kind = "mysql"
url = "mysql://sync@third/x"

[pipelines.one]
from = "also"
to = ["third"]
tables = [{ name = "customer", at = { also = "shop.customer" } }]

[pipelines.two]
from = "third"
to = ["crm"]
tables = [{ name = "customer" }]
"#;
    let found = mistakes(&format!("{GOOD}{round}"), &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("crm public.customer -> shop customer, also shop.customer -> third customer, third"));
}

/// `GOOD` with both databases as members.
fn two_way(fields: &str) -> String {
    with("from = \"crm\"\nto = [\"shop\"]", fields)
}

const MEMBERS: &str = "members = [\"shop\", \"crm\"]\n";

#[test]
fn a_two_way_pipeline_is_read() {
    let text = two_way(&format!(
        "{MEMBERS}seed = \"shop\"\nstrategy = \"merge\"\ncontested = \"priority\"\nclock_limit = \"5s\""
    ));
    let text = text.replace("kind = \"mysql\"", "kind = \"mysql\"\npriority = -3");
    let group = |columns: [&str; 2], strategy| ColumnGroup { columns: columns.map(str::to_owned).to_vec(), strategy };
    let own = "on_delete = \"update_wins\"\ndelta = [\"balance\", \"visits\"]\n\
               groups = [{ columns = [\"street\", \"city\"], contested = \"reject\" }, { columns = [\"a\", \"b\"] }]\ntimestamp_column = \"changed\"\nlossy = [\"price\"]";
    let other = "[[pipelines.customers.tables]]\nname = \"address\"\nstrategy = \"first_write\"";
    let plan = read(&format!("{text}{own}\n{other}"), &[]).unwrap().pipelines.remove(0);
    let shown = |names: &[DatabaseName]| names.iter().map(DatabaseName::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!((plan.from.as_str(), shown(&plan.to).as_str()), ("shop", "crm"));
    let of_both = plan.two_way.unwrap();
    let members: Vec<_> = of_both.members.iter().map(|member| (member.name.as_str(), member.priority)).collect();
    assert_eq!(members, [("crm", 0), ("shop", -3)]);
    assert_eq!(of_both.seed, Seed::Member(DatabaseName::new("shop")));
    assert_eq!(of_both.clock_limit, Some(Duration::from_secs(5)));
    let merged = Resolution {
        strategy: Strategy::Priority,
        on_delete: OnDelete::UpdateWins,
        merge: Some(Merge {
            delta: vec!["balance".to_owned(), "visits".to_owned()],
            groups: vec![group(["street", "city"], Strategy::Reject), group(["a", "b"], Strategy::Priority)],
        }),
        timestamp_column: Some("changed".to_owned()),
        lossy: vec!["price".to_owned()],
    };
    let first_write = Resolution { strategy: Strategy::FirstWrite, ..Resolution::default() };
    assert_eq!(plan.tables.into_iter().map(|table| table.resolution).collect::<Vec<_>>(), [merged, first_write]);

    let plan = read(&two_way(&format!("{MEMBERS}seed = \"none\"")), &[]).unwrap().pipelines.remove(0);
    assert_eq!((plan.from.as_str(), shown(&plan.to).as_str()), ("crm", "shop"));
    assert_eq!(plan.two_way.unwrap().seed, Seed::None);
    let plan = read(&two_way(&format!("{MEMBERS}seed = \"merge\"")), &[]).unwrap().pipelines.remove(0);
    assert_eq!((plan.from.as_str(), shown(&plan.to).as_str()), ("crm", "shop"));
    assert_eq!((plan.two_way.unwrap().seed, plan.snapshot.initial), (Seed::Merge, true));
    assert_eq!(plan.tables[0].resolution, Resolution::default());
    let variables = [("SYNC_WORKER__PIPELINES__CUSTOMERS__STRATEGY", "manual")];
    let plan = read(&two_way(&format!("{MEMBERS}seed = \"none\"")), &variables).unwrap().pipelines.remove(0);
    assert_eq!(plan.tables[0].resolution.strategy, Strategy::Manual);
}

#[test]
fn mistakes_of_two_way_pipelines_are_told() {
    let good = format!("{MEMBERS}seed = \"crm\"\n");
    let table = |line: &str| two_way(&good) + line;
    let cases = [
        (
            two_way(MEMBERS),
            "customers.seed: is missing; seed = \"NAME\" copies that member's rows to the others first, seed = \"merge\" every",
        ),
        (
            two_way(&format!("{MEMBERS}seed = \"shp\"")),
            "customers.seed: there is no member \"shp\", did you mean \"shop\"?",
        ),
        (
            two_way(&format!("{MEMBERS}seed = \"merge\"\nsnapshot = \"never\"")),
            "customers.snapshot: copies nothing beside seed = \"merge\", which copies all members' rows",
        ),
        (two_way("members = [\"crm\"]\nseed = \"crm\""), "customers.members: must name from 2 to 16 databases"),
        (
            two_way("members = [\"crm\", \"crm\"]\nseed = \"crm\""),
            "f.toml:11:19: pipelines.customers.members: names crm twice",
        ),
        (
            two_way("members = [\"crm\", \"shp\"]\nseed = \"crm\""),
            "members: there is no database \"shp\", did you mean \"shop\"?",
        ),
        (
            two_way(&format!("{good}from = \"crm\"\nto = [\"shop\"]")),
            "members: stands beside from and to: write members for",
        ),
        (two_way(&format!("{good}to = [\"shop\"]")), "customers.members: stands beside to: write"),
        (
            two_way(&format!("{good}strategy = \"timstamp\"")),
            "strategy: there is no \"timstamp\", did you mean \"timestamp\"?",
        ),
        (two_way(&format!("{good}on_delete = \"delete\"")), "customers.on_delete: there is no \"delete\""),
        (
            two_way(&format!("{good}contested = \"reject\"")),
            "contested: is for strategy = \"merge\", which none of the tables has",
        ),
        (two_way(&format!("{good}clock_limit = \"10ms\"")), "customers.clock_limit: must be from 1s to 1d"),
        (table("delta = [\"balance\"]"), "tables[0].delta: is for strategy = \"merge\""),
        (table("strategy = \"merge\"\ndelta = [\"a\", \"a\"]"), "tables[0].delta: names a twice"),
        (table("groups = [{ columns = [\"a\", \"b\"] }]"), "tables[0].groups: is for strategy = \"merge\""),
        (
            table("strategy = \"merge\"\ngroups = [{ columns = [\"a\"] }]"),
            "tables[0].groups[0].columns: must name at least two columns",
        ),
        (
            table("strategy = \"merge\"\ndelta = [\"a\"]\ngroups = [{ columns = [\"a\", \"b\"] }]"),
            "tables[0].groups[0].columns: names a, which is in delta or in another group",
        ),
        (table("lossy = [\"\"]"), "tables[0].lossy: must be names of columns"),
        (table("document = { times = \"text\" }"), "document: is for pipelines between MongoDB and another kind"),
    ];
    for (text, part) in cases {
        let found = mistakes(&text, &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(part), "{part}\nfound: {found:?}");
    }
}

#[test]
fn no_other_pipeline_goes_between_members() {
    let good = two_way(&format!("{MEMBERS}seed = \"none\""));
    let third = "[databases.third]\nkind = \"mysql\"\nurl = \"mysql://sync@third/x\"\n";
    let other =
        |fields: &str, table: &str| format!("{good}{third}[pipelines.other]\n{fields}\ntables = [{{ {table} }}]\n");
    let members = |names: &str| format!("members = [{names}]\nseed = \"none\"");
    let (one_way, both) = ("from = \"shop\"\nto = [\"crm\"]", members("\"crm\", \"shop\""));
    for fields in [one_way, both.as_str()] {
        let found = mistakes(&other(fields, "name = \"customer\", at = { crm = \"public.customer\" }"), &[]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains("leads back to where it began (") && found[0].contains("in one pipeline with members"),
            "{found:?}"
        );
    }
    // Another table, another member, or a way out of them.
    let three = members("\"shop\", \"third\"");
    for (fields, table) in [
        (one_way, "name = \"address\""),
        (both.as_str(), "name = \"address\""),
        (three.as_str(), "name = \"customer\""),
        ("from = \"shop\"\nto = [\"third\"]", "name = \"customer\""),
        ("from = \"third\"\nto = [\"crm\", \"shop\"]", "name = \"customer\", at = { crm = \"public.customer\" }"),
    ] {
        let read = read(&other(fields, table), &[]);
        assert!(read.is_ok(), "{fields}: {:?}", read.err());
    }
    // A way round through a third one.
    let round = "[pipelines.back]\nfrom = \"third\"\nto = [\"crm\"]\ntables = [{ name = \"customer\" }]\n";
    let found = mistakes(&(other("from = \"shop\"\nto = [\"third\"]", "name = \"customer\"") + round), &[]);
    assert!(found.iter().all(|one| one.contains("leads back to where it began (")), "{found:?}");
    // Two names of one database.
    let also = "[databases.also]\nkind = \"mysql\"\nurl = \"mysql://other@SHOP.internal/shop\"\n";
    let text = with("from = \"crm\"\nto = [\"shop\"]", &(members("\"shop\", \"also\"") + "\n"));
    let text = text.replace("at = { crm = \"public.customer\" }", "") + also;
    let found = mistakes(&text, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("-> "), "{found:?}");
}
