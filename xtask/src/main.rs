//! The front door of the repository. It needs nothing but cargo.
//!
//! One file for each command; `say` talks, `run` starts programs and shows that they are alive, `debian` installs
//! the packages that a command needs, `tree` knows where things are.

mod account;
mod alternative;
mod bench;
mod build;
mod check;
mod compliance;
mod debian;
mod demo;
mod faults;
mod fuzz;
mod install;
mod kernel;
mod lab;
mod left;
mod machine;
mod manifest;
mod oracle;
mod package;
mod python;
mod race;
mod release;
mod reproduce;
mod run;
mod say;
mod service;
mod systemd;
mod test;
mod tree;
mod uninstall;

use std::ffi::OsString;
use std::process::ExitCode;

/// What a command answers: nothing, or one sentence that says what is wrong and what to do.
type Outcome<T = ()> = Result<T, String>;

const USAGE: &str = "\
cargo xtask COMMAND

  demo                      show Cellwall at work, next to stock suEXEC; changes nothing on this machine (root)
  test                      run every test (root)
  check                     format, lints, licences and advisories, rules of the house, documentation
  compliance                the same requests to stock suEXEC and to ours, and each difference (root)
  fuzz [--minutes N]        libFuzzer on every target of fuzz/, N minutes in total (nightly, root)
  miri                      the pure ones under Miri (nightly)
  faults                    every system call of a launch fails once, in every way that fits it (root)
  oracle [OPTIONS]          what `explain` predicts, and what the launcher then does, at random (root)
      --cases N             as many (default: 5000)
      --seed N              these and no others
  bench [NAME]              measure; NAME is launch unless given (root)
  race [--minutes N]        names that change places while launches go on; 10 minutes unless given (root)
  build                     the three release programs, in target/dist
  reproduce                 build the launcher twice, in different places, and compare bit for bit
  install [OPTIONS]         build and install (root)
      --destdir DIR         put everything beneath DIR and leave this machine alone
      --group NAME          the web server's group (default: www-data)
      --activate            let Debian's Apache use it at once
      --built               install what target/dist holds
  package [OPTIONS]         a package of Debian's, in target/package (root)
      --rpm                 one of Fedora's and RHEL's
      --built               of what target/dist holds
  systemd [OPTIONS]         that package under a real systemd: everything from its installation to purging (root)
      --before FILE         a package that is there first, and is upgraded to it; after the options below
  kernel [OPTIONS] [TEST [WORDS]]
                            tests on Debian's own kernel, in a virtual machine (root, qemu)
  release [OPTIONS] [TEST [WORDS]]
                            tests with a Debian's own servers and interpreters, on this machine's kernel (root)
      --debian RELEASE      for these three: another release than this machine's
      --built               what target/dist holds
      --arch ARCH           for the kernel: amd64 or arm64, made here and emulated
  uninstall [OPTIONS]       take away all that install and the programs made (root)
      --destdir DIR         as above
      --keep-config         leave /etc/cellwall
";

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<String> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match dispatch(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say::wrong(&why);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(words: &[String]) -> Outcome {
    let Some((command, options)) = words.split_first() else {
        print!("{USAGE}");
        return Ok(());
    };
    match (command.as_str(), options) {
        ("build", []) => build::programs(),
        ("install", _) => install::command(options),
        ("package", _) => package::command(options),
        ("systemd", _) => systemd::command(options),
        ("kernel", _) => kernel::command(options),
        ("release", _) => release::command(options),
        ("uninstall", _) => uninstall::command(options),
        ("demo", []) => demo::outside(),
        (demo::INSIDE, []) => demo::inside(),
        ("check", []) => check::everything(),
        ("test", _) => test::everything(options),
        ("compliance", []) => compliance::table(),
        ("fuzz", _) => fuzz::command(options),
        ("miri", []) => fuzz::miri(),
        ("reproduce", []) => reproduce::launcher(),
        ("faults", []) => faults::all(),
        ("oracle", _) => oracle::compare(options),
        ("bench", _) => bench::run(options),
        ("race", _) => race::run(options),
        ("help" | "--help" | "-h", _) => {
            print!("{USAGE}");
            Ok(())
        }
        ("build" | "check" | "compliance" | "demo" | "faults" | "miri" | "reproduce", [word, ..]) => {
            Err(format!("{command} takes no options, and got {word:?}."))
        }
        _ => Err(format!("There is no command {command:?}. These are:\n\n{USAGE}")),
    }
}
