//! The `stellar-score` binary; all of its code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    stellar_score::cli::main()
}
