//! What circuits did and hold, for `smelt explain`.
//!
//! A run says it to its watcher when it ends, `up` every ten seconds too; the commands keep it in `target/operators.json`, by model. It is
//! no part of the lake: figures are of one process, and nothing depends on them.

use serde_json::{Value as Json, json};

use super::compute::How;
use super::pipeline::Pipeline;
use crate::env::Env;
use crate::error::Result;
use crate::operators::NodeMetrics;
use crate::plan::{Measured, NodeFigures, shape};
use crate::project::{Project, artifacts};

const FILE: &str = "operators.json";

impl Pipeline {
    /// Figures of the circuits that are warm, by model.
    pub(super) fn measured(&self) -> Vec<(String, Measured)> {
        let now = self.env.now_micros();
        let mut all = Vec::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let (Some(circuit), Ok(plan)) = (&node.circuit, &node.compiled.incremental) else { continue };
            let measured = Measured {
                shape: shape(plan),
                at: now,
                epoch: self.epoch,
                path: path(node.last),
                rewrite: if node.streams { None } else { self.rewrite_from(index) },
                nodes: circuit.metrics().iter().map(figures).collect(),
            };
            all.push((node.name().to_string(), measured));
        }
        all
    }
}

fn figures(metrics: &NodeMetrics) -> NodeFigures {
    NodeFigures {
        rows_in: metrics.rows_in,
        rows_out: metrics.rows_out,
        micros: u64::try_from(metrics.elapsed.as_micros()).unwrap_or(u64::MAX),
        state_rows: metrics.state_rows as u64,
        state_bytes: metrics.state_bytes as u64,
    }
}

/// How an epoch was computed, in words.
fn path(how: How) -> Option<String> {
    Some(match how {
        How::Idle | How::Run => return None,
        How::Incremental => "an incremental step".to_string(),
        How::Restored => "an incremental step of state that had been stored".to_string(),
        How::Refresh(reason) => format!("a new circuit ({reason})"),
        How::Bulk => "a stock plan (rewritten again)".to_string(),
    })
}

/// Keeps figures in the project's target folder, beside those of models that are not among `measured`.
pub fn keep_measured(env: &Env, project: &Project, measured: &[(String, Measured)]) -> Result<()> {
    let target = project.target.name.as_str();
    let mut kept = artifacts::read(project, FILE).filter(|kept| kept["target"] == target);
    let mut models = kept.as_mut().and_then(|k| k["models"].as_object_mut()).map(std::mem::take).unwrap_or_default();
    for (model, figures) in measured {
        models.insert(model.clone(), json!(figures));
    }
    models.retain(|name, _| project.models.iter().any(|m| m.name == *name));
    artifacts::write(project, FILE, json!({"target": target, "models": models}), env)?;
    Ok(())
}

/// What the last run on this target measured of `model`.
pub(super) fn kept_of(project: &Project, model: &str) -> Option<Measured> {
    let mut kept: Json =
        artifacts::read(project, FILE).filter(|kept| kept["target"] == project.target.name.as_str())?;
    serde_json::from_value(kept.get_mut("models")?.get_mut(model)?.take()).ok()
}
