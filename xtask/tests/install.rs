//! Installs and uninstalls, and looks at what is there before, between and after. Root.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod copy;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::{fs, process};

use copy::{SYSTEMD, assert_root, in_a_copy_of_the_host};

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
        getent passwd cellwall | cut -d: -f1,7 && getent group cellwall | cut -d: -f1
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
    assert!(said.starts_with("cellwall:/usr/sbin/nologin\ncellwall\n"), "the broker's account: {said}");
    // Its mounts, and its objects of System V.
    assert!(said.lines().any(|line| line == "2"), "one view was to be kept:\n{said}");
    assert!(said.ends_with("SAME\n") && !said.contains("NOTHING WAS INSTALLED"), "{said}");
}

#[test]
fn an_account_that_was_there_stays() {
    let said = in_a_copy_of_the_host(
        "
        useradd --system --user-group --shell /bin/false cellwall
        $XTASK install > /mnt/said
        $XTASK uninstall > /mnt/said
        getent passwd cellwall | cut -d: -f1,7
        ",
    );
    assert_eq!(said, "cellwall:/bin/false\n");
}

#[test]
fn a_machine_without_apache_gets_all_but_the_link() {
    let said = in_a_copy_of_the_host(
        "
        update-alternatives --quiet --remove-all suexec
        rm -rf /usr/lib/apache2
        list > /mnt/before
        $XTASK install
        test -s /var/lib/cellwall/policy/host
        test ! -e /usr/lib/apache2
        $XTASK uninstall > /mnt/uninstall
        list > /mnt/after
        diff /mnt/before /mnt/after && echo SAME
        ",
    );
    assert!(said.contains("there is no Apache of Debian's here") && said.ends_with("SAME\n"), "{said}");
    assert!(!said.contains("let Apache use Cellwall"), "{said}");
}

#[test]
fn a_machine_with_httpd_is_told_its_drop_in_and_loses_it_with_us() {
    let said = in_a_copy_of_the_host(&format!(
        "{SYSTEMD}
        rm -rf /usr/lib/apache2
        touch /usr/sbin/suexec
        list > /mnt/before
        $XTASK install --built | grep -A 2 httpd > /mnt/advice
        grep '^        ' /mnt/advice | head -n 1 > /mnt/paste
        . /mnt/paste
        test -s /etc/systemd/system/httpd.service.d/cellwall.conf
        cat /mnt/advice
        : > /mnt/asked
        $XTASK uninstall > /mnt/said
        tail -n 3 /mnt/asked
        list > /mnt/after
        diff /mnt/before /mnt/after && echo SAME
        "
    ));
    assert!(said.contains("httpd starts /usr/sbin/suexec; let it start Cellwall"), "{said}");
    assert!(said.contains("        systemctl daemon-reload && systemctl restart httpd\n"), "{said}");
    assert!(said.ends_with("daemon-reload\ntry-restart httpd.service\ndaemon-reload\nSAME\n"), "{said}");
}

#[test]
fn what_an_installation_made_is_written_down_when_it_fails_as_well() {
    let said = in_a_copy_of_the_host(
        "
        list > /mnt/before
        cp /usr/bin/update-alternatives /mnt/tool
        printf '#!/bin/sh\ntest \"$1\" != --install || exit 2\nexec /mnt/tool \"$@\"\n' > /mnt/broken
        chmod 755 /mnt/broken
        mount --bind /mnt/broken /usr/bin/update-alternatives
        ! $XTASK install > /mnt/said 2>&1
        cat /var/lib/cellwall/installed
        umount /usr/bin/update-alternatives
        $XTASK uninstall > /mnt/said
        list > /mnt/after
        diff /mnt/before /mnt/after && echo SAME
        ",
    );
    assert!(said.starts_with("account\napache auto\n") && said.ends_with("SAME\n"), "{said}");
}

#[test]
fn the_daemon_is_renewed_by_install_and_ended_first_by_uninstall() {
    let said = in_a_copy_of_the_host(&format!(
        "{SYSTEMD}
        $XTASK install > /mnt/said
        grep -o 'systemctl enable --now cellwalld$' /mnt/said
        systemd-analyze verify --man=no /usr/lib/systemd/system/cellwall*
        $XTASK uninstall > /mnt/said
        grep -v list-unit-files /mnt/asked
        "
    ));
    let expected = "systemctl enable --now cellwalld\ndaemon-reload\nis-active --quiet cellwalld.service\n\
                    try-restart cellwalld.service\n\
                    disable cellwall-views.path cellwall-views.service cellwalld@.socket cellwalld.service\n\
                    stop cellwall-views.path cellwall-views.service cellwalld@*.socket cellwalld.service\ndaemon-reload\n";
    assert_eq!(said, expected);
}

#[test]
fn a_daemon_that_nobody_manages_is_told_by_install_and_stops_uninstall() {
    let said = in_a_copy_of_the_host(
        "
        $XTASK install > /mnt/said
        cellwalld 2> /mnt/daemon &
        for turn in $(seq 100); do test -S /run/cellwall/status.sock && break; sleep 0.1; done
        $XTASK install | grep '  !'
        $XTASK uninstall 2>&1 && exit 1
        test -x /usr/sbin/cellwalld -a -d /run/cellwall/pool
        kill -TERM $!
        wait $!
        $XTASK uninstall > /mnt/said
        test ! -e /usr/sbin/cellwalld && echo GONE
        ",
    );
    let remedy = "kill -TERM $(pgrep -o -x cellwalld)";
    assert!(
        said.contains(&format!("cellwalld still runs as it was before. Start it again after: {remedy}")),
        "{said}"
    );
    assert!(said.contains(&format!("End it first: {remedy}")) && said.ends_with("GONE\n"), "{said}");
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
        echo '# mine too' >> /etc/logrotate.d/cellwall
        $XTASK install > /mnt/said
        $XTASK uninstall --keep-config > /mnt/said
        tail -qn 1 /etc/cellwall/cellwall.toml /etc/logrotate.d/cellwall
        find / -xdev -name 'cellwall*' -not -path '/proc/*' -path '/usr/*'
        ",
    );
    assert_eq!(said, "# mine\n# mine too\n");
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
fn another_group_is_named_wherever_the_web_servers_stands() {
    assert_root();
    let directory = std::env::temp_dir().join(format!("cellwall-own-group-{}", process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["install", "--built", "--group", "games", "--destdir"])
        .arg(&directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = Command::new("grep")
        .args(["-r", "-h", "-x", "-E", "[^#]*\\b(games|www-data)\\b.*"])
        .args(["etc", "usr/lib"])
        .current_dir(&directory)
        .output()
        .unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let mut lines: Vec<&str> = found.lines().filter(|line| !line.contains("matches")).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["SocketGroup=games", "caller = \"games\""]);
}

#[test]
fn what_an_older_version_brought_goes_with_the_next_installation() {
    assert_root();
    let directory = std::env::temp_dir().join(format!("cellwall-older-{}", process::id()));
    let install = || {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["install", "--built", "--destdir"])
            .arg(&directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(!install().contains("this version does not have"));
    let share = directory.join("usr/share");
    let old = [
        share.join("cellwall/pieces/old.toml"),
        share.join("cellwall/older/x"),
        share.join("doc/cellwall/examples/old"),
    ];
    fs::create_dir(share.join("cellwall/older")).unwrap();
    old.iter().for_each(|path| fs::write(path, "").unwrap());
    let said = install();
    assert_eq!(said.matches("this version does not have").count(), 3, "{said}");
    assert!(old.iter().all(|path| !path.exists()));
    assert!(share.join("cellwall/pieces/php.toml").exists());
    assert!(share.join("doc/cellwall/examples/nginx/pool.conf").exists());
    fs::remove_dir_all(&directory).unwrap();
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
