//! The FastCGI pool mode. It is not built yet, and says so.
#![allow(clippy::print_stderr, reason = "a program speaks to its user")]

fn main() -> std::process::ExitCode {
    eprintln!("cellwalld: this version has no pool mode; sites run as CGI through cellwall-suexec");
    std::process::ExitCode::FAILURE
}
