//! Every parser of foreign bytes against mutated files: none may panic, and each must come to an end.
//!
//! In a test run each parser gets a fixed number of inputs, the same ones each time. `FUZZ_SECONDS=600` goes on for so long with
//! other inputs, and `FUZZ_SEED` chooses those. Seeds are the files of `tests/data/fuzz/<parser>/` and those that a target names. An
//! input that fails is written into that folder, where it stays as a test. One that ends the process, as an exhausted stack does, is
//! left in `target/tmp/fuzz-<parser>`.

mod driver;
mod targets;
