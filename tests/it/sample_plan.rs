//! The sample project compiles, and every model of it is maintained incrementally.

use arrow::datatypes::SchemaRef;
use smelt::env::Env;
use smelt::plan::compile;
use smelt::plan::incremental::Node;
use smelt::project::{LoadOptions, Materialization, load};
use smelt::types::Catalog;

struct EmptyLake;

impl Catalog for EmptyLake {
    fn table_schema(&self, _: &str, _: &str) -> Option<SchemaRef> {
        None
    }
}

/// How many inputs of joins in `node` are kept with others.
fn kept_once(node: &Node) -> usize {
    let here = usize::from(matches!(node, Node::Arranged { .. }));
    here + node.below().into_iter().map(kept_once).sum::<usize>()
}

#[test]
fn every_model_of_the_sample_is_incremental() {
    for target in ["dev", "files"] {
        let options = LoadOptions {
            dir: env!("CARGO_MANIFEST_DIR").into(),
            target: Some(target.into()),
            ..LoadOptions::default()
        };
        let rendered =
            |errors: Vec<smelt::error::Error>| errors.iter().map(|e| e.render()).collect::<Vec<_>>().join("\n");
        let project = load(&options, &Env::real()).map_err(rendered).unwrap();
        let compiled = compile(&project, &EmptyLake, &smelt::plan::stopped()).map_err(rendered).unwrap();
        let mut problems = Vec::new();
        for model in &compiled.models {
            let name = &model.model.name;
            problems.extend(model.warnings.iter().map(|w| format!("{name}: {}", w.render_warning())));
            if let Err(fallback) = &model.incremental
                && !model.model.materialized.is_scheduled()
            {
                problems.push(format!("{name} is recomputed: {fallback}"));
            }
            if model.model.materialized == Materialization::StreamingTable && !model.append_only {
                problems.push(format!("{name} is not append-only"));
            }
        }
        // Sender and receiver of an event find their phone, cell site and device in the same rows.
        let fact = compiled.models.iter().find(|m| m.model.name == "fact_events").unwrap();
        assert_eq!(kept_once(fact.incremental.as_ref().unwrap()), 6);
        assert!(problems.is_empty(), "{target}:\n{}", problems.join("\n"));
        assert_eq!(compiled.models.len(), 24);
    }
}
