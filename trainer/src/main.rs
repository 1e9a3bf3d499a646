//! `facelatch`: the workstation's program.

fn main() -> std::process::ExitCode {
    facelatch_trainer::cli::run()
}
