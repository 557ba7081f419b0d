//! The tables that do not stream by: reference data, dimensions, and the marts over the totals. Each is spelled out here
//! once more, beside the sample project's SQL, so that neither can be wrong alone.

use chrono::Datelike;
use std::collections::{BTreeMap, BTreeSet};

use super::digest::TableDigest;
use super::manifest::{TableManifest, UserDayTotals, UserTotals, date_key, date_of};
use super::names::DEVICES;
use super::population::Population;
use super::reference;

const USER: [&str; 8] = ["user_id", "first_name", "last_name", "phone_number", "city", "email", "sex", "operator"];
const TOTALS: [&str; 4] = ["calls", "messages", "seconds", "amount"];

fn table<'a>(columns: &[&str], rows: impl Iterator<Item = Vec<&'a str>>) -> TableManifest {
    let mut digest = TableDigest::default();
    for row in rows {
        digest.add_columns(&row);
    }
    TableManifest::new(columns, digest)
}

/// Bronze, silver and dimensions of users, cell sites and devices.
pub(super) fn reference_tables(population: &Population) -> BTreeMap<String, TableManifest> {
    let mut tables = BTreeMap::new();
    for file in reference::files(population).chunk_by(|a, b| a.entity == b.entity) {
        let lines = file.iter().flat_map(|f| f.content.lines()).map(|line| vec![line]);
        tables.insert(format!("bronze_{}", file[0].entity), table(&["raw_data"], lines));
    }

    let customer_ids: Vec<[String; 2]> =
        population.users.iter().map(|u| [u.age.to_string(), u.customer_id.to_string()]).collect();
    let users = population.users.iter().zip(&customer_ids).map(|(u, [age, customer_id])| {
        vec![
            u.phone.as_str(),
            u.e164.as_str(),
            u.first_name,
            u.last_name,
            u.email[1].as_str(),
            u.sex,
            age,
            u.city[1],
            customer_id,
            u.plan_type,
            u.status,
        ]
    });
    let columns = [
        "phone_number",
        "phone_e164",
        "first_name",
        "last_name",
        "email",
        "sex",
        "age",
        "city",
        "customer_id",
        "plan_type",
        "status",
    ];
    tables.insert("silver_event_users".into(), table(&columns, users));
    tables.insert("dim_user".into(), table(&USER, (0..population.users.len()).map(|i| user_row(population, i))));

    let positions: Vec<[String; 2]> = population
        .sites
        .iter()
        .map(|s| [reference::degrees(s.position[1].0), reference::degrees(s.position[1].1)])
        .collect();
    let sites = || population.sites.iter().zip(&positions);
    let silver = sites()
        .map(|(s, [latitude, longitude])| vec![s.cell_id.as_str(), s.city, s.site_name.as_str(), latitude, longitude]);
    let columns = ["site_id", "cell_id", "city", "site_name", "latitude", "longitude"];
    tables.insert("silver_cell_sites".into(), table(&columns[1..], silver));
    let gold = sites().map(|(s, [latitude, longitude])| {
        vec![s.site_id.as_str(), s.cell_id.as_str(), s.city, s.site_name.as_str(), latitude, longitude]
    });
    tables.insert("dim_cell_site".into(), table(&columns, gold));

    let silver = DEVICES.iter().map(|(code, manufacturer, _)| vec![*code, *manufacturer]);
    tables.insert("silver_device_tacs".into(), table(&["tac_code", "manufacturer"], silver));
    let gold = DEVICES
        .iter()
        .zip(&population.tac_ids)
        .map(|((code, manufacturer, _), tac_id)| vec![tac_id.as_str(), *manufacturer, *code]);
    tables.insert("dim_device_tac".into(), table(&["tac_id", "manufacturer", "tac_code"], gold));
    tables
}

fn user_row(population: &Population, user: usize) -> Vec<&str> {
    let u = &population.users[user];
    let operator = match &u.phone[..3] {
        "010" => "Vodafone",
        "011" => "Etisalat",
        "012" => "Orange",
        _ => "WE",
    };
    vec![&u.user_id, u.first_name, u.last_name, &u.e164, u.city[1], &u.email[1], u.sex, operator]
}

/// One row per date of an event.
pub(super) fn dim_date(days: &BTreeSet<i32>) -> TableManifest {
    let columns = [
        "date_key",
        "full_date",
        "day",
        "month",
        "year",
        "quarter",
        "day_of_week",
        "day_of_year",
        "day_name",
        "month_name",
        "quarter_name",
    ];
    let mut digest = TableDigest::default();
    for day in days {
        let date = date_of(*day);
        let quarter = date.month0() / 3 + 1;
        digest.add_columns(&[
            &date_key(*day).to_string(),
            &date.format("%Y-%m-%d").to_string(),
            &date.day().to_string(),
            &date.month().to_string(),
            &date.year().to_string(),
            &quarter.to_string(),
            &date.weekday().num_days_from_sunday().to_string(),
            &date.ordinal().to_string(),
            &date.format("%A").to_string(),
            &date.format("%B").to_string(),
            &format!("Q{quarter}"),
        ]);
    }
    TableManifest::new(&columns, digest)
}

/// One row per minute of a day.
pub(super) fn dim_time() -> TableManifest {
    let mut digest = TableDigest::default();
    for minute in 0..1440 {
        let (hour, minute) = (minute / 60, minute % 60);
        let twelve = if hour % 12 == 0 { 12 } else { hour % 12 };
        digest.add_columns(&[
            &(hour * 100 + minute).to_string(),
            &hour.to_string(),
            &minute.to_string(),
            &format!("{hour:02}:{minute:02}"),
            &format!("{twelve:02} {}", if hour < 12 { "AM" } else { "PM" }),
        ]);
    }
    TableManifest::new(&["time_key", "hour_24", "minute", "hour_minute", "hour_am_pm"], digest)
}

/// One row per sender and day.
pub(super) fn user_daily(days: &[UserDayTotals]) -> TableManifest {
    let mut digest = TableDigest::default();
    for day in days {
        let totals = [day.calls, day.messages, day.seconds].map(|n| n.to_string());
        digest.add_columns(&[&day.user_id, &day.event_date, &totals[0], &totals[1], &totals[2], &day.amount]);
    }
    TableManifest::new(&[["user_id", "event_date"].as_slice(), &TOTALS].concat(), digest)
}

/// One row per user, with or without events.
pub(super) fn user_360(population: &Population, users: &[UserTotals]) -> TableManifest {
    let mut digest = TableDigest::default();
    for (i, user) in users.iter().enumerate() {
        let totals = [user.calls, user.messages, user.seconds].map(|n| n.to_string());
        let mut row = user_row(population, i);
        row.extend([totals[0].as_str(), &totals[1], &totals[2], &user.amount]);
        digest.add_columns(&row);
    }
    TableManifest::new(&[USER.as_slice(), &TOTALS].concat(), digest)
}
