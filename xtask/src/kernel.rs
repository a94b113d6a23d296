//! `kernel`: tests on Debian's own kernel, in a virtual machine. Its age, its security modules and its control groups are those
//! that most hosts have, and not this machine's. It is emulated: a test takes some twenty times as long, and those that measure
//! time may fail.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::lab::Lab;
use crate::{debian, run, say, tree};

/// What runs unless something is named: the cells, their limits, and the attacks on them.
const USUAL: [&str; 6] =
    ["cellwall", "launch", "jail", "pool limits::", "attacks jail:: llk:: inh:: idn:: pth::", "admin"];
/// Seconds that all of it may take.
const LIMIT: &str = "14400";

/// `kernel [--debian RELEASE] [--arch ARCH] [--built] [TEST [WORDS]]`
pub(crate) fn command(words: &[String]) -> Outcome {
    tree::need_root("kernel")?;
    let options = debian::options(words)?;
    debian::need(&[debian::KERNEL, &options.debian.machine.packages()])?;
    let lab = Lab::of(&options, &USUAL)?;
    boot(&lab, &image(&lab)?)?;
    lab.report()
}

/// The disk that is booted.
fn image(lab: &Lab) -> Outcome<PathBuf> {
    let image = lab.base.with_file_name("image");
    drop(fs::remove_file(&image));
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-t", "ext4", "-d"]).arg(&lab.base).arg(&image);
    run::quietly("mke2fs", command.arg("8G"))?;
    Ok(image)
}

/// Until the tests have ended.
fn boot(lab: &Lab, image: &Path) -> Outcome {
    say::step("The tests, on Debian's kernel");
    let boot = lab.base.join("boot");
    let named = |what: &str| -> Outcome<PathBuf> {
        let entries = fs::read_dir(&boot).map_err(|why| format!("{}: {why}", boot.display()))?;
        let name =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(what));
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(name)
            .ok_or(format!("{} has no {what}", boot.display()))
    };
    let mut qemu = Command::new("timeout");
    let machine = lab.debian.machine;
    qemu.arg(LIMIT).args(machine.emulator).args(["-cpu", "max", "-m", "4G", "-smp", "2"]);
    qemu.args(["-nographic", "-no-reboot", "-kernel"])
        .arg(named("vmlinuz")?)
        .arg("-initrd")
        .arg(named("initrd")?);
    let words = format!("root=/dev/vda rw console={} quiet systemd.unit=tests.service", machine.console);
    qemu.args(["-append", &words, "-drive"]);
    qemu.arg(format!("file={},format=raw,if=virtio,snapshot=on", image.display())).arg("-virtfs");
    qemu.arg(format!("local,path={},mount_tag=said,security_model=none", lab.said.display()));
    run::quietly("the machine", &mut qemu)
}
