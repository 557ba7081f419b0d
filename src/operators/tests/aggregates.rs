//! Aggregates: every function there is, under every change, against stock execution.

mod append_only;
mod costs;
mod floats;
mod registry;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::cases::Case;
use super::oracle::{failing, seeds};
use super::queries::Generator;

/// An aggregation, plain or over another query.
fn random(seed: u64) -> Case {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xa99);
    let depth = usize::from(rng.random_bool(0.2));
    let sql = Generator::new(&mut rng).any_aggregate(depth).sql;
    Case::of(seed, sql, &mut rng)
}

#[test]
fn aggregates_equal_their_query_after_every_epoch() {
    let seeds = seeds("0..60");
    let count = (seeds.end - seeds.start) as usize;
    let (failed, maintained) = failing(seeds.map(random));
    println!("{maintained} of {count} aggregations were maintained");
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
    assert!(maintained * 100 >= count * 95, "only {maintained} of {count} aggregations were maintained");
}
