//! What every command starts from: the environment, the project folder, and on demand the compiled project.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::args::{Deferring, Global, Selection, Writing};
use super::artifacts::Artifacts;
use super::defer::Work;
use super::print;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::plan::{self, Compilation};
use crate::project::answers::is_failure;
use crate::project::{self, Indirect, LoadOptions, Model, Project, ProjectFlags};
use crate::runtime::{self, Fresh, LakeAnswers};

pub(super) struct Session {
    pub env: Env,
    pub dir: PathBuf,
    pub quiet: bool,
    /// `--fail-fast`
    fail_fast: bool,
    /// Instead of the target's.
    threads: Option<usize>,
    /// `--warn-error`
    warn_error: bool,
    /// What this command leaves in `target/`.
    pub artifacts: Arc<Artifacts>,
    options: LoadOptions,
    /// Warnings about the selection that have been printed.
    pub(super) warned: Mutex<BTreeSet<String>>,
    /// Whether the command got as far as its `on-run-start`.
    pub(super) hooks_started: AtomicBool,
    /// `selected_resources` of hooks.
    pub(super) selected: Mutex<Vec<String>>,
    /// Something has failed that is in no result: the exit code says so.
    pub(super) failed: AtomicBool,
    /// `flags:` of the project, once it has been read.
    flags: OnceLock<ProjectFlags>,
}

impl Session {
    pub(super) fn new(env: Env, global: &Global, artifacts: Artifacts) -> Result<Self> {
        let dir = std::path::absolute(&global.project_dir)?;
        let vars = match &global.vars {
            None => BTreeMap::new(),
            Some(text) => serde_yaml::from_str(text)
                .map_err(|e| Error::user("bad-vars", format!("--vars is not a YAML mapping: {e}")))
                .map_err(|e| e.with_hint("write --vars '{day: 2026-01-05, size: 10}'"))?,
        };
        let options = LoadOptions {
            dir: dir.clone(),
            target: global.target.clone(),
            vars,
            lake: global.lake.clone(),
            invocation_id: Some(artifacts.invocation.id.clone()),
            profile: global.profile.clone(),
            profiles_dir: global.profiles_dir.clone(),
            which: artifacts.which().to_string(),
            ..LoadOptions::default()
        };
        Ok(Session {
            env,
            dir,
            quiet: global.quiet,
            fail_fast: global.fail_fast,
            threads: global.threads.map(usize::from),
            warn_error: global.warn_error,
            artifacts: Arc::new(artifacts),
            options,
            warned: Mutex::default(),
            hooks_started: AtomicBool::new(false),
            selected: Mutex::default(),
            failed: AtomicBool::new(false),
            flags: OnceLock::new(),
        })
    }

    /// What the command line says about the project.
    pub(super) fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// The same environment for a project in another folder, with its own default target.
    pub(super) fn at(&self, dir: &std::path::Path) -> Session {
        let options = LoadOptions { dir: dir.to_path_buf(), ..LoadOptions::default() };
        Session {
            env: self.env.clone(),
            dir: dir.to_path_buf(),
            quiet: self.quiet,
            fail_fast: self.fail_fast,
            threads: self.threads,
            warn_error: self.warn_error,
            artifacts: Arc::new(Artifacts::none(&self.env)),
            options,
            warned: Mutex::default(),
            hooks_started: AtomicBool::new(false),
            selected: Mutex::default(),
            failed: AtomicBool::new(false),
            flags: OnceLock::new(),
        }
    }

    /// The project, without looking at the lake.
    pub(super) fn load(&self) -> Result<Project, Vec<Error>> {
        self.load_with(&self.options)
    }

    fn load_with(&self, options: &LoadOptions) -> Result<Project, Vec<Error>> {
        let project = project::load(options, &self.env)?;
        // The first reading decides for the whole command.
        let _ = self.flags.set(project.flags.clone());
        Ok(project)
    }

    fn flags(&self) -> Option<&ProjectFlags> {
        self.flags.get()
    }

    /// Stop at the first failure.
    pub(super) fn fail_fast(&self) -> bool {
        self.fail_fast || self.flags().is_some_and(|flags| flags.fail_fast)
    }

    /// Warnings of this code are errors.
    pub(super) fn is_error(&self, code: &str) -> bool {
        match self.flags() {
            Some(flags) => flags.warnings.is_error(code, self.warn_error),
            None => self.warn_error,
        }
    }

    /// Warnings of this code are not printed.
    pub(super) fn is_silent(&self, code: &str) -> bool {
        self.flags().is_some_and(|flags| flags.warnings.is_silent(code))
    }

    /// What `--indirect-selection` says, else the project.
    pub(super) fn indirect(&self, selection: &Selection) -> Indirect {
        let is_given = self.artifacts.invocation.args.contains_key("indirect_selection");
        let own = self.flags().and_then(|flags| flags.indirect).filter(|_| !is_given);
        own.unwrap_or_else(|| selection.indirect_selection.into())
    }

    /// Whether models are made although `on-run-start` has failed.
    pub(super) fn goes_on_after_start(&self) -> bool {
        self.flags().is_some_and(|flags| flags.goes_on_after_start)
    }

    /// Whether `source freshness` runs hooks.
    pub(super) fn has_freshness_hooks(&self) -> bool {
        self.flags().is_none_or(|flags| flags.freshness_hooks)
    }

    /// The project and its compiled models; warnings are printed.
    pub(super) async fn compile(&self) -> Result<(Arc<Project>, Arc<Compilation>), Vec<Error>> {
        self.compile_with(&Writing::default(), &|_| true).await
    }

    /// The same for a command that makes no table of a model.
    pub(super) async fn compile_reading(
        &self,
        selection: &Selection,
        deferring: &Deferring,
    ) -> Result<(Arc<Project>, Arc<Compilation>), Vec<Error>> {
        self.compile_for(&Writing::default(), Work { selection, deferring, makes: &|_| false }).await
    }

    /// The same, with the command line's epoch limits in place of the target's.
    pub(super) async fn compile_with(
        &self,
        writing: &Writing,
        makes: &(dyn Fn(&Model) -> bool + Sync),
    ) -> Result<(Arc<Project>, Arc<Compilation>), Vec<Error>> {
        let work = Work { selection: &writing.selection, deferring: &writing.deferring, makes };
        self.compile_for(writing, work).await
    }

    async fn compile_for(
        &self,
        writing: &Writing,
        work: Work<'_>,
    ) -> Result<(Arc<Project>, Arc<Compilation>), Vec<Error>> {
        let (project, compilation) = self.settle(writing, work, &Fresh::All).await?;
        self.announce(&project, &compilation)?;
        for waits in project.models.iter().filter_map(|m| m.asks.waits.as_ref()) {
            // Who only looks at tables need not care; `up` waits for an edit.
            let which = self.artifacts.which();
            match is_failure(waits) && ["compile", "generate", "test", "up"].contains(&which) {
                true => {
                    self.failed.fetch_or(which != "up", Ordering::Relaxed);
                    self.print_error(waits);
                }
                false => self.warn(waits),
            }
        }
        Ok((project, compilation))
    }

    /// The project with the SQL of every model whose template can be answered. The answers come from tables that are `fresh`; a model that
    /// asks about another waits, and is not compiled.
    pub(super) async fn settle(
        &self,
        writing: &Writing,
        work: Work<'_>,
        fresh: &Fresh,
    ) -> Result<(Arc<Project>, Arc<Compilation>), Vec<Error>> {
        let mut options = LoadOptions { full_refresh: writing.full_refresh, ..self.options.clone() };
        let mut project = self.load_with(&options)?;
        options.deferred = self.deferred(&project, work).await?;
        if project.asks_selection {
            options.selected = self.resources(&project, None, work.selection).await?;
        }
        if !options.deferred.is_empty() || !options.selected.is_empty() {
            // `ref` names other tables now, or templates see what is selected.
            project = project::load(&options, &self.env)?;
        }
        let (mut project, mut compilation) = self.plan(project, writing).await?;
        loop {
            let waiting = project.waiting();
            if waiting.is_empty() {
                return Ok((project, compilation));
            }
            let answers = LakeAnswers::open(&self.env, &project, &compilation, fresh.clone()).await;
            options.answers = Some(answers.map_err(|e| vec![e])?);
            // Answers block on I/O.
            let (asking, env) = (options.clone(), self.env.clone());
            let loaded = tokio::task::spawn_blocking(move || project::load(&asking, &env)).await;
            let loaded = loaded.map_err(|e| vec![Error::internal(format!("loading the project ended: {e}"))])??;
            (project, compilation) = self.plan(loaded, writing).await?;
            if project.waiting() == waiting {
                return Ok((project, compilation));
            }
        }
    }

    /// Errors of files, Jinja and YAML together with those of the SQL of what could be loaded beside them.
    pub(super) async fn with_errors_of_sql(&self, errors: Vec<Error>) -> Vec<Error> {
        let Some(project) = project::load_sound_part(&self.options, &self.env) else { return errors };
        // What the lake cannot say now is said when everything else is right.
        let Ok(catalog) = runtime::lake_catalog(&self.env, &project, |_| false).await else { return errors };
        match plan::compile(&project, &catalog, &runtime::clock(&self.env)) {
            Ok(_) => errors,
            Err(more) => project::sorted(errors.into_iter().chain(more).collect()),
        }
    }

    /// Writes the SQL of the models that have no mistakes of their own, whatever others have.
    pub(super) fn write_sound_part(&self) {
        let Some(project) = project::load_sound_part(&self.options, &self.env) else { return };
        let written = project.models.iter().filter(|m| m.seed.is_none() && m.asks.waits.is_none()).count();
        match project::write_compiled(&project, &self.env) {
            Ok(folder) => self.say(&format!("SQL of {written} models without mistakes is in {}", folder.display())),
            Err(error) => self.warn(&error),
        }
    }

    async fn plan(
        &self,
        mut project: Project,
        writing: &Writing,
    ) -> Result<(Arc<Project>, Arc<Compilation>), Vec<Error>> {
        project.target.threads = self.threads.unwrap_or(project.target.threads);
        project.target.epoch_max_rows = writing.epoch_rows.unwrap_or(project.target.epoch_max_rows);
        project.target.epoch_max_files = writing.epoch_files.unwrap_or(project.target.epoch_max_files);
        let selected = match writing.full_refresh {
            true => self.selected(&project, None, &writing.selection).await?,
            false => None,
        };
        let is_refreshed = |model: &project::Model| match model.config.full_refresh {
            Some(choice) => choice,
            None => writing.full_refresh && selected.as_ref().is_none_or(|names| names.contains(&model.name)),
        };
        let catalog = runtime::lake_catalog(&self.env, &project, is_refreshed).await.map_err(|e| vec![e])?;
        let compilation = loop {
            match plan::compile(&project, &catalog, &runtime::clock(&self.env)) {
                Ok(compilation) => break compilation,
                Err(errors) if stop_asking(&mut project, &errors) => {}
                Err(errors) => return Err(errors),
            }
        };
        Ok((Arc::new(project), Arc::new(compilation)))
    }

    /// Warnings and what templates printed go to the terminal, the manifest into `target/`.
    pub(super) fn announce(&self, project: &Arc<Project>, compilation: &Compilation) -> Result<(), Vec<Error>> {
        self.say_deferred(project);
        let warnings = || project.warnings.iter().chain(compilation.models.iter().flat_map(|m| &m.warnings));
        let errors: Vec<Error> = warnings().filter(|w| self.is_error(w.code())).cloned().collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        if !self.quiet {
            warnings().for_each(|warning| self.warn(warning));
            project.said.iter().for_each(|text| self.say(text));
        }
        self.artifacts.loaded(&self.env, project).map_err(|e| vec![e])
    }

    /// Notes in the lake what this command did. It is a record: what cannot be written costs a warning.
    pub(super) async fn record_runs(&self) {
        let Some((project, which, results)) = self.artifacts.past() else { return };
        let noted = runtime::record_runs(&self.env, &project, &self.artifacts.invocation, &which, &results).await;
        if let Err(error) = noted {
            self.warn(&error.context("the run is not noted in _smelt.runs"));
        }
    }

    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            print::line(&self.env.redact(text));
        }
    }

    pub(super) fn print_error(&self, error: &Error) {
        print::error(&self.env.redact(&error.render()));
    }
}

/// Errors in SQL that templates made of answers are those of their models, which take no part then; false when there are others only.
fn stop_asking(project: &mut Project, errors: &[Error]) -> bool {
    let mut stopped = false;
    for error in errors {
        let Some(file) = error.span().map(|span| &span.file) else { continue };
        let asks = |m: &&mut Arc<Model>| m.path == *file && m.asks.rows && m.asks.waits.is_none();
        if let Some(model) = project.models.iter_mut().find(asks) {
            Arc::make_mut(model).asks.waits = Some(error.clone());
            stopped = true;
        }
    }
    stopped
}
