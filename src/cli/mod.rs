//! Arguments, printing, exit codes.

/// Runs the command line; the exit code is 0 for success, 1 when a model or test failed, 2 for usage or project errors.
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
