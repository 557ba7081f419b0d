//! Arguments, printing, exit codes: one file per group of commands, wired here.
//!
//! A command returns what happened ([`Exit`]) or the errors that stopped it; only [`main`] turns either into an exit
//! code, and only `print` writes to the terminal.

mod args;
mod around;
mod artifacts;
mod build;
mod choose;
mod completions;
mod defer;
mod demo;
mod debug;
mod deps;
mod docs;
mod examples;
mod freshness;
mod generate;
mod hooks;
mod init;
mod inspect;
mod list;
mod maintain;
mod print;
mod resources;
mod retry;
mod run;
mod runs;
mod sample;
mod schema;
mod session;
mod source;
mod stages;
mod tables;
mod test;

use std::process::ExitCode;
use std::sync::atomic::Ordering;

use crate::env::Env;
use crate::error::Error;
use args::{Cli, Command, Docs, LogFormat, SourceCommand, Writing};
use artifacts::Artifacts;
use retry::Retry;
use session::Session;

/// How a command that ran to its end ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Success,
    /// A model or test failed.
    Failed,
}

/// Runs the command line; the exit code is 0 for success, 1 when a model or test failed, 2 for usage or project errors.
pub fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|e| e.exit());
    let env = Env::real();
    start_logging(&env, cli.global.log_format);
    redact_panics(&env);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            print::error(&format!("cannot start: {e}"));
            return ExitCode::from(2);
        }
    };
    let result = runtime.block_on(dispatch(env.clone(), &cli));
    // Tasks that still hold a source or an upload are not waited for: the lake is consistent at any instant.
    runtime.shutdown_background();
    match result {
        Ok(Exit::Success) => ExitCode::SUCCESS,
        Ok(Exit::Failed) => ExitCode::from(1),
        Err(errors) => {
            print::errors(&env, &errors);
            ExitCode::from(2)
        }
    }
}

async fn dispatch(env: Env, cli: &Cli) -> Result<Exit, Vec<Error>> {
    let artifacts = Artifacts::of(&env, cli);
    let session = Session::new(env.clone(), &cli.global, artifacts).map_err(|e| vec![e])?;
    if let Command::Retry { state } = &cli.command {
        return match retry::prepare(&session, &cli.global, state.as_deref()).await? {
            Retry::Done => Ok(Exit::Success),
            Retry::Run(cli) => Box::pin(dispatch(env, &cli)).await,
        };
    }
    let result = match run_command(&session, cli).await {
        Ok(Exit::Success) if session.failed.load(Ordering::Relaxed) => Ok(Exit::Failed),
        ended => ended,
    };
    if result.is_ok() {
        session.record_runs().await;
    }
    // What was done is written down also when something failed.
    match (result, session.artifacts.finish(&session.env)) {
        (Ok(_), Err(error)) => Err(vec![error]),
        (Err(errors), Err(error)) => Err(errors.into_iter().chain([error]).collect()),
        (result, Ok(())) => result,
    }
}

async fn run_command(session: &Session, cli: &Cli) -> Result<Exit, Vec<Error>> {
    match &cli.command {
        Command::Init { path } => init::init(session, path).map_err(|e| vec![e]),
        Command::Debug { output } => debug::debug(session, *output).await,
        Command::Deps { upgrade, lock } => deps::deps(session, *upgrade, *lock),
        Command::Compile { selection, deferring } => inspect::compile(session, selection, deferring).await,
        Command::Ls { selection, output, output_keys } => list::ls(session, selection, *output, output_keys).await,
        Command::Plan { selection } => inspect::plan(session, selection).await,
        Command::Explain { model } => inspect::explain(session, model).await,
        Command::Run { writing } => hooks::end(session, writing, true, run::run(session, writing).await).await,
        Command::Build { writing, testing, planned } => {
            hooks::end(session, writing, true, build::build(session, writing, testing, *planned).await).await
        }
        Command::Snapshot { writing, planned } => {
            hooks::end(session, writing, true, run::snapshot(session, writing, *planned).await).await
        }
        Command::Seed { writing } => hooks::end(session, writing, true, run::seed(session, writing).await).await,
        Command::RunOperation { name, args } => hooks::run_operation(session, name, args.as_deref()).await,
        Command::Runs { name, failed, limit, output } => {
            runs::runs(session, name.as_deref(), *failed, *limit, *output).await
        }
        // It has become another command above.
        Command::Retry { .. } => Ok(Exit::Success),
        Command::Up { writing, no_http: _ } => {
            hooks::end(session, writing, true, run::up(session, writing).await).await
        }
        Command::Show { model, limit, columns, past, output } => {
            tables::show(session, model, *limit, *columns, past, *output).await
        }
        Command::Query { sql, past, output } => tables::query(session, sql, past, *output).await,
        Command::Source { command: SourceCommand::Infer(options) } => source::infer(session, options).await,
        Command::Test { selection, deferring, testing } => {
            let (selection, deferring) = (selection.clone(), deferring.clone());
            let reading = Writing { selection, deferring, ..Writing::default() };
            hooks::end(session, &reading, false, test::test(session, &reading, testing).await).await
        }
        Command::Docs { command: Docs::Generate(options) } => docs::generate(session, options).await,
        Command::Docs { command: Docs::Serve(options) } => docs::serve(session, options).await,
        Command::Generate(options) => generate::generate(session, options).await,
        Command::Demo { seconds, rate } => demo::demo(session, *seconds, *rate).await,
        Command::Optimize { selection, dry_run, output } => {
            maintain::optimize(session, selection, *dry_run, *output).await
        }
        Command::Vacuum { selection, dry_run, output } => maintain::vacuum(session, selection, *dry_run, *output).await,
        Command::Prune { dry_run, yes, output } => maintain::prune(session, *dry_run, *yes, *output).await,
        Command::Clean { dry_run, output } => maintain::clean(session, *dry_run, *output),
        Command::Schema { kind } => schema::print(*kind),
        Command::Completions { shell, models } => completions::completions(session, *shell, *models),
        Command::Source { command: SourceCommand::Freshness { selection, output } } => {
            let reading = Writing { selection: selection.clone(), ..Writing::default() };
            let outcome = freshness::freshness(session, selection, output.as_deref()).await;
            hooks::end(session, &reading, false, outcome).await
        }
    }
}

/// A panic's message may quote data: it passes the same filter as every other line.
fn redact_panics(env: &Env) {
    let env = env.clone();
    std::panic::set_hook(Box::new(move |panic| {
        print::error(&env.redact(&format!("error[internal]: {panic}\n  = this is a bug in smelt: please report it")));
    }));
}

/// Log lines go to stderr, with secrets redacted; `SMELT_LOG=debug` shows more.
fn start_logging(env: &Env, format: LogFormat) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::new(env.var("SMELT_LOG").unwrap_or_else(|| "off".to_string()));
    let writer = print::RedactedStderr::new(env.clone());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(false);
    // A second call in one process (tests) keeps the first.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
