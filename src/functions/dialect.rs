//! What the project's dialect decides besides patterns (docs/dialects.md).

use crate::project::Dialect;

/// Where NULLs stand when ORDER BY does not say: a value of `datafusion.sql_parser.default_null_ordering`.
pub fn null_ordering(dialect: Dialect) -> &'static str {
    match dialect {
        // Largest.
        Dialect::DataFusion | Dialect::Postgres | Dialect::Snowflake => "nulls_max",
        // Smallest.
        Dialect::Spark | Dialect::Databricks => "nulls_min",
        Dialect::DuckDb => "nulls_last",
    }
}
