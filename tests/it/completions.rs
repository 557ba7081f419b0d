//! `smelt completions`: every shell gets a script, and bash completes commands, flags and models with it.

use crate::init::shell;
use crate::support::Sandbox;

#[test]
fn every_shell_has_a_script() {
    let sandbox = Sandbox::new();
    for name in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ended = sandbox.smelt(&["completions", name]).ok();
        assert!(ended.stdout.contains("optimize") && ended.stdout.contains("full-refresh"), "{name}");
    }
    let zsh = sandbox.smelt(&["completions", "zsh"]).ok().stdout;
    assert!(zsh.contains("_smelt_models()") && zsh.contains(":SELECTOR:_smelt_models"), "{zsh}");
    let fish = sandbox.smelt(&["completions", "fish"]).ok().stdout;
    assert!(fish.contains("__fish_seen_subcommand_from explain show"), "{fish}");
    sandbox.smelt(&["completions", "csh"]).fails(2, "possible values: bash, elvish, fish, powershell, zsh");
}

#[test]
fn bash_completes_commands_flags_and_models() {
    let sandbox = Sandbox::new();
    sandbox.smelt(&["init"]).ok();
    // What bash's completion does: words, the index of the current one, then the function.
    let complete = |words: &[&str]| {
        let last = words.len() - 1;
        let script = format!(
            "bash -c 'source <(smelt completions bash); COMP_WORDS=({}); COMP_CWORD={last}; _smelt smelt \"{}\" \"{}\"; echo \"${{COMPREPLY[@]}}\"'",
            words.join(" "),
            words[last],
            words[last - 1]
        );
        shell(&sandbox, &script).ok().stdout.trim().to_string()
    };
    assert_eq!(complete(&["smelt", "expl"]), "explain");
    assert_eq!(complete(&["smelt", "run", "--full"]), "--full-refresh");
    assert_eq!(complete(&["smelt", "show", "gold"]), "gold_customers");
    assert_eq!(complete(&["smelt", "run", "--select", "silver"]), "silver_orders");
    assert_eq!(complete(&["smelt", "query", "x", "--output", "j"]), "json");
    // A project that does not load offers nothing, and says nothing.
    sandbox.write("smelt.yml", "name: [");
    assert_eq!(complete(&["smelt", "show", "gold"]), "");
}
