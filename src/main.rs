//! The `consilience` binary: parse, run, exit code.

fn main() -> std::process::ExitCode {
    consilience::cli::run()
}
