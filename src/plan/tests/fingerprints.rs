//! What changes a model's fingerprint, and what does not.

use std::sync::Arc;

use super::project::{compile_all, compile_view, model};
use crate::project::Materialization;

fn fingerprint(sql: &str) -> String {
    compile_view(sql).unwrap().fingerprint.clone()
}

#[test]
fn layout_comments_and_case_of_keywords_do_not_count() {
    let plain = fingerprint(r#"select id, user_id as u from "ref"."events" where seconds > 0"#);
    let same = "-- what it is\nSELECT id /* the key */,\n  user_id AS u\nFROM \"ref\".\"events\"\nWHERE seconds > 0 -- done\n;";
    assert_eq!(plain, fingerprint(same));
    assert_eq!(plain.len(), 32);
}

#[test]
fn meaning_counts() {
    let plain = fingerprint(r#"select id, user_id as u from "ref"."events" where seconds > 0"#);
    for other in [
        r#"select id, user_id as u from "ref"."events" where seconds > 1"#,
        r#"select id, user_id as v from "ref"."events" where seconds > 0"#,
        r#"select id, site_id as u from "ref"."events" where seconds > 0"#,
        r#"select distinct id, user_id as u from "ref"."events" where seconds > 0"#,
    ] {
        assert_ne!(plain, fingerprint(other), "{other}");
    }
}

#[test]
fn an_inlined_view_counts() {
    let of = |view: &str| {
        let view = Arc::new(model("w", Materialization::View, view, &[]));
        let reader = model("v", Materialization::MaterializedView, r#"select id from "m"."w""#, &[Arc::clone(&view)]);
        compile_all(vec![view, Arc::new(reader)]).unwrap().models[1].fingerprint.clone()
    };
    let plain = of(r#"select id from "ref"."events""#);
    assert_eq!(plain, of("select id\nfrom \"ref\".\"events\" -- all"));
    assert_ne!(plain, of(r#"select id from "ref"."events" where id > 0"#));
}

#[test]
fn where_a_table_lands_does_not_count() {
    let of = |schema: &str| {
        let mut upstream = model("u", Materialization::MaterializedView, r#"select id from "ref"."events""#, &[]);
        upstream.schema = schema.into();
        let upstream = Arc::new(upstream);
        let mut reader =
            model("v", Materialization::MaterializedView, &format!("select id from \"{schema}\".\"u\""), &[]);
        reader.depends_on = vec![crate::project::Dependency::Model("u".into())];
        compile_all(vec![upstream, Arc::new(reader)]).unwrap().models[1].fingerprint.clone()
    };
    assert_eq!(of("dev_gold"), of("gold"));
}
