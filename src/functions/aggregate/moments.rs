//! Variance, covariance, correlation and regression from exact sums of x, y, x², y² and xy.
//!
//! The textbook formula Σx² − (Σx)²/n loses everything to cancellation in doubles. Here the sums are exact, so nothing is lost
//! before the one rounding: with m the mean rounded to a double, Σ(x − m)² = Σx² − 2mΣx + nm² is evaluated exactly, and what
//! the mean's rounding adds, (Σx − nm)²/n, is taken off.

use super::total::{Double, Finish, Total, doubles};
use crate::state::ExactSum;
use arrow::array::{Array, ArrayRef};
use datafusion::common::{Result, ScalarValue, internal_err};

/// What is asked of the moments. Of two arguments y comes first, as the regr_* functions take them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Statistic {
    VarSamp,
    VarPop,
    StddevSamp,
    StddevPop,
    CovarSamp,
    CovarPop,
    Corr,
    Slope,
    Intercept,
    R2,
    AvgX,
    AvgY,
    Sxx,
    Syy,
    Sxy,
}

impl Statistic {
    /// Whether it has one argument only.
    pub fn is_single(self) -> bool {
        matches!(self, Self::VarSamp | Self::VarPop | Self::StddevSamp | Self::StddevPop)
    }
}

fn read_sums<const N: usize>(mut bytes: &[u8]) -> Option<[ExactSum; N]> {
    let mut sums = [const { ExactSum::EMPTY }; N];
    for sum in &mut sums {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (one, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        *sum = ExactSum::from_bytes(one)?;
        bytes = rest;
    }
    bytes.is_empty().then_some(sums)
}

fn write_sums<const N: usize>(sums: [&ExactSum; N], out: &mut Vec<u8>) {
    for sum in sums {
        let at = out.len();
        out.extend([0; 4]);
        sum.write_bytes(out);
        let length = (out.len() - at - 4) as u32;
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Of one variable.
#[derive(Debug, Default, Clone)]
pub struct Spread {
    x: ExactSum,
    xx: ExactSum,
}

impl Total for Spread {
    type Value = Double;

    fn add(&mut self, value: Double, weight: i64) {
        let x = value.value();
        self.x.add(x, weight);
        self.xx.add_product(x, x, weight);
    }

    fn merge(&mut self, other: &Self) {
        self.x.merge(&other.x);
        self.xx.merge(&other.xx);
    }

    fn finish(&self, rows: i64, finish: &Finish) -> Result<ScalarValue> {
        let n = rows as f64;
        let squares = || squares(&self.xx, &self.x, rows);
        let value = match finish {
            Finish::Statistic(Statistic::VarPop) => Some(squares() / n),
            Finish::Statistic(Statistic::StddevPop) => Some((squares() / n).sqrt()),
            Finish::Statistic(Statistic::VarSamp) => (rows > 1).then(|| squares() / (n - 1.0)),
            Finish::Statistic(Statistic::StddevSamp) => (rows > 1).then(|| (squares() / (n - 1.0)).sqrt()),
            other => return internal_err!("{other:?} is not a statistic of one variable"),
        };
        Ok(ScalarValue::Float64(value))
    }

    fn is_zero(&self) -> bool {
        self.x.is_zero() && self.xx.is_zero()
    }

    fn write_bytes(&self, out: &mut Vec<u8>) {
        write_sums([&self.x, &self.xx], out);
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        read_sums(bytes).map(|[x, xx]| Spread { x, xx })
    }

    fn heap_size(&self) -> usize {
        self.x.heap_size() + self.xx.heap_size()
    }

    fn for_each(arguments: &[ArrayRef], each: impl FnMut(usize, Double)) -> Result<()> {
        <ExactSum as Total>::for_each(arguments, each)
    }

    fn value_bytes(value: Double) -> [u8; 16] {
        <ExactSum as Total>::value_bytes(value)
    }

    fn value_from_bytes(bytes: [u8; 16]) -> Double {
        <ExactSum as Total>::value_from_bytes(bytes)
    }
}

/// Of two variables.
#[derive(Debug, Default, Clone)]
pub struct Pairs {
    x: ExactSum,
    y: ExactSum,
    xx: ExactSum,
    yy: ExactSum,
    xy: ExactSum,
}

impl Pairs {
    fn corr(&self, rows: i64) -> Option<f64> {
        // As the stock function has it: NaN when both sides have NaN, NULL when one has.
        match (self.x.value().is_nan(), self.y.value().is_nan()) {
            (true, true) => return Some(f64::NAN),
            (false, false) if rows > 1 => {}
            _ => return None,
        }
        let x = squares(&self.xx, &self.x, rows).sqrt();
        let y = squares(&self.yy, &self.y, rows).sqrt();
        (x != 0.0 && y != 0.0).then(|| self.products(rows) / x / y)
    }

    fn products(&self, rows: i64) -> f64 {
        products(&self.xy, &self.x, &self.y, rows)
    }

    /// Slope and intercept; none for fewer than two points, or when all stand above each other.
    fn line(&self, rows: i64) -> Option<(f64, f64)> {
        let n = rows as f64;
        let xx = squares(&self.xx, &self.x, rows);
        (rows > 1 && xx != 0.0).then(|| {
            let slope = self.products(rows) / xx;
            (slope, self.y.value() / n - slope * (self.x.value() / n))
        })
    }

    fn r2(&self, rows: i64) -> Option<f64> {
        let (xx, yy) = (squares(&self.xx, &self.x, rows), squares(&self.yy, &self.y, rows));
        let xy = self.products(rows);
        (rows > 1 && xx != 0.0 && yy != 0.0).then(|| (xy / xx) * (xy / yy))
    }
}

impl Total for Pairs {
    /// y, x.
    type Value = (Double, Double);

    fn add(&mut self, (y, x): Self::Value, weight: i64) {
        let (x, y) = (x.value(), y.value());
        self.x.add(x, weight);
        self.y.add(y, weight);
        self.xx.add_product(x, x, weight);
        self.yy.add_product(y, y, weight);
        self.xy.add_product(x, y, weight);
    }

    fn merge(&mut self, other: &Self) {
        self.x.merge(&other.x);
        self.y.merge(&other.y);
        self.xx.merge(&other.xx);
        self.yy.merge(&other.yy);
        self.xy.merge(&other.xy);
    }

    fn finish(&self, rows: i64, finish: &Finish) -> Result<ScalarValue> {
        let Finish::Statistic(statistic) = finish else {
            return internal_err!("{finish:?} is not a statistic of two variables");
        };
        let n = rows as f64;
        Ok(ScalarValue::Float64(match statistic {
            Statistic::CovarPop => Some(self.products(rows) / n),
            Statistic::CovarSamp => (rows > 1).then(|| self.products(rows) / (n - 1.0)),
            Statistic::Corr => self.corr(rows),
            Statistic::Slope => self.line(rows).map(|(slope, _)| slope),
            Statistic::Intercept => self.line(rows).map(|(_, intercept)| intercept),
            Statistic::R2 => self.r2(rows),
            Statistic::AvgX => Some(self.x.value() / n),
            Statistic::AvgY => Some(self.y.value() / n),
            Statistic::Sxx => Some(squares(&self.xx, &self.x, rows)),
            Statistic::Syy => Some(squares(&self.yy, &self.y, rows)),
            Statistic::Sxy => Some(self.products(rows)),
            other => return internal_err!("{other:?} is not a statistic of two variables"),
        }))
    }

    fn is_zero(&self) -> bool {
        [&self.x, &self.y, &self.xx, &self.yy, &self.xy].iter().all(|s| s.is_zero())
    }

    fn write_bytes(&self, out: &mut Vec<u8>) {
        write_sums([&self.x, &self.y, &self.xx, &self.yy, &self.xy], out);
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        read_sums(bytes).map(|[x, y, xx, yy, xy]| Pairs { x, y, xx, yy, xy })
    }

    fn heap_size(&self) -> usize {
        [&self.x, &self.y, &self.xx, &self.yy, &self.xy].iter().map(|s| s.heap_size()).sum()
    }

    fn for_each(arguments: &[ArrayRef], mut each: impl FnMut(usize, Self::Value)) -> Result<()> {
        let [y, x] = arguments else { return internal_err!("a statistic of two variables has two arguments") };
        let (y, x) = (doubles(y)?, doubles(x)?);
        for row in 0..y.len().min(x.len()) {
            if y.is_valid(row) && x.is_valid(row) {
                each(row, (Double::new(y.value(row)), Double::new(x.value(row))));
            }
        }
        Ok(())
    }

    fn value_bytes((y, x): Self::Value) -> [u8; 16] {
        (u128::from(y.bits()) << 64 | u128::from(x.bits())).to_le_bytes()
    }

    fn value_from_bytes(bytes: [u8; 16]) -> Self::Value {
        let both = u128::from_le_bytes(bytes);
        let double = |bits: u64| Double::new(f64::from_bits(bits));
        (double((both >> 64) as u64), double(both as u64))
    }
}

/// Doubles whose sum is `sum`, exactly, largest first.
fn expansion(sum: &ExactSum) -> Vec<f64> {
    let mut rest = sum.clone();
    let mut terms = Vec::new();
    loop {
        let term = rest.value();
        if term == 0.0 || !term.is_finite() {
            return terms;
        }
        rest.add(term, -1);
        terms.push(term);
    }
}

/// Σ(x − mean x)².
fn squares(xx: &ExactSum, x: &ExactSum, rows: i64) -> f64 {
    let squares = products(xx, x, x, rows);
    if squares < 0.0 { 0.0 } else { squares }
}

/// Σ(x − mean x)(y − mean y) of `rows` > 0 rows; NaN when a sum is not finite.
fn products(xy: &ExactSum, x: &ExactSum, y: &ExactSum, rows: i64) -> f64 {
    let n = rows as f64;
    let (mean_x, mean_y) = (x.value() / n, y.value() / n);
    if !mean_x.is_finite() || !mean_y.is_finite() {
        return f64::NAN;
    }
    let mut about = xy.clone();
    expansion(y).into_iter().for_each(|term| about.add_product(mean_x, term, -1));
    expansion(x).into_iter().for_each(|term| about.add_product(mean_y, term, -1));
    about.add_product(mean_x, mean_y, rows);
    let off = |sum: &ExactSum, mean: f64| {
        let mut off = sum.clone();
        off.add(mean, -rows);
        off.value()
    };
    let products = about.value() - off(x, mean_x) * off(y, mean_y) / n;
    // One zero, whatever the signs were.
    products + 0.0
}
