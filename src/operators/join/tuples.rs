//! Rows of a join before their columns are gathered: one row id per input.

use crate::state::NONE;
use crate::types::Weight;

/// Signed tuples of row ids, by column.
pub(super) struct Tuples {
    pub base: Vec<u32>,
    /// By arm; empty while the arm is not expanded, [`NONE`] for the NULL row.
    pub arms: Vec<Vec<u32>>,
    pub weights: Vec<Weight>,
}

impl Tuples {
    pub fn new(arms: usize) -> Self {
        Tuples { base: vec![], arms: vec![vec![]; arms], weights: vec![] }
    }

    /// Base rows alone.
    pub fn of_base(rows: Vec<(u32, Weight)>, arms: usize) -> Self {
        let (base, weights) = rows.into_iter().unzip();
        Tuples { base, arms: vec![vec![]; arms], weights }
    }

    pub fn len(&self) -> usize {
        self.base.len()
    }

    pub fn is_empty(&self) -> bool {
        self.base.is_empty()
    }

    /// Adds a tuple of which only the base and `arm` are known.
    pub fn push(&mut self, base: u32, arm: usize, row: u32, weight: Weight) {
        self.base.push(base);
        self.arms[arm].push(row);
        self.weights.push(weight);
    }

    /// The tuples at `picked`, which can repeat.
    pub fn pick(&self, picked: &[u32]) -> Self {
        let ids = |column: &Vec<u32>| -> Vec<u32> {
            if column.is_empty() { vec![] } else { picked.iter().map(|i| column[*i as usize]).collect() }
        };
        Tuples {
            base: ids(&self.base),
            arms: self.arms.iter().map(ids).collect(),
            weights: picked.iter().map(|i| self.weights[*i as usize]).collect(),
        }
    }

    /// All parts as one. Different tuples of ids are different rows, so what is netted out here need never be gathered; within
    /// one part nothing can net out.
    pub fn consolidated(mut parts: Vec<Tuples>) -> Option<Tuples> {
        if parts.len() <= 1 {
            return parts.pop();
        }
        let all = Tuples::one_after_the_other(parts.into_iter())?;
        let mut order: Vec<u32> = (0..all.len() as u32).collect();
        let key = |i: u32| (all.base[i as usize], all.arms.iter().map(move |c| c[i as usize]));
        order.sort_unstable_by(|a, b| {
            let ((a, a_arms), (b, b_arms)) = (key(*a), key(*b));
            a.cmp(&b).then_with(|| a_arms.cmp(b_arms))
        });
        let same = |a: u32, b: u32| key(a).0 == key(b).0 && key(a).1.eq(key(b).1);
        let mut kept: Vec<u32> = Vec::new();
        let mut weights: Vec<Weight> = Vec::new();
        for i in order {
            match (kept.last(), weights.last_mut()) {
                (Some(last), Some(weight)) if same(*last, i) => *weight += all.weights[i as usize],
                _ => {
                    kept.push(i);
                    weights.push(all.weights[i as usize]);
                }
            }
        }
        let mut netted = all.pick(&kept);
        netted.weights = weights;
        let left: Vec<u32> = (0..netted.len() as u32).filter(|i| netted.weights[*i as usize] != 0).collect();
        if left.len() < netted.len() {
            netted = netted.pick(&left);
        }
        (!netted.is_empty()).then_some(netted)
    }

    /// The tuples in at most so many parts, one after the other.
    pub fn divided(self, parts: usize) -> Vec<Tuples> {
        if parts <= 1 {
            return vec![self];
        }
        let each = self.len().div_ceil(parts).max(1);
        let part = |from: usize| {
            let range = from..self.len().min(from + each);
            let ids = |column: &Vec<u32>| column.get(range.clone()).map_or(vec![], <[u32]>::to_vec);
            Tuples {
                base: ids(&self.base),
                arms: self.arms.iter().map(ids).collect(),
                weights: self.weights[range.clone()].to_vec(),
            }
        };
        (0..self.len()).step_by(each).map(part).collect()
    }

    /// All parts as one; all of them have the same columns.
    pub fn one_after_the_other(parts: impl Iterator<Item = Tuples>) -> Option<Tuples> {
        parts.reduce(|mut all, part| {
            all.base.extend(part.base);
            all.weights.extend(part.weights);
            all.arms.iter_mut().zip(part.arms).for_each(|(column, more)| column.extend(more));
            all
        })
    }

    /// Sets `arm`'s column.
    pub fn with_arm(mut self, arm: usize, rows: Vec<u32>) -> Self {
        debug_assert!(rows.iter().all(|r| *r == NONE || *r < NONE - 1));
        self.arms[arm] = rows;
        self
    }
}
