//! Where tests run on a Debian of their own: its directory, what they are told and what they say.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Outcome;
use crate::debian::{self, Debian, Options};
use crate::machine::{Emulation, Machine};
use crate::{build, python, run, say, tree};

/// A Debian that is kept, and what is said by the tests.
pub(crate) struct Lab {
    pub(crate) debian: Debian,
    pub(crate) base: PathBuf,
    pub(crate) said: PathBuf,
    /// A test program a line, and the words that choose among its tests.
    asked: Vec<String>,
}

impl Lab {
    /// All that is needed for the tests that are named, or for the `usual` ones.
    pub(crate) fn of(options: &Options<'_>, usual: &[&str]) -> Outcome<Self> {
        if let Some(word) = options.rest.first().filter(|word| word.starts_with('-')) {
            return Err(format!(
                "None of --debian RELEASE, --arch ARCH and --built: {word:?}. See: cargo xtask help"
            ));
        }
        debian::need(&[debian::BUILD, debian::SYSTEMD])?;
        python::need()?;
        let debian = options.debian.clone();
        if !options.built && debian.machine.is_own() {
            build::programs_quietly()?;
        }
        let usual = || usual.iter().map(|one| (*one).to_owned()).collect();
        let asked = if options.rest.is_empty() { usual() } else { vec![options.rest.join(" ")] };
        let place = tree::target().join("kernel").join(debian.name());
        let lab = Self { debian, base: place.join("base"), said: place.join("said"), asked };
        lab.debian()?;
        lab.furnish()?;
        Ok(lab)
    }

    fn debian(&self) -> Outcome {
        debian::once(&self.base, "tests", "Making a Debian with a kernel", || {
            let machine = self.debian.machine;
            let _emulation = Emulation::of(machine)?;
            debian::bootstrap(&self.base, &self.debian, "systemd,systemd-sysv,udev,kmod")?;
            let kernel = format!("linux-image-{}", machine.debian);
            let packages = [&[kernel.as_str()], debian::BUILD, debian::DEMO, debian::TEST].concat().join(" ");
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh"]).arg(tree::root().join("tests/kernel/debian.sh"));
            run::quietly("apt-get", command.arg(&self.base).arg(packages))
        })
    }

    /// The repository at its own place, its programs, and the tests that were asked for.
    fn furnish(&self) -> Outcome {
        let root = tree::root();
        tree::remove(&self.said)?;
        make(&self.said)?;
        let there = self.base.join(root.strip_prefix("/").unwrap_or(&root));
        tree::remove(&there)?;
        make(&there)?;
        let mut copy = Command::new("sh");
        copy.args(["-c", "git ls-files -z | tar --null -T - -cf - | tar -C \"$0\" -xf -"]).arg(&there);
        run::quietly("copy", copy.current_dir(&root))?;
        let programs = there.join("target/dist");
        make(&programs)?;
        // The place of cargo's, by which they know what else is there.
        let tests = there.join("target/debug/deps");
        make(&tests)?;
        make(&there.join("target/tmp"))?;
        let machine = self.debian.machine;
        if machine.is_own() {
            run::quietly("cp", Command::new("cp").arg("-a").arg(tree::dist().join(".")).arg(&programs))?;
        } else {
            build::programs_for(machine, &programs)?;
        }
        let python = tree::target().join("python");
        run::quietly("cp", Command::new("cp").arg("-a").arg(python).arg(there.join("target")))?;
        let asked = self.asked.iter().filter_map(|one| one.split(' ').next()).collect::<Vec<_>>();
        for (name, program) in compiled(machine, &asked)? {
            let to = tests.join(&name);
            run::quietly("strip", Command::new(machine.tool("strip")).arg("-o").arg(&to).arg(&program))?;
        }
        let units = self.base.join("etc/systemd/system");
        let tests = self.base.join("tests");
        for (from, to) in [("run.sh", &tests), ("list.sh", &tests), ("tests.service", &units)] {
            let from = root.join("tests/kernel").join(from);
            let to = to.join(from.file_name().unwrap_or_default());
            fs::copy(&from, to).map_err(|why| format!("{}: {why}", from.display()))?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.tell("now", &now.to_string())?;
        self.tell("root", &root.display().to_string())?;
        self.tell("list", &format!("{}\n", self.asked.join("\n")))?;
        Ok(())
    }

    fn tell(&self, name: &str, text: &str) -> Outcome {
        fs::write(self.said.join(name), text).map_err(|why| format!("{name}: {why}"))
    }

    pub(crate) fn report(&self) -> Outcome {
        let read = |name: &str| fs::read_to_string(self.said.join(name)).unwrap_or_default();
        let (host, results) = (read("host"), read("results"));
        print!("{host}{results}");
        let good = results.lines().filter(|line| line.contains(": test result: ok.")).count();
        if good == self.asked.len() && results.ends_with("end\n") {
            return Ok(());
        }
        Err(format!("Not all of it passed; what each said is in {}", self.said.display()))
    }
}

/// The test programs that are asked for, by their names, compiled. The library's own has the name of the crate.
fn compiled(machine: &Machine, asked: &[&str]) -> Outcome<Vec<(String, PathBuf)>> {
    say::step("Compiling the tests");
    let mut cargo = machine.cargo(&["test", "--no-run", "--message-format=json"]);
    for name in asked {
        match *name {
            "cellwall" => cargo.arg("--lib"),
            name => cargo.args(["--test", name]),
        };
    }
    let said = run::output(&mut cargo)?;
    let field = |line: &str, name: &str| {
        let rest = line.split_once(&format!("\"{name}\":\""))?.1;
        rest.split('"').next().map(str::to_owned)
    };
    let programs =
        said.lines().filter(|line| line.contains("\"test\":true}") && line.contains("\"executable\":\""));
    let all: Vec<_> = programs
        .filter_map(|line| {
            let target = line.split_once("\"target\":{")?.1;
            Some((
                field(target, "name")?,
                PathBuf::from(field(line, "executable")?),
                target.contains("\"kind\":[\"bin\"]"),
            ))
        })
        .filter(|(.., is_program)| !is_program)
        .map(|(name, program, _)| (name, program))
        .collect();
    if all.is_empty() { Err("The tests do not compile: cargo test --no-run".to_owned()) } else { Ok(all) }
}

fn make(directory: &Path) -> Outcome {
    let made = fs::create_dir_all(directory);
    let made = made.and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(0o755)));
    made.map_err(|why| format!("{}: {why}", directory.display()))
}
