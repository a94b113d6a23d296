//! Installs and uninstalls, and looks at what is there before, between and after. Root.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::{fs, process};

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
/// Every file with what it is, whose it is, what is in it; without what package tools log and cache.
const LIST: &str = "
    list() {
        find /etc /usr/lib /usr/bin /usr/sbin /usr/share /var /run /srv -xdev \\
            \\( -path /var/cache -o -path /var/log/alternatives.log -o -path /var/lib/dpkg/alternatives \\) -prune -o \\
            \\( -type d -printf '%p %M %U %G\\n' -o -printf '%p %M %U %G %s %T@ %l\\n' \\) | sort
        update-alternatives --query suexec 2>/dev/null || true
    }
";

fn assert_root() {
    let uid = fs::metadata("/proc/self").unwrap().uid();
    assert_eq!(uid, 0, "this test needs root; run: sudo cargo xtask test");
}

fn in_a_copy_of_the_host(script: &str) -> String {
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

#[test]
fn uninstall_leaves_nothing() {
    let said = in_a_copy_of_the_host(
        "
        echo shop:x:61001:61001::/var/www/shop:/bin/false >> /etc/passwd
        echo shop:x:61001: >> /etc/group
        install -d -o 61001 -g 61001 /var/www/shop
        list > /mnt/before
        $XTASK install > /mnt/install
        list > /mnt/between
        # What the programs make, and what people write.
        touch /var/log/cellwall/cellwall.log
        printf 'user = \"shop\"\ndocroot = \"/var/www/shop\"\nprofile = \"static\"\n' > /etc/cellwall/sites.d/shop.toml
        cellwall apply
        grep -c ' /run/cellwall/views/.* - nsfs ' /proc/self/mountinfo
        test -d /var/lib/cellwall/private/61001/shop
        mkdir -p /mnt/groups/cellwall/1001-shop
        $XTASK uninstall
        test ! -e /mnt/groups/cellwall
        ! grep /run/cellwall /proc/self/mountinfo
        list > /mnt/after
        cmp /mnt/before /mnt/between > /dev/null && echo NOTHING WAS INSTALLED
        diff /mnt/before /mnt/after && echo SAME
        ",
    );
    assert!(said.lines().any(|line| line == "1"), "one view was to be kept:\n{said}");
    assert!(said.ends_with("SAME\n") && !said.contains("NOTHING WAS INSTALLED"), "{said}");
}

#[test]
fn installed_files_have_the_manifests_owners_and_modes() {
    let said = in_a_copy_of_the_host(
        "
        $XTASK install > /mnt/said
        stat -c '%A %U:%G %n' /usr/lib/cellwall/cellwall-suexec /usr/bin/cellwall /var/lib/cellwall/policy
        $XTASK install --activate >> /mnt/said
        readlink -f /usr/lib/apache2/suexec
        setpriv --reuid www-data --regid www-data --clear-groups /usr/lib/apache2/suexec -V 2>&1
        $XTASK uninstall > /mnt/said
        readlink -f /usr/lib/apache2/suexec
        ",
    );
    for line in [
        "-rwsr-x--- root:www-data /usr/lib/cellwall/cellwall-suexec",
        "-rwxr-xr-x root:root /usr/bin/cellwall",
        "drwx------ root:root /var/lib/cellwall/policy",
        "/usr/lib/cellwall/cellwall-suexec",
        " -D AP_HTTPD_USER=\"www-data\"",
    ] {
        assert!(said.lines().any(|found| found == line), "{line}\n{said}");
    }
    assert!(said.trim_end().ends_with("/usr/lib/apache2/suexec-pristine"), "{said}");
}

#[test]
fn the_readmes_site_file_runs_a_php_file_without_a_wrapper() {
    let said = in_a_copy_of_the_host(
        "
        echo shop:x:61001:61001::/srv/www/shop:/bin/false >> /etc/passwd
        echo shop:x:61001: >> /etc/group
        mount -t tmpfs -o mode=755 tmpfs /srv
        mkdir -p /srv/www
        install -d -o 61001 -g 61001 /srv/www/shop /srv/www/shop/htdocs /srv/www/shop/htdocs/uploads
        echo '<?php echo \"PHP as \", posix_geteuid(), \"\\n\";' > /srv/www/shop/htdocs/a.php
        chown 61001:61001 /srv/www/shop/htdocs/a.php
        $XTASK install --activate > /mnt/said
        sed -n '/^```toml$/,/^```$/p' \"$REPOSITORY/README.md\" | grep -v '^```' > /etc/cellwall/sites.d/shop.toml
        cellwall apply 2>&1
        cd /srv/www/shop/htdocs
        setpriv --reuid www-data --regid www-data --clear-groups /usr/lib/apache2/suexec 61001 61001 a.php 2>&1
        cellwall explain shop shop /srv/www/shop/htdocs a.php
        echo '<?php echo \"cron as \", posix_geteuid(), \"\\n\";' > cron.php
        cellwall run shop -- php /srv/www/shop/htdocs/cron.php 2>&1
        ",
    );
    for line in ["applied 1 site", "PHP as 61001", "a rehearsal stops here", "cron as 61001"] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[test]
fn configuration_survives_a_second_installation_and_keep_config() {
    let said = in_a_copy_of_the_host(
        "
        $XTASK install > /mnt/said
        echo '# mine' >> /etc/cellwall/cellwall.toml
        $XTASK install > /mnt/said
        $XTASK uninstall --keep-config > /mnt/said
        tail -n 1 /etc/cellwall/cellwall.toml
        find / -xdev -name 'cellwall*' -not -path '/proc/*' -path '/usr/*'
        ",
    );
    assert_eq!(said, "# mine\n");
}

#[test]
fn a_destination_directory_is_left_empty_and_gone() {
    assert_root();
    let directory = std::env::temp_dir().join(format!("cellwall-destdir-{}", process::id()));
    let run = |command: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args([command, "--destdir"])
            .arg(&directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run("install");
    let launcher = fs::metadata(directory.join("usr/lib/cellwall/cellwall-suexec")).unwrap();
    assert_eq!(launcher.mode() & 0o7777, 0o4750);
    assert!(directory.join("etc/cellwall/sites.d").is_dir());
    assert!(directory.join("usr/share/cellwall/profiles/php.toml").is_file());
    run("uninstall");
    assert!(!Path::new(&directory).exists());
}

#[test]
fn a_group_that_the_machine_lacks_is_named_with_the_remedy() {
    assert_root();
    let directory = std::env::temp_dir().join(format!("cellwall-group-{}", process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["install", "--group", "no-such-group", "--destdir"])
        .arg(&directory)
        .output()
        .unwrap();
    drop(fs::remove_dir_all(&directory));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(words.contains("no-such-group") && words.contains("--group"), "{words}");
}
