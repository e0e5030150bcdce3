//! One test for each direction.

/// Makes a test for each of the four directions out of each `async fn NAME(direction: Direction) -> anyhow::Result<()>`.
#[macro_export]
macro_rules! each_direction {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use $crate::kind::{Direction, Kind};

            #[tokio::test]
            async fn postgres_to_postgres() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::Postgres, to: Kind::Postgres }).await
            }

            #[tokio::test]
            async fn postgres_to_mysql() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::Postgres, to: Kind::Mysql }).await
            }

            #[tokio::test]
            async fn mysql_to_postgres() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::Mysql, to: Kind::Postgres }).await
            }

            #[tokio::test]
            async fn mysql_to_mysql() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::Mysql, to: Kind::Mysql }).await
            }
        }
    )+};
}

/// The same for the five directions that begin or end at MongoDB.
#[macro_export]
macro_rules! each_direction_of_documents {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            use $crate::kind::{Direction, Kind};

            #[tokio::test]
            async fn postgres_to_mongodb() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::Postgres, to: Kind::Mongodb }).await
            }

            #[tokio::test]
            async fn mysql_to_mongodb() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::Mysql, to: Kind::Mongodb }).await
            }

            #[tokio::test]
            async fn mongodb_to_postgres() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::Mongodb, to: Kind::Postgres }).await
            }

            #[tokio::test]
            async fn mongodb_to_mysql() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::Mongodb, to: Kind::Mysql }).await
            }

            #[tokio::test]
            async fn mongodb_to_mongodb() -> anyhow::Result<()> {
                super::$name(Direction { from: Kind::Mongodb, to: Kind::Mongodb }).await
            }
        }
    )+};
}
