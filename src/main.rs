//! The `stellar-score` binary; all of its code is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    stellar_score::cli::main()
}
