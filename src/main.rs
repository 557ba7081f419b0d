//! The `smelt` binary: hands the command line to [`smelt::cli`] and turns its verdict into an exit code.

fn main() -> std::process::ExitCode {
    smelt::cli::main()
}
