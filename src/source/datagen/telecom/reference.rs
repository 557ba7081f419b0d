//! The reference data as files: users, cell sites and device codes, each loaded twice. The second load has every row again
//! with what has changed in between.

use serde_json::{Value, json};

use super::names::DEVICES;
use super::population::Population;

/// One load of one kind of reference data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceFile {
    /// `event_users`, `cell_sites` or `device_tacs`: the folder, and the entity in models.
    pub entity: &'static str,
    /// `load-1.ndjson` or `load-2.ndjson`: the first load sorts first.
    pub name: String,
    /// One JSON object per line.
    pub content: String,
}

/// Both loads of everything, by entity and then by load.
pub fn files(population: &Population) -> Vec<ReferenceFile> {
    let mut files = Vec::with_capacity(6);
    for entity in ["cell_sites", "device_tacs", "event_users"] {
        for load in 0..2 {
            let rows: Vec<String> = match entity {
                "cell_sites" => cell_sites(population, load),
                "device_tacs" => DEVICES
                    .iter()
                    .map(|(code, manufacturer, _)| json!({"tac_code": code, "manufacturer": manufacturer}).to_string())
                    .collect(),
                _ => users(population, load),
            };
            let content = rows.join("\n") + "\n";
            files.push(ReferenceFile { entity, name: format!("load-{}.ndjson", load + 1), content });
        }
    }
    files
}

fn users(population: &Population, load: usize) -> Vec<String> {
    let row = |u: &super::population::User| -> Value {
        json!({
            "phone_number": u.phone,
            "first_name": u.first_name,
            "last_name": u.last_name,
            "sex": u.sex,
            "age": u.age,
            "email": u.email[load],
            "city": u.city[load],
            "customer_id": u.customer_id,
            "plan_type": u.plan_type,
            "status": u.status,
        })
    };
    population.users.iter().map(|u| row(u).to_string()).collect()
}

fn cell_sites(population: &Population, load: usize) -> Vec<String> {
    population
        .sites
        .iter()
        .map(|s| {
            // Written as text: the shortest form of a float would drop zeros, and all six digits are the datum.
            let (latitude, longitude) = s.position[load];
            format!(
                r#"{{"cell_id":"{}","city":"{}","site_name":"{}","latitude":{},"longitude":{}}}"#,
                s.cell_id,
                s.city,
                s.site_name,
                degrees(latitude),
                degrees(longitude)
            )
        })
        .collect()
}

/// Millionths of a degree as decimal text with six digits.
pub fn degrees(millionths: i64) -> String {
    let sign = if millionths < 0 { "-" } else { "" };
    format!("{sign}{}.{:06}", millionths.abs() / 1_000_000, millionths.abs() % 1_000_000)
}
