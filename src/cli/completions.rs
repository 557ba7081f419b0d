//! `smelt completions`: scripts for shells, made from the commands' own definition. Those of bash, zsh and fish ask smelt for the
//! names of models where one is expected.

use clap_complete::Shell;

use super::session::Session;
use super::{Exit, examples, print};
use crate::error::{Error, Result};

/// Commands whose argument is a model.
const OF_MODEL: [&str; 2] = ["explain", "show"];

/// Flags whose values are models.
const SELECTING: [&str; 3] = ["--select", "-s", "--exclude"];

pub(super) fn completions(session: &Session, shell: Option<Shell>, models: bool) -> Result<Exit, Vec<Error>> {
    if models {
        // Between two edits a project may not load; then there is nothing to offer.
        for model in session.load().map(|p| p.models).unwrap_or_default() {
            print::line(&model.name);
        }
        return Ok(Exit::Success);
    }
    let Some(shell) = shell else { return Ok(Exit::Success) };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut examples::command(), "smelt", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    print::line(
        match shell {
            Shell::Bash => bash(&script),
            Shell::Zsh => zsh(&script),
            Shell::Fish => fish(&script),
            _ => script,
        }
        .trim_end(),
    );
    Ok(Exit::Success)
}

/// Values of selecting flags and arguments of [`OF_MODEL`] are models, not files.
fn bash(script: &str) -> String {
    const MODELS: &str = "COMPREPLY=($(compgen -W \"$(smelt completions --models 2>/dev/null)\" -- \"${cur}\"))";
    let mut out = String::with_capacity(script.len());
    let (mut of_model, mut selecting) = (false, false);
    for line in script.lines() {
        let word = line.trim();
        if let Some(label) =
            word.strip_suffix(')').filter(|label| label.starts_with("smelt__") || label.starts_with('-'))
        {
            if label.starts_with("smelt__") {
                let is = |command: &&str| label.ends_with(&format!("__{command}")) && !label.contains("__help__");
                of_model = OF_MODEL.iter().any(is);
            }
            selecting = SELECTING.contains(&label);
        }
        if selecting && word.starts_with("COMPREPLY=($(compgen -f") {
            out.push_str(&line.replace(word, MODELS));
            selecting = false;
        } else if of_model && word == "if [[ ${cur} == -* || ${COMP_CWORD} -eq 2 ]] ; then" {
            out.push_str(&line.replace(word, "if [[ ${cur} != -* && ${COMP_CWORD} -eq 2 ]] ; then"));
            out.push('\n');
            out.push_str(&format!("                {MODELS}\n                return 0\n            fi\n"));
            out.push_str(line);
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

fn zsh(script: &str) -> String {
    let function = "(( $+functions[_smelt_models] )) ||\n\
        _smelt_models() {\n    local -a models\n    models=(${(f)\"$(smelt completions --models 2>/dev/null)\"})\n    \
        compadd -a models\n}\n";
    let script = script.replace(":SELECTOR:_default", ":SELECTOR:_smelt_models");
    let script =
        script.replace("':model -- Name of the model:_default'", "':model -- Name of the model:_smelt_models'");
    match script.split_once("if [ \"$funcstack[1]\"") {
        Some((head, tail)) => format!("{head}{function}\nif [ \"$funcstack[1]\"{tail}"),
        None => script,
    }
}

fn fish(script: &str) -> String {
    let mut out = script.to_string();
    let models = "(smelt completions --models 2>/dev/null)";
    out.push_str(&format!(
        "complete -c smelt -n \"__fish_seen_subcommand_from {}\" -f -a \"{models}\"\n",
        OF_MODEL.join(" ")
    ));
    out.push_str(&format!("complete -c smelt -n \"__fish_contains_opt -s s select exclude\" -f -a \"{models}\"\n"));
    out
}
