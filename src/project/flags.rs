//! `flags:` of the project file: what dbt lets a project say instead of the command line.
//!
//! Some take effect ([`ProjectFlags`]). Those of dbt's that stand for what smelt has not (caches, parsers, its log files) or for behaviour
//! that is as dbt's newest anyway are read past. Anything else is named.

use std::collections::BTreeSet;

use super::problems::{Problems, suggest};
use super::select::Indirect;
use super::yaml::{Node, Value};

/// Flags that mean nothing here.
const WITHOUT_EFFECT: &[&str] = &[
    "cache_selected_only",
    "debug",
    "introspect",
    "log_cache_events",
    "log_file_max_bytes",
    "log_format",
    "log_format_file",
    "log_level",
    "log_level_file",
    "log_path",
    "macro_debugging",
    "partial_parse",
    "partial_parse_file_diff",
    "populate_cache",
    "printer_width",
    "quiet",
    "send_anonymous_usage_stats",
    "single_threaded",
    "static_parser",
    "target_path",
    "upload_to_artifacts_ingest_api",
    "use_colors",
    "use_colors_file",
    "use_experimental_parser",
    "use_fast_test_edges",
    "version_check",
    "write_json",
    "require_batched_execution_for_custom_microbatch_strategy",
    "require_event_names_in_deprecations",
    "require_explicit_package_overrides_for_builtin_materializations",
    "require_resource_names_without_spaces",
    "state_modified_compare_more_unrendered_values",
    "state_modified_compare_vars",
    "require_yaml_configuration_for_mf_time_spines",
    "require_nested_cumulative_type_params",
    "validate_macro_args",
    "require_all_warnings_handled_by_warn_error",
    "require_generic_test_arguments_property",
];

/// Flags of commands that neither dbt nor smelt takes from the project file.
const OF_COMMANDS: &[&str] = &["full_refresh", "store_failures", "threads", "target", "profile", "vars"];

const EFFECTIVE: &[&str] = &[
    "fail_fast",
    "warn_error",
    "warn_error_options",
    "indirect_selection",
    "source_freshness_run_project_hooks",
    "skip_nodes_if_on_run_start_fails",
];

/// What takes effect.
#[derive(Debug, Clone)]
pub struct ProjectFlags {
    pub fail_fast: bool,
    pub warnings: Warnings,
    pub indirect: Option<Indirect>,
    /// `source_freshness_run_project_hooks`
    pub freshness_hooks: bool,
    /// `skip_nodes_if_on_run_start_fails: false`: what dbt 1.10 does when nothing is said.
    pub goes_on_after_start: bool,
}

impl Default for ProjectFlags {
    fn default() -> Self {
        ProjectFlags {
            fail_fast: false,
            warnings: Warnings::default(),
            indirect: None,
            freshness_hooks: true,
            goes_on_after_start: false,
        }
    }
}

/// Which warnings are errors, by their codes.
#[derive(Debug, Clone, Default)]
pub struct Warnings {
    all: bool,
    errors: BTreeSet<String>,
    /// Not even when all are.
    warn: BTreeSet<String>,
    silence: BTreeSet<String>,
}

impl Warnings {
    /// `all`: the command line makes errors of all.
    pub fn is_error(&self, code: &str, all: bool) -> bool {
        let is_excepted = self.warn.contains(code) || self.silence.contains(code);
        !is_excepted && (all || self.all || self.errors.contains(code))
    }

    pub fn is_silent(&self, code: &str) -> bool {
        self.silence.contains(code)
    }
}

/// Reads `flags:` of the root project.
pub(super) fn read(root: &Node, p: &mut Problems) -> ProjectFlags {
    let mut flags = ProjectFlags::default();
    for entry in root.get("flags").map_or(&[][..], Node::entries) {
        let (key, node) = (entry.key.as_str(), &entry.value);
        if matches!(node.value, Value::Null) {
            continue;
        }
        match key {
            "fail_fast" => flags.fail_fast = node.boolean(key, p).unwrap_or(false),
            "warn_error" => flags.warnings.all |= node.boolean(key, p).unwrap_or(false),
            "warn_error_options" => options(node, &mut flags.warnings, p),
            "indirect_selection" => flags.indirect = node.choice(key, &Indirect::NAMES, p),
            "source_freshness_run_project_hooks" => flags.freshness_hooks = node.boolean(key, p).unwrap_or(true),
            "skip_nodes_if_on_run_start_fails" => {
                flags.goes_on_after_start = !node.boolean(key, p).unwrap_or(true);
            }
            _ if WITHOUT_EFFECT.contains(&key) => {}
            _ if OF_COMMANDS.contains(&key) => {
                let message = format!("`{key}` in `flags` has no effect");
                let hint = format!("give --{} to the command", key.replace('_', "-"));
                p.warn("ignored-config", node.span_of(entry.key_mark), message, hint);
            }
            _ => {
                let known = EFFECTIVE.iter().chain(WITHOUT_EFFECT).copied();
                let hint = suggest(key, known, "flags that take effect or are dbt's own");
                p.warn("unknown-flag", node.span_of(entry.key_mark), format!("no flag `{key}`"), hint);
            }
        }
    }
    flags
}

/// `{error: all, warn: [dbt-version], silence: […]}`; `include` and `exclude` are the older names of the first two.
fn options(node: &Node, warnings: &mut Warnings, p: &mut Problems) {
    if !node.check_keys("warn_error_options", &["error", "include", "warn", "exclude", "silence"], p) {
        return;
    }
    for key in ["error", "include"] {
        let Some(list) = node.get(key) else { continue };
        match list.as_str() {
            Some("all" | "*") => warnings.all = true,
            _ => warnings.errors.extend(list.texts(key, p).unwrap_or_default()),
        }
    }
    let texts = |key: &str, p: &mut Problems| node.get(key).and_then(|n| n.texts(key, p)).unwrap_or_default();
    for key in ["warn", "exclude"] {
        warnings.warn.extend(texts(key, p));
    }
    warnings.silence.extend(texts("silence", p));
}
