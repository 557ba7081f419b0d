//! Random sequences of everything a table can do, against a multiset.

use super::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Case {
    table: Table,
    lake: Lake,
    staged: Model,
    committed: Model,
    /// Content at each version that changed data.
    history: BTreeMap<i64, Model>,
    vacuumed: bool,
    /// Somebody else's view of it, and the sum of the changes that were reported there.
    reader: (FollowedTable, Model),
}

fn random_model(rng: &mut ChaCha8Rng) -> Model {
    let mut model = Model::new();
    for _ in 0..rng.random_range(0..60) {
        *model.entry(rng.random_range(0..40)).or_default() += 1;
    }
    model
}

fn keys(model: &Model) -> Vec<i64> {
    model.iter().flat_map(|(k, n)| std::iter::repeat_n(*k, *n as usize)).collect()
}

/// Changes that keep every count at 0 or more; some cancel.
fn random_changes(rng: &mut ChaCha8Rng, model: &Model) -> Vec<(i64, i64)> {
    let mut now = model.clone();
    let mut changes = Vec::new();
    for _ in 0..rng.random_range(1..25) {
        let key = rng.random_range(0..40);
        let count = now.entry(key).or_default();
        let weight =
            if *count > 0 && rng.random_bool(0.55) { -rng.random_range(1..=*count) } else { rng.random_range(1..4) };
        *count += weight;
        changes.push((key, weight));
    }
    changes
}

fn apply(model: &mut Model, changes: &[(i64, i64)]) {
    for (key, weight) in changes {
        *model.entry(*key).or_default() += weight;
    }
    model.retain(|_, n| *n != 0);
}

fn sum(delta: &[SignedBatch]) -> Model {
    let mut model = Model::new();
    for batch in delta {
        let keys = batch.rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().values().to_vec();
        model_of(std::slice::from_ref(&batch.rows));
        for (i, key) in keys.into_iter().enumerate() {
            *model.entry(key).or_default() += batch.weight(i);
        }
    }
    model.retain(|_, n| *n != 0);
    model
}

impl Case {
    /// The reader looks at what was committed since it last did.
    async fn look(&mut self) {
        let (followed, known) = &mut self.reader;
        match followed.advance().await {
            Ok(changes) => apply(known, &sum(&changes).into_iter().collect::<Vec<_>>()),
            Err(e) => {
                assert!(self.vacuumed && e.code() == "history-gone", "{e:?}");
                *followed = self.lake.follow("s", "t").await.unwrap();
                *known = self.committed.clone();
            }
        }
        let table = followed.table().unwrap();
        assert_eq!(table.version(), self.table.version());
        assert_eq!(content(table).await, self.committed);
        assert_eq!(*known, self.committed);
    }

    async fn step(&mut self, rng: &mut ChaCha8Rng, env: &Env) {
        if rng.random_bool(0.15) {
            self.look().await;
        }
        match rng.random_range(0..100) {
            0..35 => {
                let changes = random_changes(rng, &self.staged);
                let half = rng.random_range(0..=changes.len());
                self.table.stage(&[signed(&changes[..half]), signed(&changes[half..])]).await.unwrap();
                apply(&mut self.staged, &changes);
            }
            35..60 => {
                let changed = self.table.has_staged();
                let version = self.table.commit(instance(1)).await.unwrap();
                self.committed = self.staged.clone();
                if changed {
                    self.history.insert(version, self.committed.clone());
                }
                self.table.start_maintenance();
            }
            60..67 => {
                self.table.discard();
                self.staged = self.committed.clone();
            }
            67..77 => {
                let wanted = random_model(rng);
                let delta = self.table.diff(stream(vec![rows(&keys(&wanted))])).await.unwrap();
                let mut after = self.staged.clone();
                apply(&mut after, &sum(&delta).into_iter().collect::<Vec<_>>());
                assert_eq!(after, wanted);
                self.table.stage(&delta).await.unwrap();
                self.staged = wanted;
            }
            77..80 => {
                let wanted = random_model(rng);
                let all = rows(&keys(&wanted));
                self.table.replace(row_schema(), BTreeMap::new(), stream(vec![all])).await.unwrap();
                self.staged = wanted;
            }
            80..84 => {
                self.table = self.lake.table("s", "t").await.unwrap().unwrap();
                self.staged = self.committed.clone();
            }
            84..90 => {
                // A compaction that started before later commits.
                while self.table.is_maintaining() && !self.table.has_staged() {
                    self.table.finish_maintenance().await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            90..95 if !self.table.has_staged() => match rng.random_range(0..3) {
                0 => drop(self.table.optimize().await.unwrap()),
                1 => self.table.checkpoint().await.unwrap(),
                _ => {
                    env.advance(2 * 3600 * 1_000_000);
                    self.table.vacuum(true).await.unwrap();
                    self.vacuumed = true;
                }
            },
            _ => {
                if let (Some((from, before)), Some((to, after))) =
                    (self.history.first_key_value(), self.history.last_key_value())
                {
                    let changes = match self.table.changes(*from, *to).await {
                        Ok(changes) => changes,
                        Err(e) => {
                            assert!(self.vacuumed && e.code() == "history-gone", "{e:?}");
                            self.history.clear();
                            return;
                        }
                    };
                    let mut now = before.clone();
                    apply(&mut now, &sum(&changes).into_iter().collect::<Vec<_>>());
                    assert_eq!(now, *after);
                }
            }
        }
    }
}

async fn run(seed: u64, deletion_vectors: bool, partition: Option<&str>, lake: Lake, env: &Env, steps: usize) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut spec = spec(deletion_vectors);
    spec.partition_by = partition.map(str::to_string).into_iter().collect();
    let mut reader = (lake.follow("s", "t").await.unwrap(), Model::new());
    assert!(reader.0.table().is_none());
    let table = lake.create_table("s", "t", spec).await.unwrap();
    if seed.is_multiple_of(2) {
        assert!(reader.0.advance().await.unwrap().is_empty());
    }
    let mut case = Case {
        reader,
        table,
        lake,
        staged: Model::new(),
        committed: Model::new(),
        history: BTreeMap::from([(0, Model::new())]),
        vacuumed: false,
    };
    for step in 0..steps {
        case.step(&mut rng, env).await;
        case.table.put_locator_away(false).unwrap();
        assert_eq!(content(&case.table).await, case.staged, "seed {seed}, step {step}");
        let committed: Vec<_> = case.table.committed_snapshot().rows().try_collect().await.unwrap();
        assert_eq!(model_of(&committed), case.committed, "seed {seed}, step {step}, committed");
        if step % 10 == 9 {
            // What a reader without our memory finds.
            let other = case.lake.table("s", "t").await.unwrap().unwrap();
            assert_eq!(other.version(), case.table.version());
            assert_eq!(content(&other).await, case.committed, "seed {seed}, step {step}, read from the log");
            assert_eq!(other.state.tombstones.len(), case.table.state.tombstones.len(), "seed {seed}, step {step}");
        }
    }
}

#[tokio::test]
async fn with_deletion_vectors() {
    for seed in 0..12 {
        let world = World::new(seed);
        run(seed, true, None, world.lake(), &world.env, 80).await;
    }
}

#[tokio::test]
async fn with_rewritten_files() {
    for seed in 100..108 {
        let world = World::new(seed);
        run(seed, false, None, world.lake(), &world.env, 80).await;
    }
}

#[tokio::test]
async fn partitioned() {
    for (seed, column) in [(200, "name"), (201, "day"), (202, "at"), (203, "amount"), (204, "day"), (205, "name")] {
        let world = World::new(seed);
        run(seed, seed % 2 == 0, Some(column), world.lake(), &world.env, 60).await;
    }
}

#[tokio::test]
async fn on_local_files() {
    for seed in 300..303 {
        let dir = tempfile::tempdir().unwrap();
        let world = World::new(seed);
        let options = LakeOptions { fsync: false, codec: Codec::Snappy, ..LakeOptions::default() };
        let lake = Lake::open(&world.env, dir.path().to_str().unwrap(), options).unwrap();
        run(seed, true, None, lake, &world.env, 60).await;
    }
}

#[tokio::test]
async fn with_locators_on_disk() {
    for seed in 500..512 {
        let world = World::new(seed);
        run(seed, seed % 3 > 0, None, world.lake_with((seed as usize % 2) * 6_000), &world.env, 80).await;
    }
}

#[tokio::test]
async fn while_the_store_fails_now_and_then() {
    for seed in 400..410 {
        let world = World::new(seed);
        let lake = if seed % 2 == 0 { world.lake() } else { world.lake_with(0) };
        let mut table = lake.create_table("s", "t", spec(true)).await.unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut model = Model::new();
        for _ in 0..40 {
            let changes = random_changes(&mut rng, &model);
            world.store.set_plan(FaultPlan {
                seed: rng.random(),
                error_rate: 0.05,
                timeout_rate: 0.05,
                late_rate: 0.05,
                late_after: rng.random_range(0..4),
                ..FaultPlan::default()
            });
            let mut after = model.clone();
            apply(&mut after, &changes);
            let before = table.version();
            let outcome = match table.stage(&[signed(&changes)]).await {
                Ok(_) => table.commit(instance(1)).await,
                Err(e) => Err(e),
            };
            world.store.set_plan(FaultPlan::default());
            world.store.land_late().await;
            match outcome {
                Ok(version) => {
                    assert_eq!(version, before + 1);
                    model = after;
                }
                Err(_) => {
                    // As the runtime does: read the log again; the commit is there as a whole or not at all.
                    table.discard();
                    table.reload().await.unwrap();
                    let landed = table.version() > before;
                    if landed {
                        model = after;
                    }
                }
            }
            table.put_locator_away(false).unwrap();
            assert_eq!(content(&table).await, model, "seed {seed}");
        }
    }
}
