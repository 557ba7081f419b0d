//! `text ~ 'pattern'` with the pattern compiled once.
//!
//! Stock DataFusion compiles a constant pattern for every batch. That is nothing beside a batch of 100,000 rows, but a quarter of the time where an
//! epoch has a thousand in ten batches.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, RecordBatch, StringArrayType};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::Result as DataFusionResult;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr, Literal};
use regex::Regex;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::error::Result;

/// Whether text matches, or does not match, a pattern; NULL for NULL.
#[derive(Debug)]
struct Match {
    text: Arc<dyn PhysicalExpr>,
    pattern: Regex,
    negated: bool,
}

/// The same expression, its constant patterns compiled.
pub(super) fn compiled(expr: Arc<dyn PhysicalExpr>, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>> {
    let compiled = expr.transform_up(|node| {
        Ok(match Match::of(&node, schema)? {
            Some(made) => Transformed::yes(Arc::new(made) as Arc<dyn PhysicalExpr>),
            None => Transformed::no(node),
        })
    });
    Ok(compiled?.data)
}

impl Match {
    /// None for everything else, and for a pattern that is none: stock evaluation says what is wrong with it.
    fn of(node: &Arc<dyn PhysicalExpr>, schema: &Schema) -> DataFusionResult<Option<Self>> {
        let Some(binary) = node.downcast_ref::<BinaryExpr>() else { return Ok(None) };
        let (negated, ignores_case) = match binary.op() {
            Operator::RegexMatch => (false, false),
            Operator::RegexIMatch => (false, true),
            Operator::RegexNotMatch => (true, false),
            Operator::RegexNotIMatch => (true, true),
            _ => return Ok(None),
        };
        let literal = binary.right().downcast_ref::<Literal>();
        let Some(pattern) = literal.and_then(|literal| literal.value().try_as_str().flatten()) else { return Ok(None) };
        if !matches!(binary.left().data_type(schema)?, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            return Ok(None);
        }
        let pattern = if ignores_case { Regex::new(&format!("(?i){pattern}")) } else { Regex::new(pattern) };
        Ok(pattern.ok().map(|pattern| Match { text: Arc::clone(binary.left()), pattern, negated }))
    }

    fn matches<'a>(&self, texts: impl StringArrayType<'a>) -> BooleanArray {
        let mut matches = BooleanBufferBuilder::new(texts.len());
        for row in 0..texts.len() {
            matches.append(texts.is_valid(row) && self.pattern.is_match(texts.value(row)) != self.negated);
        }
        BooleanArray::new(matches.finish(), texts.nulls().cloned())
    }
}

impl PhysicalExpr for Match {
    fn data_type(&self, _: &Schema) -> DataFusionResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn nullable(&self, schema: &Schema) -> DataFusionResult<bool> {
        self.text.nullable(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> DataFusionResult<ColumnarValue> {
        let texts: ArrayRef = self.text.evaluate(batch)?.into_array(batch.num_rows())?;
        let matches = match texts.data_type() {
            DataType::LargeUtf8 => self.matches(texts.as_string::<i64>()),
            DataType::Utf8View => self.matches(texts.as_string_view()),
            _ => self.matches(texts.as_string::<i32>()),
        };
        Ok(ColumnarValue::Array(Arc::new(matches)))
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.text]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn PhysicalExpr>>,
    ) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
        let text = Arc::clone(&children[0]);
        Ok(Arc::new(Match { text, pattern: self.pattern.clone(), negated: self.negated }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} '{}'", self.text, if self.negated { "!~" } else { "~" }, self.pattern)
    }
}

impl PartialEq for Match {
    fn eq(&self, other: &Self) -> bool {
        self.text.eq(&other.text) && self.pattern.as_str() == other.pattern.as_str() && self.negated == other.negated
    }
}

impl Eq for Match {}

impl Hash for Match {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.pattern.as_str(), self.negated).hash(state);
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{LargeStringArray, StringArray, StringViewArray};
    use arrow::datatypes::Field;
    use datafusion::physical_expr::expressions::{binary, col, lit};

    use super::*;

    const OPERATORS: [Operator; 4] =
        [Operator::RegexMatch, Operator::RegexIMatch, Operator::RegexNotMatch, Operator::RegexNotIMatch];

    #[test]
    fn finds_what_stock_evaluation_finds() {
        let texts = [Some("+20100"), None, Some(""), Some("ABC"), Some("abc\n"), Some("é1"), Some("x.y")];
        let columns: [ArrayRef; 3] = [
            Arc::new(StringArray::from_iter(texts)),
            Arc::new(LargeStringArray::from_iter(texts)),
            Arc::new(StringViewArray::from_iter(texts)),
        ];
        for column in columns {
            let schema = Arc::new(Schema::new(vec![Field::new("t", column.data_type().clone(), true)]));
            let whole = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
            for pattern in ["", "^[+][0-9]{4,}$", "b", "^abc$", "\\w\\d", "(?i)^A", "x.y", "^$"] {
                for operator in OPERATORS {
                    let text = col("t", &schema).unwrap();
                    let pattern = datafusion::physical_expr::expressions::cast(
                        lit(pattern),
                        &schema,
                        text.data_type(&schema).unwrap(),
                    );
                    let pattern = pattern.unwrap().evaluate(&whole).unwrap();
                    let ColumnarValue::Scalar(pattern) = pattern else { panic!("a constant") };
                    let stock = binary(text, operator, lit(pattern), &schema).unwrap();
                    let ours = compiled(Arc::clone(&stock), &schema).unwrap();
                    assert!(ours.is::<Match>(), "{ours}");
                    assert_eq!(ours.nullable(&schema).unwrap(), stock.nullable(&schema).unwrap());
                    for batch in [whole.clone(), whole.slice(1, 4), whole.slice(3, 0)] {
                        let rows = |expr: &Arc<dyn PhysicalExpr>| {
                            expr.evaluate(&batch).unwrap().into_array(batch.num_rows()).unwrap()
                        };
                        assert_eq!(rows(&ours).as_boolean(), rows(&stock).as_boolean(), "{stock}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_constant_pattern_stays_as_it_is() {
        let schema = Schema::new(vec![Field::new("t", DataType::Utf8, true)]);
        let text = || col("t", &schema).unwrap();
        for (operator, pattern) in
            [(Operator::RegexMatch, text()), (Operator::RegexMatch, lit("(")), (Operator::Eq, lit("a"))]
        {
            let stock = binary(text(), operator, pattern, &schema).unwrap();
            assert!(Arc::ptr_eq(&compiled(Arc::clone(&stock), &schema).unwrap(), &stock), "{stock}");
        }
    }
}
