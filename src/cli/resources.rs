//! What a command works on, as templates see it: `selected_resources`.

use super::args::Selection;
use super::session::Session;
use crate::error::Error;
use crate::plan::Compilation;
use crate::project::Project;

impl Session {
    /// Unique ids of the selected nodes of the types that the command works on.
    pub(super) async fn resources(
        &self,
        project: &Project,
        compilation: Option<&Compilation>,
        selection: &Selection,
    ) -> Result<Vec<String>, Vec<Error>> {
        let types: &[&str] = match self.artifacts.which() {
            // Also what dbt has commands of their own for: a run makes it.
            "run" | "up" => &["model", "seed", "snapshot"],
            "seed" => &["seed"],
            "snapshot" => &["snapshot"],
            "test" => &["test", "unit_test"],
            "freshness" => &["source"],
            "run-operation" => &[],
            _ => &["model", "seed", "snapshot", "test", "unit_test"],
        };
        let selected = self.choose(project, compilation, selection).await?;
        let models = project.models.iter().map(|m| &m.unique_id);
        let tests = project.tests.iter().map(|t| &t.unique_id);
        let units = project.unit_tests.iter().map(|t| &t.unique_id);
        let all = models.chain(tests).chain(units).chain(project.sources.iter().map(|s| &s.unique_id));
        let is_type = |id: &&String| id.split('.').next().is_some_and(|of| types.contains(&of));
        let is_selected = |id: &&String| selected.as_ref().is_none_or(|s| s.contains(id));
        Ok(all.filter(is_type).filter(is_selected).cloned().collect())
    }
}
