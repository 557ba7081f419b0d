//! `a IS [NOT] DISTINCT FROM b AND c` means `(a IS [NOT] DISTINCT FROM b) AND c`, as in every database. sqlparser reads
//! everything behind FROM as its right side, which fails on types or, with booleans, silently answers something else.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, VisitMut, VisitorMut};
use std::ops::ControlFlow;

/// Puts the expressions of a parsed query right. What stands in parentheses is left as it was written.
pub(crate) fn correct(parsed: &mut impl VisitMut) {
    let _ = VisitMut::visit(parsed, &mut Correct);
}

struct Correct;

impl VisitorMut for Correct {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if swallows(expr) {
            let mut chain = Chain::default();
            chain.take(std::mem::replace(expr, Expr::value(datafusion::sql::sqlparser::ast::Value::Null)));
            *expr = chain.into_expr();
        }
        ControlFlow::Continue(())
    }
}

fn is_logical(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryOp { op: BinaryOperator::And | BinaryOperator::Or, .. })
}

/// Whether a comparison in the chain of ANDs and ORs at the top of `expr` has taken in a part of the chain.
fn swallows(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { left, right, .. } if is_logical(expr) => swallows(left) || swallows(right),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => swallows(expr),
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => is_logical(right) || swallows(right),
        _ => false,
    }
}

/// Operands and the ANDs and ORs between them, in the order they were written.
#[derive(Default)]
struct Chain {
    operands: Vec<Expr>,
    operators: Vec<BinaryOperator>,
}

impl Chain {
    fn take(&mut self, expr: Expr) {
        let first = self.operands.len();
        match expr {
            Expr::BinaryOp { left, op: op @ (BinaryOperator::And | BinaryOperator::Or), right } => {
                self.take(*left);
                self.operators.push(op);
                self.take(*right);
            }
            Expr::IsDistinctFrom(left, right) => {
                self.take(*right);
                self.wrap(first, |right| Expr::IsDistinctFrom(left, right));
            }
            Expr::IsNotDistinctFrom(left, right) => {
                self.take(*right);
                self.wrap(first, |right| Expr::IsNotDistinctFrom(left, right));
            }
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                self.take(*expr);
                self.wrap(first, |expr| Expr::UnaryOp { op: UnaryOperator::Not, expr });
            }
            other => self.operands.push(other),
        }
    }

    fn wrap(&mut self, at: usize, make: impl FnOnce(Box<Expr>) -> Expr) {
        let operand = self.operands.remove(at);
        self.operands.insert(at, make(Box::new(operand)));
    }

    /// AND binds closer than OR; both from the left.
    fn into_expr(self) -> Expr {
        let join = |left: Option<Expr>, op: BinaryOperator, right: Expr| match left {
            Some(left) => Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) },
            None => right,
        };
        let mut any: Option<Expr> = None;
        let mut all: Option<Expr> = None;
        let mut operators = self.operators.into_iter();
        for operand in self.operands {
            all = Some(join(all.take(), BinaryOperator::And, operand));
            if operators.next() != Some(BinaryOperator::And)
                && let Some(ended) = all.take()
            {
                any = Some(join(any.take(), BinaryOperator::Or, ended));
            }
        }
        any.unwrap_or_else(|| Expr::value(datafusion::sql::sqlparser::ast::Value::Null))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    fn corrected(text: &str) -> Expr {
        let mut expr = Parser::new(&GenericDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
        correct(&mut expr);
        expr
    }

    /// With parentheses around everything that is made of parts.
    struct Explicit;

    impl VisitorMut for Explicit {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            match expr {
                Expr::Nested(inner) => *expr = (**inner).clone(),
                Expr::BinaryOp { .. }
                | Expr::UnaryOp { .. }
                | Expr::IsDistinctFrom(..)
                | Expr::IsNotDistinctFrom(..) => {
                    *expr = Expr::Nested(Box::new(expr.clone()));
                }
                _ => {}
            }
            ControlFlow::Continue(())
        }
    }

    /// `text` is read as `meant`, in which parentheses say everything.
    fn means(text: &str, meant: &str) {
        let explicit = |mut expr: Expr| {
            let _ = VisitMut::visit(&mut expr, &mut Explicit);
            expr.to_string()
        };
        assert_eq!(explicit(corrected(text)), explicit(corrected(meant)));
    }

    #[test]
    fn distinct_from_binds_closer_than_and_and_or() {
        means("a is not distinct from b and c", "(a is not distinct from b) and c");
        means("x or a is distinct from b and c or d", "x or ((a is distinct from b) and c) or d");
        means("x and a is distinct from b or c", "(x and (a is distinct from b)) or c");
        means("not a is not distinct from b and not c", "(not (a is not distinct from b)) and (not c)");
        means(
            "a is distinct from b and c is not distinct from d and e",
            "((a is distinct from b) and (c is not distinct from d)) and e",
        );
        means("a is distinct from b = c and d", "(a is distinct from (b = c)) and d");
        means("case when a is distinct from b and c then 1 end", "case when (a is distinct from b) and c then 1 end");
    }

    #[test]
    fn parentheses_stay() {
        means("a is distinct from (b and c)", "a is distinct from (b and c)");
        assert!(
            matches!(corrected("a is distinct from (b and c)"), Expr::IsDistinctFrom(_, r) if matches!(*r, Expr::Nested(_)))
        );
    }
}
