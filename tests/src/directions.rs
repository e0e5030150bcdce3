//! One test for each direction.

/// Makes a test for each of the four directions out of each `async fn NAME(direction: Direction) -> anyhow::Result<()>`.
#[macro_export]
macro_rules! each_direction {
    ($($name:ident),+ $(,)?) => {$(
        $crate::directions! { $name:
            postgres_to_postgres from Postgres to Postgres,
            postgres_to_mysql from Postgres to Mysql,
            mysql_to_postgres from Mysql to Postgres,
            mysql_to_mysql from Mysql to Mysql,
        }
    )+};
}

/// The same for all nine directions, those that begin or end at MongoDB among them.
#[macro_export]
macro_rules! each_of_nine_directions {
    ($($name:ident),+ $(,)?) => {$(
        $crate::directions! { $name:
            postgres_to_postgres from Postgres to Postgres,
            postgres_to_mysql from Postgres to Mysql,
            postgres_to_mongodb from Postgres to Mongodb,
            mysql_to_postgres from Mysql to Postgres,
            mysql_to_mysql from Mysql to Mysql,
            mysql_to_mongodb from Mysql to Mongodb,
            mongodb_to_postgres from Mongodb to Postgres,
            mongodb_to_mysql from Mongodb to Mysql,
            mongodb_to_mongodb from Mongodb to Mongodb,
        }
    )+};
}

/// What both are made of.
#[macro_export]
macro_rules! directions {
    ($name:ident: $($test:ident from $from:ident to $to:ident,)+) => {
        mod $name {
            use $crate::kind::{Direction, Kind};

            $(#[tokio::test]
            async fn $test() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::$from, to: Kind::$to }).await
            })+
        }
    };
}
