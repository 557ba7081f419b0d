//! Work by several threads at once.

use crate::error::{Error, Result};

/// The results of `work` for every lot, each by a thread of its own; one alone needs none.
pub fn in_threads<T: Send, R: Send>(lots: Vec<T>, work: impl Fn(T) -> R + Sync) -> Result<Vec<R>> {
    if lots.len() <= 1 {
        return Ok(lots.into_iter().map(work).collect());
    }
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = lots.into_iter().map(|lot| scope.spawn(move || work(lot))).collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended.map(|result| result.map_err(|_| Error::internal("work in a thread panicked"))).collect()
    })
}

/// `work` dealt out in turn to at most `lots` lots.
pub fn dealt_out<T>(work: impl IntoIterator<Item = T>, lots: usize) -> Vec<Vec<T>> {
    let mut dealt: Vec<Vec<T>> = Vec::new();
    for (i, work) in work.into_iter().enumerate() {
        match dealt.get_mut(i % lots.max(1)) {
            Some(lot) => lot.push(work),
            None => dealt.push(vec![work]),
        }
    }
    dealt
}
