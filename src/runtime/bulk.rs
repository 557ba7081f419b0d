//! Whether an epoch steps a view's circuit or recomputes the view.
//!
//! Stepping costs by the rows that change, recomputing by the rows that are there. What decides is the state: a stock plan is several
//! times cheaper per row than a circuit but leaves none, and to have it again every row that is there goes through a circuit once.
//! So an epoch that changes fewer rows than there are is stepped, however large it is: recomputing would only put the work off. One
//! that changes more (a table replaced as a whole: every row goes and comes) fills a new circuit instead, and when
//! the next one does so again, the state is not worth having: the stock plan runs until a smaller epoch comes.
//! All three give the same table. `operators::tests::bulk` measures them.

use super::cell::Cell;
use super::compute::EpochState;
use super::pipeline::{Pipeline, Upstream};
use crate::types::SignedBatch;

/// Below this many rows an epoch is never worth a recomputation: its fixed costs dominate.
const MIN_ROWS: u64 = 10_000;
/// Comparing a row of the table with the result, in rows stepped.
const COMPARE: f64 = 0.5;

/// How a view is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// Its circuit takes the change.
    Step,
    /// A new circuit takes everything; the result is compared with the table.
    Rebuild,
    /// A stock plan takes everything; the result is compared with the table, and there is no circuit.
    Stock,
}

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Rows of the inputs' changes, retractions included.
    pub change: u64,
    /// Rows of the inputs after them; None where they can only be had by reading a source again.
    pub inputs: Option<u64>,
    /// Rows of the view's table.
    pub table: u64,
}

impl Sizes {
    /// Whether more changes than there is.
    pub fn is_rewrite(&self) -> bool {
        let Some(inputs) = self.inputs else { return false };
        self.change >= MIN_ROWS && self.change as f64 > inputs as f64 + self.table as f64 * COMPARE
    }
}

/// `again`: the epoch before was a rewrite, too.
pub(super) fn choose(sizes: Sizes, again: bool) -> Path {
    match (sizes.is_rewrite(), again) {
        (false, _) => Path::Step,
        (true, false) => Path::Rebuild,
        (true, true) => Path::Stock,
    }
}

impl Pipeline {
    /// From how many changed rows on an epoch of the view `index` would be a rewrite, as its inputs and its table are; None where it never is.
    pub(super) fn rewrite_from(&self, index: usize) -> Option<u64> {
        let node = &self.nodes[index];
        let rows = |cell: &Option<Cell>| Some(cell.as_ref()?.table().ok()?.row_count());
        let input = |upstream: &Upstream| match upstream {
            Upstream::Node(up) => rows(&self.nodes[*up].main),
            Upstream::Foreign(foreign) => self.foreign[*foreign].table().map(|t| t.row_count()),
            Upstream::Source(_) | Upstream::This => None,
        };
        let inputs: u64 = node.upstreams.iter().map(input).sum::<Option<u64>>()?;
        let is_append_only = node.compiled.append_only;
        let most = inputs as f64 + rows(&node.main)? as f64 * COMPARE;
        (!is_append_only).then_some(MIN_ROWS.max(most as u64 + 1))
    }

    /// Sizes of an epoch for the view `index`.
    pub(super) fn sizes(&self, index: usize, inputs: &[Vec<SignedBatch>], epoch: &EpochState) -> Sizes {
        let change = inputs.iter().flatten().map(|b| b.num_rows() as u64).sum();
        let after = |(upstream, change): (&Upstream, &Vec<SignedBatch>)| {
            let before = match upstream {
                Upstream::Node(up) => epoch.rows_before[*up],
                Upstream::Foreign(foreign) => {
                    // Its table has the change already.
                    return self.foreign[*foreign].table().map(|t| t.row_count());
                }
                Upstream::Source(_) | Upstream::This => return None,
            };
            let net: i64 = change.iter().map(|b| (0..b.num_rows()).map(|i| b.weight(i)).sum::<i64>()).sum();
            Some(before.saturating_add_signed(net))
        };
        let inputs = self.nodes[index].upstreams.iter().zip(inputs).map(after).sum();
        Sizes { change, inputs, table: epoch.rows_before[index] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(change: u64, inputs: Option<u64>, table: u64, again: bool) -> Path {
        choose(Sizes { change, inputs, table }, again)
    }

    #[test]
    fn what_changes_less_than_there_is_is_stepped() {
        assert_eq!(path(9_999, Some(0), 0, true), Path::Step, "small epochs are");
        assert_eq!(
            path(50_000, Some(1_000_000), 10, true),
            Path::Step,
            "few groups do not make a large input cheap to read"
        );
        assert_eq!(path(1_000_000, Some(1_000_000), 0, true), Path::Step, "a first load");
        assert_eq!(path(1_000_000, None, 0, true), Path::Step, "sources are not read again");
    }

    #[test]
    fn a_rewrite_fills_a_new_circuit_and_a_second_one_needs_none() {
        assert_eq!(path(200_000, Some(100_000), 1_000, false), Path::Rebuild);
        assert_eq!(path(200_000, Some(100_000), 1_000, true), Path::Stock);
        assert_eq!(path(200_000, Some(100_000), 300_000, true), Path::Step, "comparing the table costs, too");
        assert_eq!(path(100_000, Some(0), 1_000, false), Path::Rebuild, "everything is deleted");
    }
}
