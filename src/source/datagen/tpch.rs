//! The eight tables of TPC-H, small: same schema, same references between tables, same rules between dates.
//!
//! Where dbgen draws evenly from large domains (25 brands, 40 containers, 25 nations), this draws mostly from the few values
//! that the 22 queries ask for, so that each of them has rows at a few hundred orders. Row i of a table is a function of the seed and i;
//! another seed gives rows with the same keys and other values, which is what an update is.

use arrow::array::{ArrayRef, Date32Array, Decimal128Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

use crate::error::Result;

/// How many rows the tables have; lineitem has about four for each order.
#[derive(Debug, Clone, Copy)]
pub struct Tpch {
    pub seed: u64,
    pub orders: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Region,
    Nation,
    Supplier,
    Part,
    PartSupp,
    Customer,
    Orders,
    LineItem,
}

#[derive(Debug, Clone)]
enum Value {
    Int(i64),
    /// Hundredths.
    Money(i64),
    /// Days since 1970.
    Day(i32),
    Text(String),
}

const INT: &str = "BIGINT";
const MONEY: &str = "DECIMAL(15,2)";
const DAY: &str = "DATE";
const TEXT: &str = "STRING";

/// 1992-01-01, days since 1970.
const FIRST_DAY: i32 = 8035;
/// 1998-08-02.
const LAST_DAY: i32 = 10_440;
/// 1995-06-17, the benchmark's today.
const TODAY: i32 = 9298;

const REGIONS: [&str; 5] = ["AFRICA", "AMERICA", "ASIA", "EUROPE", "MIDDLE EAST"];
const NATIONS: [(&str, i64); 25] = [
    ("ALGERIA", 0),
    ("ARGENTINA", 1),
    ("BRAZIL", 1),
    ("CANADA", 1),
    ("EGYPT", 4),
    ("ETHIOPIA", 0),
    ("FRANCE", 3),
    ("GERMANY", 3),
    ("INDIA", 2),
    ("INDONESIA", 2),
    ("IRAN", 4),
    ("IRAQ", 4),
    ("JAPAN", 2),
    ("JORDAN", 4),
    ("KENYA", 0),
    ("MOROCCO", 0),
    ("MOZAMBIQUE", 0),
    ("PERU", 1),
    ("CHINA", 2),
    ("ROMANIA", 3),
    ("SAUDI ARABIA", 4),
    ("VIETNAM", 2),
    ("RUSSIA", 3),
    ("UNITED KINGDOM", 3),
    ("UNITED STATES", 1),
];
/// Nations by how often they are drawn.
const FAVOURED_NATIONS: [i64; 12] = [7, 6, 20, 3, 2, 8, 18, 12, 24, 0, 23, 13];
const COLORS: [&str; 10] =
    ["forest", "green", "almond", "blue", "chocolate", "ivory", "lemon", "navy", "rose", "violet"];
const BRANDS: [&str; 8] =
    ["Brand#23", "Brand#12", "Brand#34", "Brand#45", "Brand#11", "Brand#52", "Brand#31", "Brand#44"];
const CONTAINERS: [&str; 10] =
    ["MED BOX", "SM CASE", "LG CASE", "MED BAG", "SM BOX", "LG BOX", "SM PACK", "LG PACK", "MED PKG", "JUMBO DRUM"];
const TYPES: [&str; 8] = [
    "ECONOMY ANODIZED STEEL",
    "STANDARD PLATED BRASS",
    "PROMO BURNISHED COPPER",
    "MEDIUM POLISHED TIN",
    "SMALL BRUSHED NICKEL",
    "PROMO ANODIZED BRASS",
    "LARGE PLATED STEEL",
    "MEDIUM ANODIZED BRASS",
];
const SIZES: [i64; 10] = [15, 9, 3, 5, 14, 19, 23, 36, 45, 49];
const SEGMENTS: [&str; 5] = ["BUILDING", "AUTOMOBILE", "FURNITURE", "HOUSEHOLD", "MACHINERY"];
const PRIORITIES: [&str; 5] = ["1-URGENT", "2-HIGH", "3-MEDIUM", "4-NOT SPECIFIED", "5-LOW"];
const MODES: [&str; 7] = ["MAIL", "SHIP", "AIR", "AIR REG", "TRUCK", "RAIL", "FOB"];
const INSTRUCTIONS: [&str; 4] = ["DELIVER IN PERSON", "COLLECT COD", "NONE", "TAKE BACK RETURN"];
const WORDS: [&str; 8] = ["special", "requests", "deposits", "carefully", "pending", "Customer", "Complaints", "final"];

impl Table {
    pub const ALL: [Table; 8] = [
        Table::Region,
        Table::Nation,
        Table::Supplier,
        Table::Part,
        Table::PartSupp,
        Table::Customer,
        Table::Orders,
        Table::LineItem,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Table::Region => "region",
            Table::Nation => "nation",
            Table::Supplier => "supplier",
            Table::Part => "part",
            Table::PartSupp => "partsupp",
            Table::Customer => "customer",
            Table::Orders => "orders",
            Table::LineItem => "lineitem",
        }
    }

    /// (column, SQL type) in order.
    pub fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Table::Region => &[("r_regionkey", INT), ("r_name", TEXT), ("r_comment", TEXT)],
            Table::Nation => &[("n_nationkey", INT), ("n_name", TEXT), ("n_regionkey", INT), ("n_comment", TEXT)],
            Table::Supplier => &[
                ("s_suppkey", INT),
                ("s_name", TEXT),
                ("s_address", TEXT),
                ("s_nationkey", INT),
                ("s_phone", TEXT),
                ("s_acctbal", MONEY),
                ("s_comment", TEXT),
            ],
            Table::Part => &[
                ("p_partkey", INT),
                ("p_name", TEXT),
                ("p_mfgr", TEXT),
                ("p_brand", TEXT),
                ("p_type", TEXT),
                ("p_size", INT),
                ("p_container", TEXT),
                ("p_retailprice", MONEY),
                ("p_comment", TEXT),
            ],
            Table::PartSupp => &[
                ("ps_partkey", INT),
                ("ps_suppkey", INT),
                ("ps_availqty", INT),
                ("ps_supplycost", MONEY),
                ("ps_comment", TEXT),
            ],
            Table::Customer => &[
                ("c_custkey", INT),
                ("c_name", TEXT),
                ("c_address", TEXT),
                ("c_nationkey", INT),
                ("c_phone", TEXT),
                ("c_acctbal", MONEY),
                ("c_mktsegment", TEXT),
                ("c_comment", TEXT),
            ],
            Table::Orders => &[
                ("o_orderkey", INT),
                ("o_custkey", INT),
                ("o_orderstatus", TEXT),
                ("o_totalprice", MONEY),
                ("o_orderdate", DAY),
                ("o_orderpriority", TEXT),
                ("o_clerk", TEXT),
                ("o_shippriority", INT),
                ("o_comment", TEXT),
            ],
            Table::LineItem => &[
                ("l_orderkey", INT),
                ("l_partkey", INT),
                ("l_suppkey", INT),
                ("l_linenumber", INT),
                ("l_quantity", MONEY),
                ("l_extendedprice", MONEY),
                ("l_discount", MONEY),
                ("l_tax", MONEY),
                ("l_returnflag", TEXT),
                ("l_linestatus", TEXT),
                ("l_shipdate", DAY),
                ("l_commitdate", DAY),
                ("l_receiptdate", DAY),
                ("l_shipinstruct", TEXT),
                ("l_shipmode", TEXT),
                ("l_comment", TEXT),
            ],
        }
    }

    /// The columns in stored types.
    pub fn schema(self) -> SchemaRef {
        let field = |(name, sql): &(&str, &str)| {
            let data_type = match *sql {
                INT => DataType::Int64,
                MONEY => DataType::Decimal128(15, 2),
                DAY => DataType::Date32,
                _ => DataType::Utf8,
            };
            Field::new(*name, data_type, true)
        };
        Arc::new(Schema::new(self.columns().iter().map(field).collect::<Vec<_>>()))
    }
}

fn text(value: impl Into<String>) -> Value {
    Value::Text(value.into())
}

/// One of `of`, the first ones most often.
fn favoured<T: Copy>(rng: &mut ChaCha8Rng, of: &[T]) -> T {
    let drawn = rng.random::<f64>().powi(2) * of.len() as f64;
    of[(drawn as usize).min(of.len() - 1)]
}

fn any<T: Copy>(rng: &mut ChaCha8Rng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

fn comment(rng: &mut ChaCha8Rng) -> Value {
    let words: Vec<&str> = (0..3).map(|_| any(rng, &WORDS)).collect();
    text(words.join(" "))
}

fn phone(nation: i64, rng: &mut ChaCha8Rng) -> Value {
    let mut part = |digits: std::ops::Range<u32>| rng.random_range(digits);
    text(format!("{}-{}-{}-{}", nation + 10, part(100..1000), part(100..1000), part(1000..10_000)))
}

/// In hundredths.
fn retail_price(part: i64) -> i64 {
    90_000 + part / 10 % 20_001 + 100 * (part % 1_000)
}

impl Tpch {
    fn suppliers(&self) -> i64 {
        (self.orders as i64 / 20).max(5)
    }

    fn parts(&self) -> i64 {
        (self.orders as i64 / 6).max(10)
    }

    fn customers(&self) -> i64 {
        (self.orders as i64 / 5).max(10)
    }

    /// The dice of one row.
    fn rng(&self, table: Table, row: i64) -> ChaCha8Rng {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(((table as u64) << 40) | row as u64);
        rng
    }

    /// The supplier of a part, of four.
    fn supplier_of(&self, part: i64, which: i64) -> i64 {
        (part + which * (self.suppliers() / 4 + 1)) % self.suppliers() + 1
    }

    /// All rows of a table.
    pub fn table(&self, table: Table) -> Result<RecordBatch> {
        let rows: Vec<Vec<Value>> = match table {
            Table::Region => (0..5).map(|i| self.region(i)).collect(),
            Table::Nation => (0..25).map(|i| self.nation(i)).collect(),
            Table::Supplier => (1..=self.suppliers()).map(|i| self.supplier(i)).collect(),
            Table::Part => (1..=self.parts()).map(|i| self.part(i)).collect(),
            Table::PartSupp => (1..=self.parts()).flat_map(|i| (0..4).map(move |s| self.part_supplier(i, s))).collect(),
            Table::Customer => (1..=self.customers()).map(|i| self.customer(i)).collect(),
            Table::Orders => (1..=self.orders as i64).map(|i| self.order(i)).collect(),
            Table::LineItem => (1..=self.orders as i64).flat_map(|i| self.lines(i)).collect(),
        };
        let column = |(c, (_, sql)): (usize, &(&str, &str))| -> Result<ArrayRef> {
            let ints = || {
                rows.iter().map(move |row| match &row[c] {
                    Value::Int(n) | Value::Money(n) => *n,
                    Value::Day(day) => i64::from(*day),
                    Value::Text(_) => 0,
                })
            };
            Ok(match *sql {
                INT => Arc::new(Int64Array::from_iter_values(ints())),
                DAY => Arc::new(Date32Array::from_iter_values(ints().map(|day| day as i32))),
                MONEY => {
                    let money = Decimal128Array::from_iter_values(ints().map(i128::from));
                    Arc::new(money.with_precision_and_scale(15, 2)?)
                }
                _ => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| match &row[c] {
                    Value::Text(text) => text.as_str(),
                    _ => "",
                }))),
            })
        };
        let columns = table.columns().iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
        Ok(RecordBatch::try_new(table.schema(), columns)?)
    }

    fn region(&self, i: i64) -> Vec<Value> {
        let rng = &mut self.rng(Table::Region, i);
        vec![Value::Int(i), text(REGIONS[i as usize]), comment(rng)]
    }

    fn nation(&self, i: i64) -> Vec<Value> {
        let rng = &mut self.rng(Table::Nation, i);
        let (name, region) = NATIONS[i as usize];
        vec![Value::Int(i), text(name), Value::Int(region), comment(rng)]
    }

    fn supplier(&self, i: i64) -> Vec<Value> {
        let rng = &mut self.rng(Table::Supplier, i);
        let nation = favoured(rng, &FAVOURED_NATIONS);
        let (phone, balance) = (phone(nation, rng), rng.random_range(-99_999..1_000_000));
        let name = text(format!("Supplier#{i:09}"));
        let address = text(format!("{} street", rng.random_range(1..500)));
        vec![Value::Int(i), name, address, Value::Int(nation), phone, Value::Money(balance), comment(rng)]
    }

    fn part(&self, i: i64) -> Vec<Value> {
        let rng = &mut self.rng(Table::Part, i);
        let name = format!("{} {}", favoured(rng, &COLORS), any(rng, &COLORS));
        vec![
            Value::Int(i),
            text(name),
            text(format!("Manufacturer#{}", rng.random_range(1..6))),
            text(favoured(rng, &BRANDS)),
            text(favoured(rng, &TYPES)),
            Value::Int(favoured(rng, &SIZES)),
            text(favoured(rng, &CONTAINERS)),
            Value::Money(retail_price(i)),
            comment(rng),
        ]
    }

    fn part_supplier(&self, part: i64, which: i64) -> Vec<Value> {
        let rng = &mut self.rng(Table::PartSupp, part * 4 + which);
        let (available, cost) = (rng.random_range(1..10_000), rng.random_range(100..100_001));
        let supplier = self.supplier_of(part, which);
        vec![Value::Int(part), Value::Int(supplier), Value::Int(available), Value::Money(cost), comment(rng)]
    }

    fn customer(&self, i: i64) -> Vec<Value> {
        let rng = &mut self.rng(Table::Customer, i);
        let nation = favoured(rng, &FAVOURED_NATIONS);
        vec![
            Value::Int(i),
            text(format!("Customer#{i:09}")),
            text(format!("{} avenue", rng.random_range(1..500))),
            Value::Int(nation),
            phone(nation, rng),
            Value::Money(rng.random_range(-99_999..1_000_000)),
            text(favoured(rng, &SEGMENTS)),
            comment(rng),
        ]
    }

    fn order_day(&self, order: i64) -> i32 {
        self.rng(Table::Orders, order).random_range(FIRST_DAY..LAST_DAY - 151)
    }

    fn order(&self, i: i64) -> Vec<Value> {
        let rng = &mut self.rng(Table::Orders, i);
        let day = rng.random_range(FIRST_DAY..LAST_DAY - 151);
        // A third of the customers never ordered anything.
        let customer = match rng.random_range(1..=self.customers()) {
            c if c % 3 == 0 => c - 1,
            c => c,
        };
        let lines = self.lines(i);
        let money = |row: &[Value], column: usize| if let Value::Money(n) = row[column] { n } else { 0 };
        let total: i64 =
            lines.iter().map(|l| money(l, 5) * (100 - money(l, 6)) / 100 * (100 + money(l, 7)) / 100).sum();
        let open = lines.iter().filter(|l| matches!(&l[9], Value::Text(status) if status == "O")).count();
        let status = if open == 0 {
            "F"
        } else if open == lines.len() {
            "O"
        } else {
            "P"
        };
        vec![
            Value::Int(i),
            Value::Int(customer),
            text(status),
            Value::Money(total),
            Value::Day(day),
            text(any(rng, &PRIORITIES)),
            text(format!("Clerk#{:09}", rng.random_range(1..10))),
            Value::Int(0),
            comment(rng),
        ]
    }

    fn lines(&self, order: i64) -> Vec<Vec<Value>> {
        let rng = &mut self.rng(Table::LineItem, order);
        let day = self.order_day(order);
        // One order in twenty is large.
        let large = rng.random_ratio(1, 20);
        let lines = if large { 7 } else { rng.random_range(1..8) };
        let line = |number: i64| {
            let part = rng.random_range(1..=self.parts());
            let supplier = self.supplier_of(part, rng.random_range(0..4));
            let quantity = if large { rng.random_range(43..51) } else { rng.random_range(1..51) };
            let shipped = day + rng.random_range(1..122);
            let committed = day + rng.random_range(30..91);
            let received = shipped + rng.random_range(1..31);
            let flag = if received > TODAY { "N" } else { any(rng, &["R", "A"]) };
            vec![
                Value::Int(order),
                Value::Int(part),
                Value::Int(supplier),
                Value::Int(number),
                Value::Money(quantity * 100),
                Value::Money(quantity * retail_price(part)),
                Value::Money(rng.random_range(0..11)),
                Value::Money(rng.random_range(0..9)),
                text(flag),
                text(if shipped > TODAY { "O" } else { "F" }),
                Value::Day(shipped),
                Value::Day(committed),
                Value::Day(received),
                text(favoured(rng, &INSTRUCTIONS)),
                text(favoured(rng, &MODES)),
                comment(rng),
            ]
        };
        (1..=lines).map(line).collect()
    }
}
