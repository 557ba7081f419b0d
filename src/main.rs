//! The `smelt` binary: hands the command line to [`smelt::cli`] and turns its verdict into an exit code.

/// Configured in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    smelt::cli::main()
}
