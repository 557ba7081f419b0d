//! Spark's functions, in the dialects `spark` and `databricks`: those of `datafusion-spark` that give what Spark gives, and smelt's own
//! where the crate does not.
//!
//! What can be said as SQL that the engine has is rewritten before anything is planned (`plan::spelling_spark`). The rest stands
//! here. Spark's ANSI mode holds throughout (its default since Spark 4): what does not fit is an error, in the crate's functions too ([`taken`]).
//!
//! Left out of the crate, and why (`tests/spark.rs` shows the answers that are wrong):
//!
//! | function | reason | instead |
//! |---|---|---|
//! | `avg`, `collect_list`, `collect_set`, `try_sum` | sums round at each step; lists are in the order rows came in | smelt's exact ones |
//! | `date_add`, `date_sub` | wrap around; take no BIGINT, which literals are | `dateadd` |
//! | `unix_seconds`, `unix_millis` | instants before 1970 are rounded up | [`epoch`] |
//! | `to_utc_timestamp` | takes the zone's offset at the wrong instant: an hour off beside each change of clocks | [`zones`] |
//! | `parse_url`, `try_parse_url` | hosts in lower case, default ports gone, characters escaped | [`url`] |
//! | `str_to_map` | its delimiters are regular expressions in Spark; it skips empty pairs | [`str_to_map`] |
//! | `concat` | lists become texts | `\|\|` |
//! | `size` | −1 of NULL, as outside ANSI mode | `cardinality` |
//! | `round` | carries past the precision of a DECIMAL | the engine's |
//! | `width_bucket` | divides before it multiplies: values on a bound get into the bucket below | SQL |
//! | `json_tuple` | rewrites numbers | `get_json_object` |
//! | `if`, `add_months`, `date_diff`, `date_part`, `date_trunc`, `trunc`, `time_trunc`, `unix_date`, `unix_micros`, `hour`, `minute`, `second`, `last_day`, `space` | are simplified into what the engine has, or take fewer types | the same, said directly |
//! | `abs`, `ascii`, `atan2`, `array_repeat`, `mod` | | the engine's are the same |
//! | `array` | another name for elements than all other lists have | `make_array` |
//! | `spark_cast` | no function of Spark's SQL | |

mod epoch;
mod str_to_map;
mod taken;
mod url;
mod zones;

use datafusion::common::Result;
use datafusion::functions::datetime::date_part;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult};
use datafusion::logical_expr::{Expr, ScalarUDF, lit};

/// The functions.
pub(super) fn functions() -> Vec<ScalarUDF> {
    let mut functions = taken::functions();
    functions.extend(epoch::functions());
    functions.extend(url::functions());
    functions.push(ScalarUDF::from(str_to_map::StrToMap::new()));
    functions.push(ScalarUDF::from(zones::ToUtc::new()));
    functions
}

/// Plans what Spark's grammar gives other meanings than Postgres': places of `substring` from the end, numbers of days in `extract`.
#[derive(Debug)]
pub(super) struct Expressions;

impl ExprPlanner for Expressions {
    fn plan_substring(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(taken::substring().call(args)))
    }

    fn plan_extract(&self, args: Vec<Expr>) -> Result<PlannerResult<Vec<Expr>>> {
        let [Expr::Literal(field, _), value] = args.as_slice() else { return Ok(PlannerResult::Original(args)) };
        let field = field.try_as_str().flatten().unwrap_or_default().to_lowercase();
        let part = |name: &str| date_part().call(vec![lit(name), value.clone()]);
        Ok(PlannerResult::Planned(match field.as_str() {
            // Sunday is 1.
            "dow" | "dayofweek" => part("dow") + lit(1),
            "dow_iso" | "dayofweek_iso" => part("isodow"),
            "yearofweek" => part("isoyear"),
            _ => return Ok(PlannerResult::Original(args)),
        }))
    }
}
