//! Which rows of a partition a change reaches, and what their frames see.

use std::ops::Range;

use super::order::{Order, Side};
use super::peers;
use crate::plan::incremental::{Extent, Rank, Reach, Visible};
use crate::state::Multiset;
use crate::types::Weight;

/// Rows of a partition whose values a change may alter: all those between two places in its order, both included.
#[derive(Debug, PartialEq, Eq)]
pub struct Region {
    pub partition: u32,
    /// Bytes that no row of the region is below; None: from the first row.
    pub from: Option<Box<[u8]>>,
    /// None: up to the last row.
    pub to: Option<Box<[u8]>>,
}

/// Consecutive rows of one partition, as the functions are shown them.
#[derive(Debug)]
pub struct Span {
    /// All of them.
    pub shown: Range<usize>,
    /// Those of the region: the others are there for their frames alone.
    pub own: Range<usize>,
}

/// The regions that `changes` reach, in order; they do not overlap. `rows` are those of before the change.
pub fn regions(
    partition: u32,
    rows: &Multiset,
    changes: &[(Box<[u8]>, Weight)],
    reach: Reach,
    visible: Option<Visible>,
    order: &Order,
) -> Vec<Region> {
    let Some((first, _)) = changes.first() else { return vec![] };
    let all = || vec![Region { partition, from: None, to: None }];
    if let Some(visible) = visible {
        return if is_hidden(rows, first, visible) { vec![] } else { all() };
    }
    // Looking at every row once costs less than looking around each change.
    if changes.len() >= rows.len() {
        return all();
    }
    let mut regions: Vec<Region> = Vec::new();
    for (at, (row, _)) in changes.iter().enumerate() {
        let from = start(rows, changes, at, reach.after, order);
        let to = end(rows, changes, at, reach.before, order);
        match regions.last_mut() {
            // One that is open at its end holds everything that follows.
            Some(Region { to: None, .. }) => break,
            Some(last) if from.as_deref().is_none_or(|from| last.to.as_deref() >= Some(from)) => last.to = to,
            _ => {
                debug_assert!(from.as_deref().is_none_or(|from| from <= &**row));
                regions.push(Region { partition, from, to });
            }
        }
    }
    regions
}

/// Whether everything visible stands before `first`, the first row that changes.
fn is_hidden(rows: &Multiset, first: &[u8], visible: Visible) -> bool {
    let mut last: Option<&[u8]> = None;
    let mut count = Counter::new(visible);
    for (row, weight) in rows.iter() {
        if count.take(row, weight) == 0 {
            // What stands behind the last visible row is not seen, unless it shares its rank.
            return last.is_some_and(|last| {
                first > last && (visible.rank == Rank::RowNumber || !first.starts_with(peers(last)))
            });
        }
        last = Some(row);
    }
    // One more row can become visible, whereever it stands, unless the last has used up all there is.
    match last {
        Some(last) if visible.rank == Rank::RowNumber => count.is_full() && first > last,
        Some(last) => count.is_full() && first > last && !first.starts_with(peers(last)),
        None => false,
    }
}

/// No row whose frame a change at `at` falls into stands before this.
fn start(
    rows: &Multiset,
    changes: &[(Box<[u8]>, Weight)],
    at: usize,
    after: Extent,
    order: &Order,
) -> Option<Box<[u8]>> {
    let row = &*changes[at].0;
    if after.is_all() {
        return None;
    }
    let mut from = row;
    if after.rows > 0 {
        from = nth_unchanged(rows.below(row), changes, after.rows)?;
    }
    if after.peers {
        from = from.min(peers(row));
    }
    if after.groups > 0 {
        from = from.min(nth_unchanged_group(rows.below(peers(row)), changes, after.groups)?);
    }
    let Some(distance) = after.distance else { return Some(from.into()) };
    let far = order.moved(peers(row), distance, Side::Before)?;
    Some(from.min(&far).into())
}

/// Nor behind this.
fn end(
    rows: &Multiset,
    changes: &[(Box<[u8]>, Weight)],
    at: usize,
    before: Extent,
    order: &Order,
) -> Option<Box<[u8]>> {
    let row = &*changes[at].0;
    if before.is_all() {
        return None;
    }
    let behind = || rows.at_least(row).filter(|(r, _)| *r != row);
    let mut to = row;
    if before.rows > 0 {
        to = nth_unchanged(behind(), changes, before.rows)?;
    }
    let mut past = None;
    if before.peers {
        past = Some(above(peers(row))?);
    }
    if before.groups > 0 {
        let group = nth_unchanged_group(rows.at_least(past.as_deref()?), changes, before.groups)?;
        past = Some(above(group)?);
    }
    if let Some(distance) = before.distance {
        let far = above(&order.moved(peers(row), distance, Side::Behind)?)?;
        past = past.max(Some(far));
    }
    Some(past.as_deref().map_or(to, |past| to.max(past)).into())
}

/// The first bytes above all that begin with `bytes`. None: there are none.
fn above(bytes: &[u8]) -> Option<Vec<u8>> {
    let last = bytes.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut above = bytes[..=last].to_vec();
    above[last] += 1;
    Some(above)
}

/// The order's bytes of the `n`th group of `rows`, of those groups that are there before and after.
fn nth_unchanged_group<'a>(
    rows: impl Iterator<Item = (&'a [u8], Weight)>,
    changes: &[(Box<[u8]>, Weight)],
    n: usize,
) -> Option<&'a [u8]> {
    let (mut count, mut last) = (0, None);
    for (row, weight) in rows {
        let group = peers(row);
        if last != Some(group) && weight.min(weight + change_of(row, changes)) > 0 {
            last = Some(group);
            count += 1;
            if count == n {
                return last;
            }
        }
    }
    None
}

fn change_of(row: &[u8], changes: &[(Box<[u8]>, Weight)]) -> Weight {
    changes.binary_search_by(|(changed, _)| (**changed).cmp(row)).map_or(0, |at| changes[at].1)
}

/// The `n`th of `rows`, of those that are there before and after. None: there are not so many.
fn nth_unchanged<'a>(
    rows: impl Iterator<Item = (&'a [u8], Weight)>,
    changes: &[(Box<[u8]>, Weight)],
    n: usize,
) -> Option<&'a [u8]> {
    let mut count = 0;
    for (row, weight) in rows {
        count += usize::try_from(weight.min(weight + change_of(row, changes))).unwrap_or(0);
        if count >= n {
            return Some(row);
        }
    }
    None
}

/// The first row that frames of `region` see, where they reach `before` so far; None if it is the partition's first.
pub fn first_seen<'a>(region: &'a Region, rows: &'a Multiset, before: Extent, order: &'a Order) -> Option<&'a [u8]> {
    let from = region.from.as_deref()?;
    Some(seen(rows.at_least(from).next(), rows.below(from), before, order, Side::Before).last().map_or(from, |r| r.0))
}

/// Of `beside`, the rows on one side of a region, those that frames of the region see: they reach `extent` from `edge`, the region's row on that side.
fn seen<'a>(
    edge: Option<(&'a [u8], Weight)>,
    beside: impl Iterator<Item = (&'a [u8], Weight)>,
    extent: Extent,
    order: &Order,
    side: Side,
) -> impl Iterator<Item = (&'a [u8], Weight)> {
    let edge = edge.map(|(row, _)| peers(row));
    // Without an edge there is no row of the region, and no frame. What cannot be told is seen.
    let far = edge.zip(extent.distance).map(|(edge, distance)| order.moved(edge, distance, side));
    let is_near = move |group: &[u8]| match (&far, side) {
        (None, _) => false,
        (Some(None), _) => true,
        (Some(Some(far)), Side::Before) => group >= far.as_slice(),
        (Some(Some(far)), Side::Behind) => group <= far.as_slice(),
    };
    let (mut count, mut groups, mut last) = (0, 0, edge);
    beside.take_while(move |(row, weight)| {
        let group = peers(row);
        if last != Some(group) {
            groups += 1;
            last = Some(group);
        }
        let is_peer = extent.peers && edge == Some(group);
        let is_seen = count < extent.rows || is_peer || groups <= extent.groups || is_near(group);
        count += usize::try_from(*weight).unwrap_or(0);
        is_seen
    })
}

/// The rows of `region` and those that their frames see, appended to `all`: each as often as it is there. `resumed`: those from there on are enough.
pub fn span<'a>(
    region: &Region,
    rows: &'a Multiset,
    reach: Reach,
    visible: Option<Visible>,
    order: &Order,
    resumed: Option<&[u8]>,
    all: &mut Vec<&'a [u8]>,
) -> Span {
    let begin = all.len();
    let times = |weight: Weight| usize::try_from(weight).unwrap_or(0);
    let repeat = |all: &mut Vec<&'a [u8]>, (row, weight): (&'a [u8], Weight)| {
        all.extend(std::iter::repeat_n(row, times(weight)));
    };
    if let Some(visible) = visible {
        let mut count = Counter::new(visible);
        for (row, weight) in rows.iter() {
            match count.take(row, weight) {
                0 => break,
                taken => all.extend(std::iter::repeat_n(row, taken)),
            }
        }
        return Span { shown: begin..all.len(), own: begin..all.len() };
    }
    match (region.from.as_deref(), resumed) {
        (Some(from), Some(resumed)) => {
            rows.at_least(resumed).take_while(|(row, _)| *row < from).for_each(|row| repeat(all, row));
        }
        (Some(from), None) => {
            let edge = rows.at_least(from).next();
            seen(edge, rows.below(from), reach.before, order, Side::Before).for_each(|row| repeat(all, row));
            all[begin..].reverse();
        }
        (None, _) => {}
    }
    let own = all.len();
    let from = region.from.as_deref().unwrap_or(&[]);
    let mut rest = rows.at_least(from).peekable();
    let mut last = None;
    while let Some(row) = rest.next_if(|(row, _)| region.to.as_deref().is_none_or(|to| *row <= to)) {
        repeat(all, row);
        last = Some(row);
    }
    let own = own..all.len();
    seen(last, rest, reach.after, order, Side::Behind).for_each(|row| repeat(all, row));
    Span { shown: begin..all.len(), own }
}

/// Counts the visible rows of a partition, from its first on.
struct Counter<'a> {
    visible: Visible,
    rows: usize,
    /// Distinct orders so far, and the last.
    groups: usize,
    last: Option<&'a [u8]>,
}

impl<'a> Counter<'a> {
    fn new(visible: Visible) -> Self {
        Counter { visible, rows: 0, groups: 0, last: None }
    }

    /// How many of `weight` equal rows are visible.
    fn take(&mut self, row: &'a [u8], weight: Weight) -> usize {
        let weight = usize::try_from(weight).unwrap_or(0);
        let is_new = self.last != Some(peers(row));
        let most = self.visible.most;
        let taken = match self.visible.rank {
            Rank::RowNumber => weight.min(most.saturating_sub(self.rows)),
            Rank::Rank if is_new && self.rows >= most => 0,
            Rank::DenseRank if is_new && self.groups >= most => 0,
            Rank::Rank | Rank::DenseRank => weight,
        };
        if taken > 0 {
            self.rows += taken;
            self.groups += usize::from(is_new);
            self.last = Some(peers(row));
        }
        taken
    }

    /// Whether a row behind all those taken, and no peer of the last, would not be visible.
    fn is_full(&self) -> bool {
        match self.visible.rank {
            Rank::RowNumber | Rank::Rank => self.rows >= self.visible.most,
            Rank::DenseRank => self.groups >= self.visible.most,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row of the order's value `peers`, and a column that tells it from its peers.
    fn row(peers: u8, column: u8) -> Box<[u8]> {
        [&[peers, column][..], &1u32.to_le_bytes()].concat().into()
    }

    fn rows(rows: &[(u8, u8)]) -> Multiset {
        let mut set = Multiset::default();
        rows.iter().for_each(|(peers, column)| {
            set.add(&row(*peers, *column), 1);
        });
        set
    }

    /// First and last row of each region, and how many rows are looked at, when these rows are inserted.
    fn reached(before: &[(u8, u8)], inserted: &[(u8, u8)], reach: Reach) -> Vec<(Option<u8>, Option<u8>, usize)> {
        let set = rows(before);
        let changes: Vec<_> = inserted.iter().map(|(peers, column)| (row(*peers, *column), 1)).collect();
        let order = Order::new(vec![], &[]).unwrap();
        let regions = regions(0, &set, &changes, reach, None, &order);
        let of = |bytes: &Option<Box<[u8]>>| bytes.as_ref().map(|bytes| bytes[0]);
        let shown = |region: &Region| span(region, &set, reach, None, &order, None, &mut vec![]).shown.len();
        regions.iter().map(|r| (of(&r.from), of(&r.to), shown(r))).collect()
    }

    fn rows_away(rows: usize) -> Extent {
        Extent::rows(rows)
    }

    #[test]
    fn a_row_reaches_those_whose_frame_it_is_in() {
        let ten: Vec<(u8, u8)> = (1..=10).map(|i| (i * 10, 0)).collect();
        let lag = Reach { before: rows_away(1), after: rows_away(0) };
        assert_eq!(
            reached(&ten, &[(45, 0)], lag),
            [(Some(45), Some(50), 2)],
            "itself, the next, and what that looked at"
        );
        let lead = Reach { before: rows_away(0), after: rows_away(2) };
        assert_eq!(reached(&ten, &[(45, 0)], lead), [(Some(30), Some(45), 4)]);
        assert_eq!(reached(&ten, &[(15, 0)], lead), [(None, Some(15), 3)], "there are not two before it");
        assert_eq!(reached(&ten, &[(12, 0), (95, 0)], lag), [(Some(12), Some(20), 2), (Some(95), Some(100), 2)]);
        assert_eq!(reached(&ten, &[(12, 0), (15, 0)], lag), [(Some(12), Some(20), 2)], "what overlaps is one");
        let running = Reach { before: Extent::ALL, after: rows_away(0) };
        assert_eq!(reached(&ten, &[(95, 0)], running), [(Some(95), None, 10)], "all behind it, which look at all");
    }

    #[test]
    fn peers_are_reached_together() {
        let some = [(1, 0), (2, 0), (2, 1), (2, 5), (3, 0), (4, 0)];
        let to_peers = Reach { before: rows_away(0), after: Extent::PEERS };
        assert_eq!(reached(&some, &[(2, 3)], to_peers), [(Some(2), Some(2), 3)]);
        let from_peers = Reach { before: Extent::PEERS, after: rows_away(0) };
        assert_eq!(reached(&some, &[(2, 3)], from_peers), [(Some(2), Some(3), 3)], "all below 3");
    }

    #[test]
    fn behind_the_visible_rows_nothing_is_looked_at() {
        let some = rows(&[(1, 0), (2, 0), (2, 1), (3, 0)]);
        let reached = |rank, most, inserted: (u8, u8)| {
            let visible = Some(Visible { rank, most });
            let changes = [(row(inserted.0, inserted.1), 1)];
            let order = Order::new(vec![], &[]).unwrap();
            let regions = regions(0, &some, &changes, Reach::ALL, visible, &order);
            regions.first().map(|region| span(region, &some, Reach::ALL, visible, &order, None, &mut vec![]).own.len())
        };
        assert_eq!(reached(Rank::RowNumber, 2, (2, 1)), None);
        assert_eq!(reached(Rank::RowNumber, 2, (1, 7)), Some(2));
        assert_eq!(reached(Rank::RowNumber, 4, (9, 0)), None);
        assert_eq!(reached(Rank::RowNumber, 5, (9, 0)), Some(4), "there is room for it");
        assert_eq!(reached(Rank::Rank, 2, (2, 7)), Some(3), "a peer of the last visible row is visible");
        assert_eq!(reached(Rank::Rank, 2, (3, 0)), None);
        assert_eq!(reached(Rank::DenseRank, 3, (4, 0)), None);
        assert_eq!(reached(Rank::DenseRank, 3, (3, 1)), Some(4));
        assert_eq!(reached(Rank::RowNumber, 0, (1, 0)), Some(0));
    }
}
