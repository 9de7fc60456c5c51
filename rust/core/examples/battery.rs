//! The kernels' battery as a plain program: no threads, no test harness, so that it also runs under an emulator.
//!
//! `cargo run -p lossift-core --example battery` says which backends ran and were right, or where one was wrong.

use lossift_core::kernels::battery;
use std::process::ExitCode;

fn main() -> ExitCode {
    match battery::run() {
        Ok(names) => {
            println!("equal to the naive twin, bit for bit: {}", names.join(", "));
            ExitCode::SUCCESS
        }
        Err(difference) => {
            eprintln!("{difference}");
            ExitCode::FAILURE
        }
    }
}
