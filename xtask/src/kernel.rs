//! `kernel`: tests on Debian's own kernel, in a virtual machine. Its age, its security modules and its control groups are those
//! that most hosts have, and not this machine's. It is emulated: a test takes some twenty times as long, and those that measure
//! time may fail.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::Outcome;
use crate::{build, debian, python, run, say, tree};

/// What runs unless something is named: the cells, their limits, and the attacks on them.
const USUAL: [&str; 6] =
    ["cellwall", "launch", "jail", "pool limits::", "attacks jail:: llk:: inh:: idn:: pth::", "admin"];
/// Seconds that all of it may take.
const LIMIT: &str = "14400";

/// `kernel [TESTS WORDS...]`
pub(crate) fn command(words: &[String]) -> Outcome {
    tree::need_root("kernel")?;
    debian::need(&[debian::BUILD, debian::SYSTEMD, debian::KERNEL])?;
    python::need()?;
    build::programs_quietly()?;
    let place = tree::target().join("kernel");
    let lab = Lab { base: place.join("base"), said: place.join("said"), image: place.join("image") };
    let asked = if words.is_empty() { USUAL.map(str::to_owned).to_vec() } else { vec![words.join(" ")] };
    lab.debian()?;
    lab.furnish(&asked)?;
    lab.boot()?;
    lab.report(asked.len())
}

/// A Debian that is kept, what is said by the tests, and the disk that is booted.
struct Lab {
    base: PathBuf,
    said: PathBuf,
    image: PathBuf,
}

impl Lab {
    /// Made once, and again where making it was interrupted.
    fn debian(&self) -> Outcome {
        let whole = self.base.join("tests");
        if whole.exists() {
            return Ok(());
        }
        say::step("Making a Debian with a kernel; once, it takes some minutes");
        tree::remove(&self.base)?;
        debian::bootstrap(&self.base, "systemd,systemd-sysv,udev,kmod")?;
        let packages = [debian::BUILD, debian::DEMO, debian::TEST].concat().join(" ");
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh"]).arg(tree::root().join("tests/kernel/debian.sh"));
        run::quietly("apt-get", command.arg(&self.base).arg(packages))?;
        make(&whole)
    }

    /// The repository at its own place, its programs, and the tests that were asked for.
    fn furnish(&self, asked: &[String]) -> Outcome {
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
        run::quietly("cp", Command::new("cp").arg("-a").arg(tree::dist().join(".")).arg(&programs))?;
        let python = tree::target().join("python");
        run::quietly("cp", Command::new("cp").arg("-a").arg(python).arg(there.join("target")))?;
        for (name, program) in compiled()? {
            if asked.iter().any(|one| one.split(' ').next() == Some(&name)) {
                let to = tests.join(&name);
                run::quietly("strip", Command::new("strip").arg("-o").arg(&to).arg(&program))?;
            }
        }
        let units = self.base.join("etc/systemd/system");
        for (from, to) in [("run.sh", &self.base.join("tests")), ("tests.service", &units)] {
            let from = root.join("tests/kernel").join(from);
            let to = to.join(from.file_name().unwrap_or_default());
            fs::copy(&from, to).map_err(|why| format!("{}: {why}", from.display()))?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.tell("now", &now.to_string())?;
        self.tell("root", &root.display().to_string())?;
        self.tell("list", &format!("{}\n", asked.join("\n")))?;
        drop(fs::remove_file(&self.image));
        let mut image = Command::new("mke2fs");
        image.args(["-q", "-t", "ext4", "-d"]).arg(&self.base).arg(&self.image);
        run::quietly("mke2fs", image.arg("8G"))
    }

    fn tell(&self, name: &str, text: &str) -> Outcome {
        fs::write(self.said.join(name), text).map_err(|why| format!("{name}: {why}"))
    }

    /// Until the tests have ended.
    fn boot(&self) -> Outcome {
        say::step("The tests, on Debian's kernel");
        let boot = self.base.join("boot");
        let named = |what: &str| -> Outcome<PathBuf> {
            let entries = fs::read_dir(&boot).map_err(|why| format!("{}: {why}", boot.display()))?;
            let name = |path: &PathBuf| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(what))
            };
            entries
                .flatten()
                .map(|entry| entry.path())
                .find(name)
                .ok_or(format!("{} has no {what}", boot.display()))
        };
        let mut qemu = Command::new("timeout");
        qemu.args([
            LIMIT,
            "qemu-system-x86_64",
            "-machine",
            "q35,accel=tcg",
            "-cpu",
            "max",
            "-m",
            "4G",
            "-smp",
            "2",
        ]);
        qemu.args(["-nographic", "-no-reboot", "-kernel"])
            .arg(named("vmlinuz")?)
            .arg("-initrd")
            .arg(named("initrd")?);
        qemu.args(["-append", "root=/dev/vda rw console=ttyS0 quiet systemd.unit=tests.service", "-drive"]);
        qemu.arg(format!("file={},format=raw,if=virtio,snapshot=on", self.image.display())).arg("-virtfs");
        qemu.arg(format!("local,path={},mount_tag=said,security_model=none", self.said.display()));
        run::quietly("the machine", &mut qemu)
    }

    fn report(&self, asked: usize) -> Outcome {
        let read = |name: &str| fs::read_to_string(self.said.join(name)).unwrap_or_default();
        let (host, results) = (read("host"), read("results"));
        print!("{host}{results}");
        let good = results.lines().filter(|line| line.contains(": test result: ok.")).count();
        if good == asked && results.ends_with("end\n") {
            return Ok(());
        }
        Err(format!("Not all of it passed; what each said is in {}", self.said.display()))
    }
}

/// The test programs by their names, compiled.
fn compiled() -> Outcome<Vec<(String, PathBuf)>> {
    say::step("Compiling the tests");
    let said = run::output(&mut run::cargo(&["test", "--no-run", "--message-format=json"]))?;
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
