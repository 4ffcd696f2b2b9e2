//! Every parser of untrusted bytes on mutated files: none may panic, and each must terminate.
//!
//! A test run gives each parser a fixed number of inputs, the same ones every time.
//! `FUZZ_SECONDS=600` runs each parser for 600 seconds with other inputs; `FUZZ_SEED` selects them.
//! Seeds are the files of `tests/data/fuzz/<parser>/` and those in the code of a target. A failing
//! input is written to that folder and stays as a test. An input that kills the process, for
//! example by exhausting the stack, is left in `target/tmp/fuzz-<parser>`.

mod adapters;
mod driver;
mod targets;
