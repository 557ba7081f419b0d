//! A small HTTP server for the documentation: it answers GET and HEAD for the few files the page is made of, and nothing else.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::args::DocsServe;
use super::super::run::stop_signal;
use super::super::{Exit, print};
use super::{FILES, Session};
use crate::error::Error;

/// Longer requests are no requests for our files.
const LONGEST_REQUEST: usize = 16 * 1024;
/// A client that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(10);

pub(in super::super) async fn serve(session: &Session, options: &DocsServe) -> Result<Exit, Vec<Error>> {
    let target = session.dir.join("target");
    if !target.join(FILES[0]).exists() {
        let error = Error::user("no-docs", format!("there is no {}", target.join(FILES[0]).display()));
        return Err(vec![error.with_hint("make it first: smelt docs generate")]);
    }
    let address = format!("{}:{}", options.host, options.port);
    let listener = TcpListener::bind((options.host.as_str(), options.port)).await.map_err(|e| {
        let error = Error::environment("cannot-listen", format!("cannot listen on {address}: {e}")).permanent();
        vec![error.with_hint("choose another port: smelt docs serve --port 8081")]
    })?;
    let port = listener.local_addr().map_or(options.port, |a| a.port());
    let url = format!("http://{}:{port}", options.host);
    // Also with --quiet: which port was taken for 0 stands nowhere else.
    print::line(&format!("docs are at {url}; Ctrl-C ends"));
    if !options.no_browser && std::io::stdout().is_terminal() {
        open_browser(&url);
    }
    let target: Arc<Path> = target.into();
    let mut stop = stop_signal();
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(Exit::Success),
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                let target = Arc::clone(&target);
                tokio::spawn(async move {
                    let answered = tokio::time::timeout(PATIENCE, answer(stream, &target)).await;
                    if let Ok(Err(error)) = answered {
                        tracing::debug!(%error, "a reader of the docs went away");
                    }
                });
            },
        }
    }
}

/// One request, one answer; the connection is closed after it.
async fn answer(mut stream: TcpStream, target: &Path) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        if request.len() > LONGEST_REQUEST || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request);
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, kind, body) = match file_of(method, path) {
        Ok(name) => match tokio::fs::read(target.join(name)).await {
            Ok(body) => ("200 OK", content_type(name), body),
            Err(_) => ("404 Not Found", "text/plain", b"not generated\n".to_vec()),
        },
        Err(status) => (status, "text/plain", format!("{status}\n").into_bytes()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-cache\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(&body).await?;
    }
    stream.shutdown().await
}

/// The file that is asked for, or the status that refuses.
fn file_of(method: &str, path: &str) -> Result<&'static str, &'static str> {
    if !matches!(method, "GET" | "HEAD") {
        return Err("405 Method Not Allowed");
    }
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let name = if path == "/" { FILES[0] } else { path.trim_start_matches('/') };
    FILES.into_iter().find(|file| *file == name).ok_or("404 Not Found")
}

fn content_type(name: &str) -> &'static str {
    if name.ends_with(".html") { "text/html" } else { "application/json" }
}

/// Without one there is still the address that was printed.
fn open_browser(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let nothing = std::process::Stdio::null;
    let _ = std::process::Command::new(program).arg(url).stdin(nothing()).stdout(nothing()).stderr(nothing()).spawn();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_the_page_are_served() {
        assert_eq!(file_of("GET", "/"), Ok("index.html"));
        assert_eq!(file_of("HEAD", "/manifest.json?x=1"), Ok("manifest.json"));
        assert_eq!(file_of("GET", "/../smelt.yml"), Err("404 Not Found"));
        assert_eq!(file_of("GET", "/compiled/a.sql"), Err("404 Not Found"));
        assert_eq!(file_of("POST", "/"), Err("405 Method Not Allowed"));
    }
}
