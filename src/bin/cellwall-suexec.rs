//! The setuid launcher. Its pipeline is not complete: it refuses everything, with suEXEC's status for a missing policy.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(121)
}
