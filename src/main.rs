//! The `stellar-score` program; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    stellar_score::cli::main()
}
