//! The binary `bursar`.

use std::process::ExitCode;

fn main() -> ExitCode {
    bursar_server::cli::main()
}
