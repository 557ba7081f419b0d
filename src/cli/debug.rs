//! `smelt debug`: what this project, target and lake look like from here, and whether everything they name can be reached.
//!
//! Each check is a line as soon as it is made; on a terminal a line below them says what is being asked. `--output json` is one object
//! with all of it.

use serde_json::{Value, json};

use super::args::Report;
use super::print::Status;
use super::session::Session;
use super::{Exit, print};
use crate::error::{Error, Result};
use crate::project::Connector;
use crate::runtime;

pub(super) async fn debug(session: &Session, output: Report) -> Result<Exit, Vec<Error>> {
    let mut report = Said { session, output, status: Status::new(session.quiet), checks: Vec::new(), failed: false };
    report.line(&format!("smelt {}", env!("CARGO_PKG_VERSION")));
    report.line(&format!("project folder  {}", session.dir.display()));
    let project = session.load()?;
    let (models, sources) = (project.models.len(), project.sources.len());
    report.line(&format!("project         {} ({models} models, {sources} sources)", project.name));
    report.line(&format!("target          {}", project.target.name));
    report.line(&format!("lake            {}", project.target.lake));

    report.status.show("asking the lake");
    let lake = runtime::probe_lake(&session.env, &project).await;
    report.checked("lake", &project.target.lake, "                ", lake);
    let mut connections = Vec::new();
    for (name, connection) in &project.target.connections {
        report.line(&format!("connection      {name} ({})", connection.kind));
        connections.push(json!({"name": name, "type": connection.kind}));
    }
    let streams: Vec<_> = project.sources.iter().filter(|s| matches!(s.connector, Connector::Kafka(_))).collect();
    for (number, source) in streams.iter().enumerate() {
        let name = format!("{}.{}", source.source, source.name);
        report.status.show(&format!("asking source {} of {}: {name}", number + 1, streams.len()));
        let found = runtime::probe_source(&session.env, &project, source).await;
        let found = found.map(|partitions| format!("{partitions} partitions"));
        report.checked("source", &name, &format!("source          {name}: "), found);
    }
    report.status.clear();
    if let Report::Json = output {
        let all = json!({
            "smelt_version": env!("CARGO_PKG_VERSION"),
            "project_dir": session.dir,
            "project": project.name,
            "models": models,
            "sources": sources,
            "target": project.target.name,
            "lake": project.target.lake,
            "connections": connections,
            "checks": report.checks,
        });
        print::line(&session.env.redact(&all.to_string()));
    }
    Ok(if report.failed { Exit::Failed } else { Exit::Success })
}

/// What was found so far.
struct Said<'a> {
    session: &'a Session,
    output: Report,
    status: Status,
    checks: Vec<Value>,
    failed: bool,
}

impl Said<'_> {
    fn line(&self, text: &str) {
        if let Report::Text = self.output {
            self.status.clear();
            print::line(&self.session.env.redact(text));
        }
    }

    /// A check has ended: a line that begins with `label`, or an error.
    fn checked(&mut self, kind: &str, name: &str, label: &str, outcome: Result<String>) {
        let mut check = json!({"check": kind, "name": name});
        match outcome {
            Ok(found) => {
                self.line(&format!("{label}{found}"));
                check["status"] = "ok".into();
                check["found"] = found.into();
            }
            Err(error) => {
                self.failed = true;
                self.status.clear();
                self.session.print_error(&error);
                check["status"] = "error".into();
                check["code"] = error.code().into();
                check["message"] = error.message().into();
                check["hint"] = error.hint().into();
            }
        }
        self.checks.push(check);
    }
}
