//! `cellwall`: the administrator's command.

fn main() -> std::process::ExitCode {
    cellwall::admin::run()
}
