//! One name in several packages.
//!
//! A model, a source, a macro or a test may have the same name in two packages. dbt knows them by their unique ids; here each model and
//! each source has a *key*, by which everything behind the loader tells it from others: its name, and `package.name` where that is taken
//! (the project itself is asked first, then its packages; what is enabled before what is not). `ref('package', 'name')` says which is
//! meant, and `ref('name')` looks into the package it stands in, then into the project, then everywhere ([`search_order`]).
//!
//! Two models of one name make two tables: packages that do not differ in `schema` or `alias` are an error of
//! [`super::graph::Names`].

use std::collections::HashSet;

/// How two names are compared.
pub(super) type Same = fn(&str, &str) -> bool;

/// Gives every name a key. `names` are (package, name, enabled), the project's own first; keys come in the same order. A name that stands
/// twice in one package keeps its key twice: that is an error to be reported.
pub(super) fn keys(names: &[(&str, &str, bool)]) -> Vec<String> {
    let mut keys = vec![String::new(); names.len()];
    let mut taken: HashSet<(String, &str)> = HashSet::new();
    let mut owned: HashSet<String> = HashSet::new();
    for wanted in [true, false] {
        for (i, (package, name, _)) in names.iter().enumerate().filter(|(_, (_, _, enabled))| *enabled == wanted) {
            let lower = name.to_lowercase();
            let is_free = owned.insert(lower.clone());
            if is_free || taken.contains(&(lower.clone(), package)) {
                taken.insert((lower, package));
                keys[i] = name.to_string();
            } else {
                keys[i] = format!("{package}.{name}");
            }
        }
    }
    keys
}

/// The packages a name is looked for in, in order: the one that is named, or that of the caller, the project, and all others.
pub(super) fn search_order<'a>(packages: &'a [String], package: Option<&str>, from: &str) -> Vec<&'a str> {
    let first = package.unwrap_or(from);
    let is_first = |p: &&str| p.eq_ignore_ascii_case(first);
    let all = || packages.iter().map(String::as_str);
    match package {
        Some(_) => all().filter(is_first).collect(),
        None => all().filter(is_first).chain(all().filter(|p| !is_first(p))).collect(),
    }
}

/// What `is_named` finds in the first package of `order` that has it: spelled so, else ignoring case; what is enabled before what is not.
pub(super) fn found<'a, T>(
    all: &'a [T],
    order: &[&str],
    package: impl Fn(&T) -> &String,
    enabled: impl Fn(&T) -> bool,
    is_named: impl Fn(&T, Same) -> bool,
) -> Option<&'a T> {
    let exact: Same = |a, b| a == b;
    let ignoring_case: Same = |a, b| a.eq_ignore_ascii_case(b);
    for wanted in [true, false] {
        for same in [exact, ignoring_case] {
            for place in order {
                let is_it = |t: &&T| package(t) == place && enabled(t) == wanted && is_named(t, same);
                if let Some(found) = all.iter().find(is_it) {
                    return Some(found);
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_keeps_its_names_and_packages_are_qualified_where_they_clash() {
        let names = [("shop", "users", true), ("crm", "Users", true), ("crm", "deals", true), ("erp", "deals", true)];
        assert_eq!(keys(&names), ["users", "crm.Users", "deals", "erp.deals"]);
    }

    #[test]
    fn a_disabled_model_gives_its_name_up() {
        assert_eq!(keys(&[("shop", "users", false), ("crm", "users", true)]), ["shop.users", "users"]);
        assert_eq!(keys(&[("shop", "users", true), ("crm", "users", false)]), ["users", "crm.users"]);
    }

    #[test]
    fn two_of_one_package_share_a_key() {
        assert_eq!(keys(&[("shop", "users", true), ("shop", "users", true)]), ["users", "users"]);
    }

    #[test]
    fn the_callers_package_comes_first_then_the_project() {
        let packages = ["shop".to_string(), "crm".to_string(), "erp".to_string()];
        assert_eq!(search_order(&packages, None, "erp"), ["erp", "shop", "crm"]);
        assert_eq!(search_order(&packages, None, "shop"), ["shop", "crm", "erp"]);
        assert_eq!(search_order(&packages, Some("CRM"), "shop"), ["crm"]);
    }
}
