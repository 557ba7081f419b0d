//! Who makes the traffic: users with their phones, devices, homes and contacts, and the network's cell sites. Made once
//! per run from the seed; small (the traffic over it streams).
//!
//! The reference data is loaded twice: the second load has every row again, with a tenth of the users and three sites
//! changed. Gold shows the second.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::digest::md5_hex;
use super::names::{CITIES, DEVICES, LAST_NAMES, MEN, WOMEN};
use super::options::Options;
use super::quota::Urn;

/// How many cell sites change between the two loads.
const CHANGED_SITES: u64 = 3;

/// One user of the reference data, and what the traffic knows about him.
#[derive(Debug, Clone)]
pub struct User {
    /// 11 digits, national.
    pub phone: String,
    /// `+20` and 10 digits.
    pub e164: String,
    /// md5 of [`User::e164`]: `dim_user.user_id`.
    pub user_id: String,
    pub first_name: &'static str,
    pub last_name: &'static str,
    pub sex: &'static str,
    pub age: u32,
    pub customer_id: u64,
    pub plan_type: &'static str,
    /// Active, Inactive or Suspended. Only active users send.
    pub status: &'static str,
    /// In the first and the second load.
    pub city: [&'static str; 2],
    pub email: [String; 2],
    pub imei: String,
    /// Index of the cell site the user is mostly at.
    pub home: usize,
    /// As message records carry it: mostly `YYYY-MM-DD`, from one old system `DD-MM-YYYY`.
    pub registration_text: String,
    /// The same as `YYYY-MM-DD`.
    pub registration_date: String,
    /// 5 to 15 others, by index.
    pub contacts: Vec<u32>,
}

/// One cell site.
#[derive(Debug, Clone)]
pub struct CellSite {
    pub cell_id: String,
    pub site_id: String,
    pub city: &'static str,
    pub site_name: String,
    /// Latitude and longitude in millionths of a degree, in the first and the second load.
    pub position: [(i64, i64); 2],
}

/// Everybody and everything the traffic refers to.
#[derive(Debug, Clone)]
pub struct Population {
    pub users: Vec<User>,
    pub sites: Vec<CellSite>,
    /// md5 of each code of [`DEVICES`]: `dim_device_tac.tac_id`.
    pub tac_ids: Vec<String>,
    /// Active users by index, and the running sum of their activity weights.
    active: Vec<(u32, u64)>,
    phone_shift: u64,
}

impl Population {
    /// The population that `options` and their seed make.
    pub fn new(options: &Options) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
        let phone_shift = rng.random_range(0..PHONES);
        let sites = cell_sites(&mut rng);
        let users = users(options, phone_shift, &sites, &mut rng);
        let mut ranked: Vec<u32> = (0..users.len() as u32).filter(|i| users[*i as usize].status == "Active").collect();
        ranked.shuffle(&mut rng);
        let mut sum = 0;
        let active = ranked
            .into_iter()
            .enumerate()
            .map(|(rank, user)| {
                sum += activity(rank);
                (user, sum)
            })
            .collect();
        let tac_ids = DEVICES.iter().map(|(code, ..)| md5_hex(code.as_bytes())).collect();
        Population { users, sites, tac_ids, active, phone_shift }
    }

    /// An active user: the busiest are drawn most often.
    pub fn draw_active(&self, rng: &mut impl Rng) -> usize {
        let total = self.active.last().map_or(1, |(_, sum)| *sum);
        let ball = rng.random_range(0..total);
        let at = self.active.partition_point(|(_, sum)| *sum <= ball);
        self.active.get(at).map_or(0, |(user, _)| *user as usize)
    }

    /// The `n`-th valid phone number that no user has.
    pub fn stranger(&self, n: u64) -> String {
        phone(self.users.len() as u64 + n, self.phone_shift)
    }
}

/// Activity falls with the rank as 1/(rank + 10)^0.9, so there are hot keys. In millionths: rounding to whole numbers
/// keeps the last bit of a platform's `powf` out of the bytes.
fn activity(rank: usize) -> u64 {
    ((rank as f64 + 10.0).powf(-0.9) * 1e6).round().max(1.0) as u64
}

/// Valid phone numbers: four prefixes and 8 digits.
const PHONES: u64 = 400_000_000;

/// The `n`-th phone number: an affine walk through all of them (the step is coprime to their number), so no two are equal.
fn phone(n: u64, shift: u64) -> String {
    let number = (n % PHONES * 246_813_579 + shift) % PHONES;
    let prefix = ["010", "011", "012", "015"][(number / 100_000_000) as usize];
    format!("{prefix}{:08}", number % 100_000_000)
}

fn cell_sites(rng: &mut ChaCha8Rng) -> Vec<CellSite> {
    let total: u32 = CITIES.iter().map(|c| c.3).sum();
    let mut moved = Urn::new(vec![u64::from(total) - CHANGED_SITES, CHANGED_SITES]);
    let mut sites = Vec::with_capacity(total as usize);
    for (city, latitude, longitude, count) in CITIES {
        for n in 1..=count {
            let cell_id = format!("CELL{:05}", sites.len() + 1);
            let near = |degrees: f64, rng: &mut ChaCha8Rng| {
                (degrees * 1e6).round() as i64 + rng.random_range(-30_000..=30_000)
            };
            let first = (near(latitude, rng), near(longitude, rng));
            // A tower that was moved a few streets.
            let second = match moved.draw(rng) {
                0 => first,
                _ => (first.0 + rng.random_range(500..2000), first.1 - rng.random_range(500..2000)),
            };
            sites.push(CellSite {
                site_id: md5_hex(cell_id.as_bytes()),
                cell_id,
                city,
                site_name: format!("{}_Tower_{n}", city.replace(' ', "")),
                position: [first, second],
            });
        }
    }
    sites
}

fn users(options: &Options, phone_shift: u64, sites: &[CellSite], rng: &mut ChaCha8Rng) -> Vec<User> {
    let total = u64::from(options.users);
    let mut plans = Urn::of_shares(total, &[60, 40]);
    let mut statuses = Urn::of_shares(total, &[92, 5, 3]);
    let mut devices = Urn::of_shares(total, &DEVICES.map(|d| d.2));
    let mut changed = Urn::of_shares(total, &[9, 1]);
    (0..total)
        .map(|n| {
            let phone = phone(n, phone_shift);
            let e164 = format!("+2{phone}");
            let (sex, names) = if rng.random_bool(0.5) { ("female", WOMEN) } else { ("male", MEN) };
            let first_name = names[rng.random_range(0..names.len())];
            let last_name = LAST_NAMES[rng.random_range(0..LAST_NAMES.len())];
            let home = rng.random_range(0..sites.len());
            let city = sites[home].city;
            let mailbox = format!("{}.{}", first_name.to_lowercase(), last_name.to_lowercase());
            let email = format!("{mailbox}@example.com");
            // Between the loads a changed user moves; every second one also changes the mail provider.
            let change = changed.draw(rng) == 1;
            let moved_to = other_city(city, rng);
            let second_email = if change && n % 2 == 0 { format!("{mailbox}@mail.example.net") } else { email.clone() };
            let registered = options.start - rng.random_range(1..=730) * 86_400;
            let registered = chrono::DateTime::from_timestamp(registered, 0).unwrap_or_default();
            let registration_date = registered.format("%Y-%m-%d").to_string();
            User {
                user_id: md5_hex(e164.as_bytes()),
                phone,
                e164,
                first_name,
                last_name,
                sex,
                age: rng.random_range(18..=65),
                customer_id: 1001 + n,
                plan_type: ["Prepaid", "Postpaid"][plans.draw(rng)],
                status: ["Active", "Inactive", "Suspended"][statuses.draw(rng)],
                city: [city, if change { moved_to } else { city }],
                email: [email, second_email],
                imei: format!("{}{:07}", DEVICES[devices.draw(rng)].0, rng.random_range(0..10_000_000)),
                home,
                registration_text: match n % 20 {
                    0 => registered.format("%d-%m-%Y").to_string(),
                    _ => registration_date.clone(),
                },
                registration_date,
                contacts: contacts(n as u32, options.users, rng),
            }
        })
        .collect()
}

fn other_city(city: &str, rng: &mut ChaCha8Rng) -> &'static str {
    let at = rng.random_range(0..CITIES.len());
    if CITIES[at].0 == city { CITIES[(at + 1) % CITIES.len()].0 } else { CITIES[at].0 }
}

fn contacts(user: u32, users: u32, rng: &mut ChaCha8Rng) -> Vec<u32> {
    let wanted = rng.random_range(5..=15);
    let mut contacts = Vec::with_capacity(wanted);
    while contacts.len() < wanted {
        let other = rng.random_range(0..users);
        if other != user && !contacts.contains(&other) {
            contacts.push(other);
        }
    }
    contacts
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_reference_population_has_its_figures() {
        let population = Population::new(&Options::default());
        assert_eq!((population.users.len(), population.sites.len(), population.tac_ids.len()), (500, 83, 5));
        let phones: BTreeSet<_> = population.users.iter().map(|u| &u.phone).collect();
        assert_eq!(phones.len(), 500);
        assert!(phones.iter().all(|p| p.len() == 11 && ["010", "011", "012", "015"].contains(&&p[..3])));
        let changed = population.users.iter().filter(|u| u.city[0] != u.city[1] || u.email[0] != u.email[1]).count();
        assert_eq!(changed, 50);
        assert_eq!(population.sites.iter().filter(|s| s.position[0] != s.position[1]).count(), 3);
        assert_eq!(population.users.iter().filter(|u| u.status == "Inactive").count(), 25);
        assert_eq!(population.users.iter().filter(|u| u.plan_type == "Prepaid").count(), 300);
        for (n, user) in population.users.iter().enumerate() {
            assert_eq!((user.customer_id, user.imei.len()), (1001 + n as u64, 15));
            assert!((5..=15).contains(&user.contacts.len()) && !user.contacts.contains(&(n as u32)));
        }
        assert!((0..1000).all(|n| !phones.contains(&population.stranger(n))));
    }

    #[test]
    fn only_active_users_are_drawn_and_there_are_hot_ones() {
        let population = Population::new(&Options::default());
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut drawn = vec![0u32; 500];
        for _ in 0..50_000 {
            drawn[population.draw_active(&mut rng)] += 1;
        }
        assert!(population.users.iter().zip(&drawn).all(|(u, n)| u.status == "Active" || *n == 0));
        drawn.sort_unstable();
        assert!(drawn[499] > 8 * drawn[250], "hottest {} against median {}", drawn[499], drawn[250]);
    }
}
