//! Writing to MySQL.
