//! The repository's own project compiles, every model of it incrementally.

use std::path::PathBuf;

use super::project::NoTables;
use crate::env::Env;
use crate::plan::compile;
use crate::plan::{Planner, PlannerOptions};
use crate::project::{LoadOptions, load};

#[test]
fn the_telecom_project_is_maintained_incrementally() {
    let options = LoadOptions { dir: PathBuf::from(env!("CARGO_MANIFEST_DIR")), ..LoadOptions::default() };
    let shown = |errors: Vec<crate::error::Error>| errors.iter().map(|e| e.render()).collect::<Vec<_>>().join("\n");
    let project = load(&options, &Env::real()).map_err(shown).unwrap();
    let compilation = compile(&project, &NoTables, &crate::plan::stopped()).map_err(shown).unwrap();
    assert_eq!(compilation.models.len(), project.models.len());
    let planner = Planner::new(PlannerOptions::new(project.dialect)).unwrap();
    for model in &compilation.models {
        let explained = planner.explain(model);
        println!("{explained}");
        assert!(model.incremental.is_ok(), "{explained}");
        assert!(model.warnings.is_empty(), "{:?}", model.warnings);
    }
    let fact = compilation.models.iter().find(|m| m.model.name == "fact_events").unwrap();
    let explained = planner.explain(fact);
    assert_eq!(explained.matches("join: incremental").count(), 1, "the fact is stored once\n{explained}");
    assert_eq!(explained.matches("left on ").count(), 6, "{explained}");
}
