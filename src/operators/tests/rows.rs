//! Expectations and keyed changelogs.

use arrow::array::{AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use datafusion::logical_expr::{col, lit};
use datafusion::prelude::SessionContext;
use std::sync::Arc;

use crate::error::ErrorKind;
use crate::operators::{Expectations, Keyed};
use crate::plan::CompiledExpectation;
use crate::project::OnViolation;
use crate::types::{SignedBatch, reject_schema};

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("x", DataType::Float64, true),
        Field::new("partition", DataType::Int64, true),
    ]))
}

fn rows(rows: &[(i64, Option<&str>, f64)]) -> RecordBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|r| r.0));
    let names: StringArray = rows.iter().map(|r| r.1).collect();
    let xs = Float64Array::from_iter_values(rows.iter().map(|r| r.2));
    let partitions = Int64Array::from(vec![4; rows.len()]);
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(names), Arc::new(xs), Arc::new(partitions)]).unwrap()
}

fn ids(batch: &SignedBatch) -> Vec<(i64, i64)> {
    let ids = batch.rows.column(0).as_primitive::<Int64Type>();
    (0..batch.num_rows()).map(|i| (ids.value(i), batch.weight(i))).collect()
}

#[test]
fn expectations_split_a_signed_change() {
    let expect =
        |name: &str, predicate, on_violation| CompiledExpectation { name: name.into(), predicate, on_violation };
    let expectations = Expectations::new(
        &[
            expect("small", col("id").lt(lit(100i64)), OnViolation::Drop),
            expect("named", col("name").not_eq(lit("bad")), OnViolation::Quarantine),
            expect("positive", col("x").gt(lit(0f64)), OnViolation::Quarantine),
            expect("lucky", col("id").not_eq(lit(13i64)), OnViolation::Warn),
            expect("never", col("id").not_eq(lit(66i64)), OnViolation::Fail),
        ],
        &schema(),
        &SessionContext::new().state(),
    )
    .unwrap();
    let change = rows(&[
        (1, Some("a"), 1.0),
        (200, Some("a"), 1.0),
        (3, Some("bad"), -1.0),
        (4, None, f64::INFINITY),
        (13, Some("line\n\"break\""), 0.5),
        (66, Some("gone"), 1.0),
        (7, Some("bad"), 1.0),
    ]);
    let weights = Int64Array::from(vec![1, 1, 2, 1, 1, -1, -1]);
    let applied = expectations.apply("m", vec![SignedBatch::new(change, weights).unwrap()]).unwrap().remove(0);
    assert_eq!(ids(&applied.kept), [(1, 1), (13, 1), (66, -1)]);
    let counts: Vec<(&str, u64)> = applied.counts.iter().map(|(n, c)| (n.as_str(), *c)).collect();
    // NULL violates; what is retracted does not count.
    assert_eq!(counts, [("small", 1), ("named", 3), ("positive", 2), ("lucky", 1), ("never", 0)]);
    assert_eq!(applied.failed, None);
    let rejected = &applied.quarantined;
    assert_eq!(rejected.schema(), reject_schema());
    let text =
        |name: &str, i: usize| rejected.rows.column_by_name(name).unwrap().as_string::<i32>().value(i).to_string();
    assert_eq!(
        (0..3).map(|i| (text("reason", i), rejected.weight(i))).collect::<Vec<_>>(),
        [("named".to_string(), 2), ("named".to_string(), 1), ("named".to_string(), -1),]
    );
    assert_eq!((text("model", 0), text("kind", 0)), ("m".to_string(), "quarantine".to_string()));
    assert_eq!(text("row", 0), r#"{"id":3,"name":"bad","x":-1.0,"partition":4}"#);
    assert_eq!(rejected.rows.column_by_name("partition").unwrap().as_primitive::<Int32Type>().value(0), 4);
    assert!(rejected.rows.column_by_name("topic").unwrap().is_null(0));

    let failing = expectations
        .apply("m", vec![SignedBatch::inserts(rows(&[(1, Some("a"), 1.0), (66, Some("b\nc"), 1.0)]))])
        .unwrap()
        .remove(0);
    let failed = failing.failed.unwrap();
    assert_eq!(failed.expectation, "never");
    assert_eq!(failed.row, r#"{"id":66,"name":"b\nc","x":1.0,"partition":4}"#);
}

/// What `id > 0` leaves of the upserts.
fn filtered(upserts: &SignedBatch) -> RecordBatch {
    let xs = upserts.rows.column(2).as_primitive::<arrow::datatypes::Float64Type>();
    let keep = xs.iter().map(|x| x.map(|x| x > 0.0)).collect::<arrow::array::BooleanArray>();
    arrow::compute::filter_record_batch(&upserts.rows, &keep).unwrap()
}

#[test]
fn keyed_changes_become_signed_rows() {
    let mut keyed = Keyed::new(schema(), vec![0]).unwrap();
    let apply = |keyed: &mut Keyed, records: &[(i64, Option<&str>, f64)], weights: &[i64]| {
        let records = SignedBatch::new(rows(records), Int64Array::from(weights.to_vec())).unwrap();
        let latest = Keyed::last_per_key(&[records], &schema(), &[0]).unwrap();
        let out = keyed.apply(&latest.keys, &[filtered(&latest.upserts)]).unwrap();
        out.iter()
            .flat_map(|b| {
                let names = b.rows.column(1).as_string::<i32>().clone();
                let ids = ids(b);
                ids.into_iter()
                    .enumerate()
                    .map(move |(i, (id, w))| format!("{w:+} {id} {}", names.value(i)))
                    .collect::<Vec<_>>()
            })
            .collect::<Vec<String>>()
    };
    // The last record of a key wins.
    assert_eq!(
        apply(&mut keyed, &[(1, Some("a"), 1.0), (2, Some("b"), 1.0), (1, Some("c"), 1.0)], &[1, 1, 1]),
        ["+1 2 b", "+1 1 c"]
    );
    // The same again says nothing; a delete of an unknown key neither.
    assert!(apply(&mut keyed, &[(1, Some("c"), 1.0), (9, None, 0.0)], &[1, -1]).is_empty());
    // What the query filters out is gone.
    assert_eq!(apply(&mut keyed, &[(2, Some("b"), -1.0)], &[1]), ["-1 2 b"]);
    assert_eq!(apply(&mut keyed, &[(1, Some("d"), 1.0), (2, Some("e"), 2.0)], &[1, 1]), ["-1 1 c", "+1 1 d", "+1 2 e"]);
    // Deleted and inserted again within an epoch.
    assert_eq!(apply(&mut keyed, &[(1, None, 0.0), (1, Some("f"), 1.0)], &[-1, 1]), ["-1 1 d", "+1 1 f"]);
    assert_eq!(keyed.state_rows(), 2);
    let mut restarted = Keyed::new(schema(), vec![0]).unwrap();
    restarted.load(&[rows(&[(1, Some("f"), 1.0)]), rows(&[(2, Some("e"), 2.0)])]).unwrap();
    for keyed in [&mut keyed, &mut restarted] {
        assert_eq!(apply(keyed, &[(1, None, 0.0), (2, None, 0.0)], &[-1, -1]), ["-1 1 f", "-1 2 e"]);
        assert_eq!(keyed.state_rows(), 0);
    }
}

#[test]
fn two_rows_for_one_key_are_an_error() {
    let mut keyed = Keyed::new(schema(), vec![0]).unwrap();
    let twice = rows(&[(1, Some("a"), 1.0), (1, Some("b"), 1.0)]);
    let keys = rows(&[(1, None, 0.0)]).project(&[0]).unwrap();
    let error = keyed.apply(&keys, &[twice]).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::User, "duplicate-key"));
}
