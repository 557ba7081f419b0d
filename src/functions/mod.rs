//! The SQL functions that smelt adds to DataFusion's, and the ones it replaces.
//!
//! [`register`] puts them into a session, by the project's dialect; the planner, queries and the oracle of the tests use sessions
//! that went through it, so bulk and incremental paths call the same code. What differs between dialects is in
//! docs/dialects.md, each row with its test.
//!
//! | family | functions |
//! |---|---|
//! | [`datetime`] | `to_timestamp`, `to_date`, `strptime`; `try_…`: NULL where a text does not match |
//! | [`to_char`] | `to_char` (`date_format`, `to_varchar`), `strftime` |
//! | [`from_json`] | `from_json`: the decoder of JSON sources as a function |
//! | [`json`], [`json_path`] | `->`, `->>`, `json_get…`, `json_length`, …; `get_json_object` |
//! | [`to_json`] | `to_json`, `parse_json`, `object_construct`: values as JSON text |
//! | [`flatten`] | `flatten_values`, `flatten_keys`, `flatten_indexes`: what Snowflake's `flatten` is made of |
//! | [`split`] | `regexp_split`: Spark's `split` |
//! | [`spark`] | in the dialects spark and databricks: functions of `datafusion-spark`, and what it lacks |
//! | [`surrogate_key`] | `surrogate_key` (dbt's `generate_surrogate_key`) |
//! | [`units`], [`months_between`] | `dateadd`, `datediff`, `last_day`; `months_between` |
//! | [`time_windows`] | `tumble_start`, `hop_starts`, `window_end`, `session_…`: what `tumble`, `hop` and `session` in FROM are made of |
//! | [`sessions`] | `session_window_start`, `session_window_end`: the session of a row, as window functions |
//! | [`coalesce`] | `coalesce` of dates and texts |
//! | [`floats`] | what expressions make of floats, in one representation |
//! | [`arithmetic`] | `+`, `-`, `*` of integers, checked |
//! | [`aggregate`] | `sum`, `try_sum`, `avg`, variances, `corr`, `regr_*`: exact for floats, checked for integers and decimals; `min`, `max`; ordered aggregates |
//!
//! Everything here is immutable, but for Spark's `shuffle`: the same arguments give the same value, in any order of rows.

mod aggregate;
mod arithmetic;
mod coalesce;
mod datetime;
mod dialect;
mod flatten;
mod floats;
mod format;
mod from_json;
mod json;
mod json_path;
mod months_between;
mod sessions;
mod spark;
mod split;
mod surrogate_key;
mod time_windows;
mod to_char;
mod to_json;
mod units;

pub use aggregate::{
    Finish, IntegerTotal, Kind, Pairs, Parity, Spread, Total, bits_as, for_each_integer, is_exact, kind, smallest,
};
pub use dialect::null_ordering;
pub use sessions::{SESSION_WINDOW_END, SESSION_WINDOW_START};
pub use time_windows::{Length, SESSION_END, SESSION_TIME};
pub use to_json::RAW as RAW_JSON;
pub use units::is_unit;

use crate::error::Result;
use crate::project::Dialect;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::ScalarUDF;
use datafusion::logical_expr::planner::ExprPlanner;
use std::sync::Arc;

/// Registers everything in a session (`SessionState` or `SessionContext`), over DataFusion's functions of the same names.
pub fn register(registry: &mut dyn FunctionRegistry, dialect: Dialect) -> Result<()> {
    let scalars = datetime::functions(dialect)
        .into_iter()
        .chain(to_char::functions(dialect))
        .chain(units::functions())
        .chain(json::functions())
        .chain(to_json::functions())
        .chain(flatten::functions())
        .chain(time_windows::functions())
        .chain([
            ScalarUDF::from(coalesce::Coalesce::new()),
            ScalarUDF::from(from_json::FromJson::new()),
            ScalarUDF::from(json_path::GetJsonObject::new()),
            ScalarUDF::from(months_between::MonthsBetween::new()),
            ScalarUDF::from(split::Split::new()),
            ScalarUDF::from(surrogate_key::SurrogateKey::new()),
        ]);
    for function in scalars.chain(is_spark(dialect).then(spark::functions).into_iter().flatten()) {
        registry.register_udf(Arc::new(function))?;
    }
    for function in sessions::functions() {
        registry.register_udwf(Arc::new(function))?;
    }
    for function in aggregate::functions() {
        registry.register_udaf(Arc::new(function))?;
    }
    registry.register_function_rewrite(Arc::new(arithmetic::CheckedArithmetic::new()))?;
    registry.register_function_rewrite(Arc::new(floats::CanonicalFloats::new()))?;
    Ok(())
}

/// What plans the operators of these functions, to be asked before DataFusion's own planners.
pub fn planners(dialect: Dialect) -> Vec<Arc<dyn ExprPlanner>> {
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(json::Operators)];
    if is_spark(dialect) {
        planners.push(Arc::new(spark::Expressions));
    }
    planners
}

fn is_spark(dialect: Dialect) -> bool {
    matches!(dialect, Dialect::Spark | Dialect::Databricks)
}

#[cfg(test)]
mod tests;
