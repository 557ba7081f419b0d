//! Tables of models that somebody else writes to while `smelt up` runs.
//!
//! Every commit finds out: it loses the race for its version, and the entry that won says what it did. A table that nothing changes commits
//! nothing, so a change of its rows would stay. Where the model is to be repaired (`on_foreign_change: repair`), its log is looked at once per
//! commit interval, as those of tables that smelt only reads; an entry that is not smelt's makes a commit due.

use futures::future::join_all;

use super::pipeline::Pipeline;

impl Pipeline {
    /// Looks for log entries of others; whether there are any. A log that cannot be read now is looked at again.
    pub(super) async fn look_for_others(&mut self) -> bool {
        let watched =
            (0..self.nodes.len()).filter(|i| self.nodes[*i].runs() && self.repairs(&self.nodes[*i].compiled.model));
        let looks = watched.filter_map(|index| {
            let table = self.nodes[index].main.as_ref()?.table().ok()?;
            Some(async move { (index, matches!(table.has_successor().await, Ok(true))) })
        });
        let overtaken: Vec<usize> =
            join_all(looks).await.into_iter().filter(|(_, found)| *found).map(|(i, _)| i).collect();
        for index in &overtaken {
            if let Some(cell) = &mut self.nodes[*index].main {
                cell.is_overtaken = true;
            }
        }
        !overtaken.is_empty()
    }
}
