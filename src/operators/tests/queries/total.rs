//! Orders that leave nothing open, for engines that break ties in other ways: all columns of the relation are keys of it.
//!
//! What depends on rows that are equal in an order (ranks, frames of peers) then has windows of its own, with calls that give all
//! peers the same.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

use super::super::tables::Kind;
use super::{Column, Generator, Readable};

impl<'a> Generator<'a> {
    /// Queries over `readable` whose orders are total, as long as no column is nested.
    pub fn in_total_order(readable: Vec<Readable>, rng: &'a mut ChaCha8Rng) -> Self {
        Generator { total: true, ..Generator::over(readable, rng) }
    }

    /// `keys`, and all columns if orders are to be total.
    pub(super) fn in_total(&self, keys: Vec<String>, columns: &[Column]) -> String {
        let all = columns.iter().filter(|(_, kind)| self.total && !kind.is_nested()).map(|(name, _)| name.clone());
        keys.into_iter().chain(all).collect::<Vec<_>>().join(", ")
    }

    /// All columns but `key` behind a comma each, if orders are to be total.
    pub(super) fn total_but(&self, columns: &[Column], key: &str) -> Option<String> {
        let others = columns.iter().filter(|(name, kind)| name != key && !kind.is_nested());
        self.total.then(|| others.map(|(name, _)| format!(", {name}")).collect())
    }

    /// An order with peers, a call of integers that is the same for all of them, and a frame. Now and then, mostly if orders are to be total.
    pub(super) fn among_peers(&mut self, columns: &[Column]) -> Option<(String, String, &'static str)> {
        if !self.rng.random_bool(if self.total { 0.4 } else { 0.15 }) {
            return None;
        }
        let kind = columns.iter().map(|(_, kind)| *kind).filter(|k| !k.is_nested()).collect::<Vec<_>>();
        let kind = kind.choose(self.rng).copied().unwrap_or(Kind::Int);
        let direction = ["", " desc", " desc nulls last", " nulls first"].choose(self.rng).unwrap();
        let order = format!("{}{direction}", self.expr(columns, kind));
        let int = self.expr(columns, Kind::Int);
        if self.rng.random_bool(0.4) {
            let call = ["rank()", "dense_rank()"].choose(self.rng).unwrap().to_string();
            return Some((order, call, ""));
        }
        let call = match self.rng.random_range(0..3) {
            0 => format!("sum({int})"),
            1 => format!("max({int})"),
            _ => "count(*)".to_string(),
        };
        let distances: &[&str] = match kind {
            Kind::Int | Kind::Float | Kind::Decimal => &[
                " range between 2 preceding and 1 following",
                " range between 3 preceding and current row",
                " range between 1 following and 4 following",
                " range between 3 preceding and 1 preceding",
            ],
            Kind::Time => &[
                " range between interval '90 minutes' preceding and current row",
                " range between interval '1 day' preceding and interval '1 hour' following",
            ],
            Kind::Day => &[" range between interval '2 days' preceding and interval '1 day' following"],
            _ => &[],
        };
        if let Some(frame) = distances.choose(self.rng).filter(|_| self.rng.random_bool(0.4)) {
            return Some((order, call, *frame));
        }
        let frames = [
            "",
            " range between unbounded preceding and current row",
            " groups between 1 preceding and current row",
            " groups between 1 preceding and 2 following",
            " range between current row and unbounded following",
            " range between current row and current row",
        ];
        Some((order, call, frames.choose(self.rng).unwrap()))
    }
}
