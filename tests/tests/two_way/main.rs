//! Two-way pipelines on real servers.
//!
//! `SYNC_WORKER_BACKLOG=500000 make test ONLY='test(a_member_that_was_cut_off)'` gives that member as many changes to catch up
//! with as the guarantees name, instead of 5,000.

/// One test for each of the sets of members that are listed.
macro_rules! members {
    ($test:ident: $($name:ident of $($kind:ident)+),+ $(,)?) => {
        mod $test {
            use sync_worker_tests::kind::Kind;

            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$test(&[$(Kind::$kind),+]).await
            })+
        }
    };
}

/// One test for each pair of tables.
macro_rules! each_pair {
    ($($test:ident),+ $(,)?) => {$(
        members! { $test:
            postgres_and_postgres of Postgres Postgres,
            postgres_and_mysql of Postgres Mysql,
            mysql_and_mysql of Mysql Mysql,
        }
    )+};
}

/// The same, and for each table with documents.
macro_rules! each_pair_with_a_table {
    ($($test:ident),+ $(,)?) => {$(
        members! { $test:
            postgres_and_postgres of Postgres Postgres,
            postgres_and_mysql of Postgres Mysql,
            mysql_and_mysql of Mysql Mysql,
            postgres_and_mongodb of Postgres Mongodb,
            mysql_and_mongodb of Mysql Mongodb,
        }
    )+};
}

/// The same, and for documents alone.
macro_rules! each_pair_of_any {
    ($($test:ident),+ $(,)?) => {$(
        members! { $test:
            postgres_and_postgres of Postgres Postgres,
            postgres_and_mysql of Postgres Mysql,
            mysql_and_mysql of Mysql Mysql,
            postgres_and_mongodb of Postgres Mongodb,
            mysql_and_mongodb of Mysql Mongodb,
            mongodb_and_mongodb of Mongodb Mongodb,
        }
    )+};
}

mod away;
mod beside;
mod conflicts;
mod converge;
mod counters;
mod echo;
mod exact;
mod keyed;
mod rest;
mod seed;
mod spelled;
mod transactions;
mod triggers;
mod unique;
