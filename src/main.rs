//! The `likewise` program: reads the command line and runs one command.

use std::process::ExitCode;

mod cli;

// Long-running servers under many small allocations: memory stays where it was.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
