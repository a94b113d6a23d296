//! The private host: copies in memory of the directories that are written to, and Cellwall installed in them.

use std::fs;
use std::process::Command;

use crate::Outcome;
use crate::{run, tree};

/// Writes to these directories go to memory. A repository below a mount of its own stays visible.
const COPY: &str = r#"
set -eu
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/repository
mount --bind "$REPOSITORY" /mnt/repository
for directory in etc usr var; do
    mkdir -p /mnt/$directory/upper /mnt/$directory/work
    chmod 755 /mnt/$directory/upper
    mount -t overlay -o "lowerdir=/$directory,upperdir=/mnt/$directory/upper,workdir=/mnt/$directory/work" \
        overlay "/$directory"
done
mount -t tmpfs -o mode=755 tmpfs /run
if [ ! -e "$REPOSITORY/Cargo.toml" ]; then
    mkdir -p "$REPOSITORY"
    mount --bind /mnt/repository "$REPOSITORY"
fi
rm -rf /etc/cellwall /var/lib/cellwall /var/log/cellwall /var/www
install -d -m 755 /var/www /var/log/apache2
# Control groups belong to the machine, not to a namespace: without them limits are the process's own.
umount -R /sys/fs/cgroup 2>/dev/null || true
ip link set lo up
"#;

/// Users of the demonstration; their names and numbers are free in most places, and matter nowhere else.
pub(crate) const USERS: [(&str, u32); 2] = [("rose", 60_101), ("fern", 60_102)];

/// Makes the host, its users, and installs Cellwall.
pub(crate) fn prepare() -> Outcome {
    let mut copy = Command::new("sh");
    copy.args(["-c", COPY]).env("REPOSITORY", tree::root());
    run::quietly("copying directories to memory", &mut copy)?;
    for (name, id) in USERS {
        append(
            "/etc/passwd",
            &format!("{name}:x:{id}:{id}:demonstration:/var/www/{name}:/usr/sbin/nologin\n"),
        )?;
        append("/etc/group", &format!("{name}:x:{id}:\n"))?;
    }
    let me = std::env::current_exe().map_err(|why| format!("cannot find myself: {why}"))?;
    run::quietly("cargo xtask install", Command::new(me).args(["install", "--built"]))
}

/// Which launcher Apache starts from now on.
pub(crate) fn choose(launcher: &str) -> Outcome {
    run::quietly(
        "update-alternatives",
        Command::new("update-alternatives").args(["--set", "suexec", launcher]),
    )
}

/// Runs `cellwall` and answers what it printed, both streams.
pub(crate) fn cellwall(words: &[&str]) -> Outcome<(bool, String)> {
    let mut command = Command::new("cellwall");
    let output = command.args(words).output().map_err(|why| format!("cannot start cellwall: {why}"))?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn append(path: &str, line: &str) -> Outcome {
    let failed = |why| format!("cannot change the private {path}: {why}");
    let mut text = fs::read_to_string(path).map_err(failed)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    fs::write(path, text).map_err(failed)
}
