//! `f(a = b)` compares. In DuckDB's dialect sqlparser reads `a = b` between a call's parentheses as an argument with a name, and everything
//! behind `=` as its value: `coalesce(a = b and c, false)`. Functions here have no such arguments.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgOperator, FunctionArguments,
};

/// Makes comparisons of what was read as named arguments.
pub(crate) fn compare(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    for argument in &mut list.args {
        if let FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), operator: FunctionArgOperator::Equals } =
            argument
        {
            let comparison = equals(Expr::Identifier(name.clone()), value.clone());
            *argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(comparison));
        }
    }
}

/// `left = right`, where `right` was parsed alone: `=` takes only what binds more tightly of it, its innermost left operand.
fn equals(left: Expr, right: Expr) -> Expr {
    let inner = |operand: Box<Expr>, left| Box::new(equals(left, *operand));
    match right {
        Expr::BinaryOp { left: operand, op, right } if binds_no_tighter(&op) => {
            Expr::BinaryOp { left: inner(operand, left), op, right }
        }
        Expr::IsNull(operand) => Expr::IsNull(inner(operand, left)),
        Expr::IsNotNull(operand) => Expr::IsNotNull(inner(operand, left)),
        Expr::IsTrue(operand) => Expr::IsTrue(inner(operand, left)),
        Expr::IsNotTrue(operand) => Expr::IsNotTrue(inner(operand, left)),
        Expr::IsFalse(operand) => Expr::IsFalse(inner(operand, left)),
        Expr::IsNotFalse(operand) => Expr::IsNotFalse(inner(operand, left)),
        Expr::IsDistinctFrom(operand, right) => Expr::IsDistinctFrom(inner(operand, left), right),
        Expr::IsNotDistinctFrom(operand, right) => Expr::IsNotDistinctFrom(inner(operand, left), right),
        right => Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::Eq, right: Box::new(right) },
    }
}

fn binds_no_tighter(op: &BinaryOperator) -> bool {
    use BinaryOperator::{And, Eq, Gt, GtEq, Lt, LtEq, NotEq, Or, Spaceship, Xor};
    matches!(op, And | Or | Xor | Eq | NotEq | Gt | GtEq | Lt | LtEq | Spaceship)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::{DuckDbDialect, PostgreSqlDialect};
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn call(text: &str) -> Function {
        let expr = Parser::new(&DuckDbDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
        let Expr::Function(mut function) = expr else { panic!("no call: {text}") };
        compare(&mut function);
        function
    }

    #[test]
    fn an_argument_with_an_equals_sign_is_parsed_as_postgres_has_it() {
        for text in [
            "coalesce(a = b, false)",
            "coalesce(a = b AND c, false)",
            "coalesce(a = b + 1 OR c > 2 AND d, false)",
            "coalesce(a = b IS NULL, x = y = z)",
            "coalesce(a = (b AND c))",
            "coalesce(a = b IS DISTINCT FROM c)",
        ] {
            let expected = Parser::new(&PostgreSqlDialect {}).try_with_sql(text).unwrap().parse_expr().unwrap();
            assert_eq!(Expr::Function(call(text)), expected, "{text}");
        }
    }
}
