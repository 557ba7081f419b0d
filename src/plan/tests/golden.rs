//! Golden scripts: blocks of a model (`NAME MATERIALIZATION [OPTION…]`, SQL), `---`, and what `explain` or the compiler says.
//! Models of earlier blocks of a file can be read as `"m"."NAME"`. A block is compiled beside those that it reads, or beside all
//! earlier ones.

use std::path::PathBuf;
use std::sync::Arc;

use super::project::{compile_all, model, span};
use crate::plan::{Planner, PlannerOptions};
use crate::project::{Dependency, Dialect, Expectation, Materialization, Model, OnViolation, Watermark};

/// Scripts whose models are those of one project.
const TOGETHER: [&str; 3] = ["arrangements", "errors", "on_close"];

fn script(name: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/plan/scripts").join(name);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut models: Vec<Arc<Model>> = Vec::new();
    let mut out = String::new();
    for block in text.split("\n\n\n") {
        let block = block.trim_matches('\n');
        let input = block.split_once("\n---").map_or(block, |(input, _)| input);
        if input.is_empty() {
            continue;
        }
        let said = run(input, &mut models, TOGETHER.contains(&name));
        out.push_str(&format!("{input}\n---\n{}\n\n\n", said.trim_end()));
    }
    let out = format!("{}\n", out.trim_end());
    #[allow(clippy::disallowed_methods)]
    let update = std::env::var("SMELT_UPDATE_GOLDEN").is_ok();
    if update {
        std::fs::write(&path, out).unwrap();
    } else if out != text {
        let differ = out.lines().zip(text.lines()).position(|(a, b)| a != b).unwrap_or(0);
        panic!(
            "{name}:{}\n  is       {}\n  was      {}\nSMELT_UPDATE_GOLDEN=1 accepts what is",
            differ + 1,
            out.lines().nth(differ).unwrap_or(""),
            text.lines().nth(differ).unwrap_or("")
        );
    }
}

/// The last of `models`, and what it reads of them.
fn read_by_the_last(models: &[Arc<Model>]) -> Vec<Arc<Model>> {
    let mut read: Vec<Arc<Model>> = models.last().cloned().into_iter().collect();
    for model in models.iter().rev().skip(1) {
        let dependency = Dependency::Model(model.name.clone());
        if read.iter().any(|reader| reader.depends_on.contains(&dependency)) {
            read.push(Arc::clone(model));
        }
    }
    read.reverse();
    read
}

fn run(input: &str, models: &mut Vec<Arc<Model>>, together: bool) -> String {
    let (comments, rest): (Vec<&str>, Vec<&str>) = input.lines().partition(|l| l.starts_with('#'));
    let _ = comments;
    let mut words = rest[0].split_whitespace();
    let name = words.next().unwrap();
    let materialized = match words.next().unwrap() {
        "streaming_table" => Materialization::StreamingTable,
        "materialized_view" => Materialization::MaterializedView,
        "view" => Materialization::View,
        "table" => Materialization::Table,
        other => panic!("no materialization {other}"),
    };
    let sql = rest[1..].join("\n");
    let mut made = model(name, materialized, &sql, models);
    for option in words {
        match option.split_once('=').unwrap_or((option, "")) {
            ("strict", _) => made.config.incremental_strict = true,
            ("on_close", _) => made.config.emit_on_close = true,
            ("watermark", column) => {
                let (delay, idle_timeout) = (std::time::Duration::ZERO, std::time::Duration::from_secs(30));
                made.config.watermark = Some(Watermark { column: column.into(), delay, idle_timeout });
            }
            ("skip_change_commits", _) => made.config.skip_change_commits = true,
            ("expect", text) => made.expectations.push(Expectation {
                name: "good".into(),
                expect: text.replace('_', " ").replace("~", "_"),
                on_violation: OnViolation::Drop,
                span: span(),
            }),
            (other, _) => panic!("no option {other}"),
        }
    }
    let made = Arc::new(made);
    models.push(Arc::clone(&made));
    match compile_all(if together { models.clone() } else { read_by_the_last(models) }) {
        Ok(compilation) => {
            let compiled = compilation.models.last().unwrap();
            let planner = Planner::new(PlannerOptions::new(Dialect::DataFusion)).unwrap();
            let columns = crate::plan::fingerprint::columns(&compiled.schema);
            let warnings: String = compiled.warnings.iter().map(|w| format!("\n{}", w.render_warning())).collect();
            format!("{}  -> {columns}{warnings}", planner.explain(compiled))
        }
        Err(errors) => {
            models.pop();
            errors.iter().map(|e| format!("{}\n", e.render())).collect()
        }
    }
}

#[test]
fn linear() {
    script("linear");
}

#[test]
fn names() {
    script("names");
}

#[test]
fn joins() {
    script("joins");
}

#[test]
fn aggregates() {
    script("aggregates");
}

#[test]
fn first() {
    script("first");
}

#[test]
fn full_refresh() {
    script("full_refresh");
}

#[test]
fn streams() {
    script("streams");
}

#[test]
fn errors() {
    script("errors");
}

#[test]
fn shapes() {
    script("shapes");
}

#[test]
fn subqueries() {
    script("subqueries");
}

#[test]
fn unnest() {
    script("unnest");
}

#[test]
fn time_windows() {
    script("time_windows");
}

#[test]
fn sessions() {
    script("sessions");
}

#[test]
fn clock() {
    script("clock");
}

#[test]
fn arrangements() {
    script("arrangements");
}

#[test]
fn shared() {
    script("shared");
}

#[test]
fn on_close() {
    script("on_close");
}
