//! A copy of the host in which tests install what they like, and a systemd that is none.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// A copy of the host in a mount namespace: whatever is written to these directories is written to memory.
const COPY: &str = "
    set -eu
    mount --make-rprivate /
    mount -t tmpfs -o mode=755 tmpfs /mnt
    for directory in etc usr var; do
        mkdir -p /mnt/$directory/upper /mnt/$directory/work
        chmod 755 /mnt/$directory/upper
        mount -t overlay -o lowerdir=/$directory,upperdir=/mnt/$directory/upper,workdir=/mnt/$directory/work overlay /$directory
    done
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir /run/mount /mnt/groups
    # Control groups are the machine's: instead of them a hierarchy that only this test sees.
    umount -R /sys/fs/cgroup
    mount -t cgroup -o none,name=cellwall-test cgroup /mnt/groups
    rm -rf /etc/cellwall /var/lib/cellwall /var/log/cellwall /usr/lib/cellwall /usr/share/cellwall
";
/// Every file with what it is, whose it is, what is in it; without what package tools log and cache. Of the accounts' files what
/// is in them: to make an account and to take it away again makes them anew.
const LIST: &str = "
    list() {
        find /etc /usr/lib /usr/bin /usr/sbin /usr/share /var /run /srv -xdev \\
            \\( -path /var/cache -o -path /var/log/alternatives.log -o -path /var/lib/dpkg/alternatives -o -path '/etc/passwd*' \\
            -o -path '/etc/group*' -o -path '/etc/shadow*' -o -path '/etc/gshadow*' -o -path /etc/.pwd.lock \\) -prune -o \\
            \\( -type d -printf '%p %M %U %G\\n' -o -printf '%p %M %U %G %s %T@ %l\\n' \\) | sort
        update-alternatives --query suexec 2>/dev/null || true
        cat /etc/passwd /etc/group /etc/shadow /etc/gshadow
    }
";

pub(crate) fn assert_root() {
    let uid = fs::metadata("/proc/self").unwrap().uid();
    assert_eq!(uid, 0, "this test needs root; run: sudo cargo xtask test");
}

pub(crate) fn in_a_copy_of_the_host(script: &str) -> String {
    assert_root();
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &format!("{COPY}{LIST}{script}")])
        .env("XTASK", env!("CARGO_BIN_EXE_xtask"))
        .env("REPOSITORY", concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{out}\n{err}");
    out.into_owned()
}

/// A systemctl that writes down what it is asked, where systemd seems to run.
pub(crate) const SYSTEMD: &str = "
    mkdir -p /run/systemd/system
    printf '#!/bin/sh\necho \"$*\" >> /mnt/asked\necho unit\n' > /mnt/systemctl
    chmod 755 /mnt/systemctl
    mount --bind /mnt/systemctl /usr/bin/systemctl
";
