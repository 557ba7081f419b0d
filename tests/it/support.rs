//! A project in a temporary folder, and the `smelt` binary run on it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// No command of a test takes so long, whatever runs beside it.
const PATIENCE: Duration = Duration::from_secs(600);

/// A project in a folder of its own, deleted at the end.
pub struct Sandbox {
    dir: tempfile::TempDir,
}

/// How a `smelt` command ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Fails the test unless the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless the command ended with `code` and said `text` on stderr.
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        assert!(self.stderr.contains(text), "`{text}` is not in stderr:\n{}\nstdout:\n{}", self.stderr, self.stdout);
        self
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Sandbox {
    /// An empty folder.
    pub fn new() -> Self {
        Sandbox { dir: tempfile::tempdir().unwrap() }
    }

    /// A project with these files: (path, text).
    pub fn with(files: &[(&str, &str)]) -> Self {
        let sandbox = Self::new();
        for (path, text) in files {
            sandbox.write(path, text);
        }
        sandbox
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file so that it appears at once, as the files source wants it.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let target = self.path().join(path);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        let temporary = target.with_extension("tmp");
        std::fs::write(&temporary, text).unwrap();
        std::fs::rename(&temporary, &target).unwrap();
    }

    pub fn remove(&self, path: &str) {
        let target = self.path().join(path);
        if target.is_dir() { std::fs::remove_dir_all(target).unwrap() } else { std::fs::remove_file(target).unwrap() }
    }

    fn command(&self, args: &[&str], vars: &[(&str, &str)]) -> Command {
        let mut command = Command::new(smelt_binary());
        command.current_dir(self.path()).args(args).stdin(Stdio::null()).env_remove("SMELT_CRASH_AT");
        command.envs(vars.iter().copied());
        command
    }

    /// Runs `smelt ARGS` to its end.
    #[track_caller]
    pub fn smelt(&self, args: &[&str]) -> Ended {
        self.smelt_with(args, &[])
    }

    /// Runs `smelt ARGS` with environment variables to its end. One that hangs is killed and fails the test.
    #[track_caller]
    pub fn smelt_with(&self, args: &[&str], vars: &[(&str, &str)]) -> Ended {
        let mut command = self.command(args, vars);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id().to_string();
        let (sender, receiver) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let output = child.wait_with_output().unwrap();
            let _ = sender.send(());
            Ended::from(output)
        });
        let hung = receiver.recv_timeout(PATIENCE).is_err();
        if hung {
            Command::new("kill").args(["-KILL", &pid]).status().unwrap();
        }
        let ended = reader.join().unwrap();
        assert!(!hung, "smelt {args:?} hangs. stdout:\n{}\nstderr:\n{}", ended.stdout, ended.stderr);
        ended
    }

    /// Starts `smelt ARGS` and leaves it running.
    pub fn spawn(&self, args: &[&str], vars: &[(&str, &str)]) -> Running {
        let log = self.path().join("smelt.log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = self.command(args, vars).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        Running { child, log }
    }

    /// Rows of a query, as JSON text, sorted.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<String> {
        let ended = self.smelt(&["query", sql, "--output", "json"]).ok();
        let mut rows: Vec<String> = ended.stdout.lines().map(str::to_string).collect();
        rows.sort();
        rows
    }

    /// The only value of a query with one row and one column.
    #[track_caller]
    pub fn value(&self, sql: &str) -> serde_json::Value {
        let rows = self.rows(sql);
        assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
        let row: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&rows[0]).unwrap();
        assert_eq!(row.len(), 1, "{sql}: {row:?}");
        row.into_iter().next().unwrap().1
    }

    /// `count(*)` of a table.
    #[track_caller]
    pub fn count(&self, table: &str) -> i64 {
        self.value(&format!("select count(*) as n from {table}")).as_i64().unwrap()
    }

    /// Path of a table in the sandbox's `lake`.
    pub fn table(&self, schema: &str, name: &str) -> PathBuf {
        self.path().join("lake").join(schema).join(name)
    }
}

/// A `smelt` that runs; killed when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        self.wait(Duration::from_secs(60))
    }

    /// Waits for the end; panics with the log when it takes longer.
    #[track_caller]
    pub fn wait(&mut self, patience: Duration) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < patience, "still running after {patience:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Everything it has printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what smelt printed:\n{}", self.log());
        }
        self.kill();
    }
}

/// Waits until `done` holds; panics with `what` when it takes longer than `patience`.
#[track_caller]
pub fn eventually(what: &str, patience: Duration, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < patience, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn smelt_binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_smelt"))
}
