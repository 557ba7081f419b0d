//! What `smelt COMMAND --help` shows below the flags: examples, each of which is parsed by a test.

use clap::{Command, CommandFactory};

use super::args::Cli;

/// Command → (example, what it does).
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    ("init", &[("smelt init shop", "a project named shop, in a new folder"), ("smelt init", "in this folder")]),
    (
        "debug",
        &[
            ("smelt debug --target prod", "can the lake and every broker of prod be reached?"),
            ("smelt debug --output json", "the same for a program"),
        ],
    ),
    ("compile", &[("smelt compile", "all models"), ("smelt compile --select gold_customers", "one")]),
    (
        "ls",
        &[
            ("smelt ls --select +gold_customers", "a model and all it reads"),
            ("smelt ls --output json", "with everything known of each"),
        ],
    ),
    (
        "deps",
        &[
            ("smelt deps", "install what packages.yml names"),
            ("smelt deps --upgrade", "look for newer revisions of what the lock file has"),
        ],
    ),
    ("plan", &[("smelt plan", "what the next run does because of edits")]),
    ("seed", &[("smelt seed", "all of them"), ("smelt seed --select countries", "one")]),
    ("explain", &[("smelt explain gold_customers", "which parts are incremental, and with what state")]),
    (
        "run",
        &[
            ("smelt run", "catch up and exit: for cron, Airflow, tests"),
            ("smelt run --select tag:silver --exclude silver_users", "some models"),
            ("smelt run --full-refresh --select gold_customers", "make a table anew"),
            ("smelt run --target prod --vars '{day: 2026-01-05}'", "elsewhere, with a variable"),
        ],
    ),
    (
        "build",
        &[
            ("smelt build --planned 2026-01-05T02:00:00Z", "for a planned instant: running it again repeats nothing"),
            (
                "smelt build --target ci --select state:modified+ --defer --state prod-artifacts",
                "what a branch changes, over production's tables",
            ),
        ],
    ),
    ("snapshot", &[("smelt snapshot --select snap_users", "take one snapshot now")]),
    (
        "runs",
        &[
            ("smelt runs", "the newest of everything"),
            ("smelt runs gold_customers --failed --limit 5", "when a model failed last, and why"),
        ],
    ),
    (
        "up",
        &[
            ("smelt up", "until Ctrl-C; edited queries are taken over"),
            ("smelt up --target prod --log-format json", "as a service"),
        ],
    ),
    (
        "show",
        &[
            ("smelt show gold_customers --limit 20", "the first rows"),
            ("smelt show --columns gold_customers", "names, types, descriptions"),
            ("smelt show gold_customers --epoch 42", "as it was"),
        ],
    ),
    (
        "query",
        &[
            ("smelt query \"select count(*) from gold_customers\"", "SQL over all tables and views"),
            ("smelt query \"select * from silver_orders\" --output csv", "for a file or another program"),
            (
                "smelt query \"select sum(revenue) from gold_customers\" --timestamp \"2026-01-05 14:00\"",
                "as all tables were then",
            ),
            ("smelt query \"select * from gold_customers\" --version 7", "one table at a version of its own"),
        ],
    ),
    ("source freshness", &[("smelt source freshness", "exit code 1 when a source is too old: for monitoring")]),
    ("source", &[("smelt source infer data/orders.json", "the sources: entry that reads a file")]),
    (
        "source infer",
        &[
            ("smelt source infer kafka://localhost:9092/orders", "from the first records of a topic"),
            (
                "smelt source infer kafka:///orders --connection shop --name shop.orders",
                "with a connection of the target",
            ),
            ("smelt source infer 'data/*.csv' >> models/files.yml", "from files, into the project"),
            ("smelt source infer s3://bucket/orders/*.parquet", "from an object store"),
        ],
    ),
    (
        "run-operation",
        &[("smelt run-operation tidy_up --args '{days: 3}'", "runs what macros/tidy_up.sql says, with an argument")],
    ),
    ("test", &[("smelt test", "all data tests"), ("smelt test --select gold_customers", "those of one model")]),
    (
        "generate",
        &[
            ("smelt generate --to-dir data", "as files"),
            (
                "smelt generate --bootstrap-servers localhost:9092 --reference-dir data --rate 1000",
                "to a broker, 1000 events a second",
            ),
        ],
    ),
    ("retry", &[("smelt retry", "after a run that failed in part: only that part")]),
    ("docs", &[("smelt docs generate", "a page of models, columns, tests and lineage")]),
    ("docs generate", &[("smelt docs generate", "into target/")]),
    ("docs serve", &[("smelt docs serve", "and show it in a browser")]),
    ("demo", &[("smelt demo --seconds 60", "everything at once, for a minute")]),
    (
        "optimize",
        &[("smelt optimize --dry-run", "what would be merged"), ("smelt optimize --select fact_events", "one table")],
    ),
    (
        "vacuum",
        &[("smelt vacuum --dry-run", "what would be deleted"), ("smelt vacuum --output json", "for another program")],
    ),
    ("prune", &[("smelt prune --dry-run", "tables that no model makes any more"), ("smelt prune --yes", "drop them")]),
    ("clean", &[("smelt clean --dry-run", "what would be deleted"), ("smelt clean", "delete it")]),
    (
        "schema",
        &[
            ("smelt schema project > .vscode/smelt.json", "for smelt.yml"),
            ("smelt schema properties > .vscode/smelt-models.json", "for models/*.yml"),
        ],
    ),
    (
        "completions",
        &[
            ("smelt completions bash > ~/.local/share/bash-completion/completions/smelt", "for bash"),
            ("smelt completions zsh > ~/.zfunc/_smelt", "for zsh; ~/.zfunc must stand in fpath"),
            ("smelt completions fish > ~/.config/fish/completions/smelt.fish", "for fish"),
        ],
    ),
];

/// The command line with its examples.
pub(super) fn command() -> Command {
    fn with(command: Command, above: &str) -> Command {
        let name = match above {
            "" => command.get_name().to_string(),
            above => format!("{above} {}", command.get_name()),
        };
        let command = match EXAMPLES.iter().find(|(of, _)| *of == name) {
            Some((_, examples)) => command.after_help(shown(examples)),
            None => command,
        };
        command.mut_subcommands(|below| with(below, &name))
    }
    Cli::command().mut_subcommands(|command| with(command, ""))
}

fn shown(examples: &[(&str, &str)]) -> String {
    let mut text = "Examples:".to_string();
    for (example, what) in examples {
        text.push_str(&format!("\n  {example}\n      {what}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words of a command line as a shell makes them; a redirection ends it.
    fn words(line: &str) -> Vec<String> {
        let (mut words, mut word, mut quote, mut any) = (Vec::new(), String::new(), None, false);
        for c in line.chars() {
            match (quote, c) {
                (Some(q), c) if c == q => quote = None,
                (None, '\'' | '"') => (quote, any) = (Some(c), true),
                (None, '>') => break,
                (None, ' ') if any => {
                    words.push(std::mem::take(&mut word));
                    any = false;
                }
                (None, ' ') => {}
                (_, c) => {
                    word.push(c);
                    any = true;
                }
            }
        }
        if any {
            words.push(word);
        }
        words
    }

    fn names(command: &Command, above: &str, into: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
            let name = format!("{above} {}", below.get_name()).trim().to_string();
            names(below, &name, into);
            into.push(name);
        }
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_command_has_examples_that_parse() {
        let mut all = Vec::new();
        names(&Cli::command(), "", &mut all);
        for name in &all {
            let examples = EXAMPLES.iter().find(|(of, _)| of == name);
            let (_, examples) = examples.unwrap_or_else(|| panic!("`smelt {name} --help` has no examples"));
            assert!(!examples.is_empty(), "{name}");
            for (example, what) in *examples {
                assert!(example.starts_with(&format!("smelt {name}")) || *name == "source", "{example}");
                assert!(!what.is_empty());
                if let Err(error) = command().try_get_matches_from(words(example)) {
                    panic!("{example}\n{error}");
                }
            }
        }
        for (name, _) in EXAMPLES {
            assert!(all.iter().any(|n| n == name), "there is no `smelt {name}`");
        }
    }

    #[test]
    fn every_flag_says_what_it_is_for() {
        fn check(command: &Command, name: &str) {
            for argument in command
                .get_arguments()
                .filter(|a| !a.is_hide_set() && !["help", "version"].contains(&a.get_id().as_str()))
            {
                let plain = ["limit", "output", "seed", "shell", "port", "host"].contains(&argument.get_id().as_str());
                assert!(plain || argument.get_help().is_some(), "smelt {name}: {} has no help", argument.get_id());
            }
            command.get_subcommands().for_each(|below| check(below, &format!("{name} {}", below.get_name())));
        }
        check(&Cli::command(), "");
    }
}
