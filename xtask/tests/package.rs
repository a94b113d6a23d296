//! The packages of Debian's and of Fedora's kind: what is in them, and what they do when they come, change and go. Root.
#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod copy;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use copy::{SYSTEMD, assert_root, in_a_copy_of_the_host};

/// The package that `cargo xtask package` makes of what is built, by somebody with this umask and in this time zone.
fn package(options: &[&str], umask: &str, zone: &str) -> PathBuf {
    assert_root();
    let output = Command::new("sh")
        .args([
            "-c",
            &format!("umask {umask}; exec \"$0\" package --built \"$@\""),
            env!("CARGO_BIN_EXE_xtask"),
        ])
        .args(options)
        .env("TZ", zone)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let file = said.lines().find_map(|line| line.split_once("The package: ")).unwrap().1;
    PathBuf::from(file.trim_end_matches("\u{1b}[0m"))
}

#[test]
fn a_debian_package_is_the_same_bits_whoever_packs_it_and_lintian_has_no_remark() {
    let (file, first) = {
        let file = package(&[], "022", "UTC");
        (file.clone(), fs::read(file).unwrap())
    };
    let again = fs::read(package(&[], "077", "Pacific/Auckland")).unwrap();
    assert!(first == again, "two packages of the same programs differ");
    let output = Command::new("lintian").arg("--allow-root").arg(file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert!(output.status.success());
}

/// A host of Fedora's kind as far as the package sees it: its web server's account, no Apache of Debian's, rpm and a systemd.
const FEDORA: &str = "
    rm -rf /usr/lib/apache2
    echo apache:x:48:48::/usr/share/httpd:/sbin/nologin >> /etc/passwd
    echo apache:x:48: >> /etc/group
    echo shop:x:61001:61001::/var/www/shop:/bin/false >> /etc/passwd
    echo shop:x:61001: >> /etc/group
    install -d -o 61001 -g 61001 /var/www/shop
    printf '#!/bin/sh\\necho; id -u\\n' > /var/www/shop/a.cgi
    chown 61001:61001 /var/www/shop/a.cgi
    chmod 755 /var/www/shop/a.cgi
    mkdir -p /usr/share/licenses /usr/share/zsh/site-functions
    rpm() { command rpm --force-debian --dbpath /mnt/rpm \"$@\"; }
    launch() { (cd /var/www/shop && setpriv --reuid apache --regid apache --clear-groups \\
        /usr/lib/cellwall/cellwall-suexec 61001 61001 a.cgi 2>&1 | tail -n 1); }
";

#[test]
fn a_fedora_package_brings_what_the_manifest_says_and_leaves_what_people_wrote() {
    let file = package(&["--rpm"], "022", "UTC");
    let place = file.with_file_name("rpm");
    let said = in_a_copy_of_the_host(&format!(
        "{SYSTEMD}{FEDORA}
        list > /mnt/before
        rpm -i --nodeps {file} > /mnt/said
        rpm -V --nodeps cellwall && echo as listed
        stat -c '%a %U:%G %n' /usr/lib/cellwall/cellwall-suexec /var/lib/cellwall/policy /run/cellwall/pool
        grep -h -e ^caller -e ^SocketGroup /etc/cellwall/cellwall.toml /usr/lib/systemd/system/cellwalld@.socket
        getent passwd cellwall | cut -d: -f1,7
        printf 'user = \"shop\"\\ndocroot = \"/var/www/shop\"\\nprofile = \"sh\"\\n' > /etc/cellwall/sites.d/shop.toml
        cellwall apply > /mnt/said
        launch
        echo '# mine' >> /etc/cellwall/cellwall.toml
        install -D -m 644 /usr/share/doc/cellwall/examples/httpd/cellwall.conf /etc/systemd/system/httpd.service.d/cellwall.conf
        sed 's/^Release: 1/Release: 2/' {place}/cellwall.spec > /mnt/next.spec
        rpmbuild -bb --define '_topdir /mnt/next' /mnt/next.spec > /mnt/said 2>&1
        : > /mnt/asked
        rpm -U --nodeps /mnt/next/RPMS/*/*.rpm > /mnt/said
        cat /mnt/asked
        rpm -q cellwall
        tail -n 1 /etc/cellwall/cellwall.toml
        launch
        : > /mnt/asked
        rpm -e cellwall > /mnt/said
        cat /mnt/asked
        list > /mnt/after
        diff /mnt/before /mnt/after | grep -e '^<' -e '^> /' | cut -d' ' -f1,2 | grep -v -e '/policy/' -e '/private/'
        ",
        file = file.display(),
        place = place.display(),
    ));
    let expected = "as listed\n\
        4750 root:apache /usr/lib/cellwall/cellwall-suexec\n\
        700 root:root /var/lib/cellwall/policy\n\
        711 root:root /run/cellwall/pool\n\
        caller = \"apache\"\nSocketGroup=apache\n\
        cellwall:/usr/sbin/nologin\n\
        61001\n\
        daemon-reload\ntry-restart cellwalld.service\ntry-restart httpd.service\n\
        cellwall-0.1.0-2.x86_64\n\
        # mine\n\
        61001\n\
        disable --quiet cellwall-views.path cellwall-views.service cellwalld@.socket cellwalld.service\n\
        stop cellwall-views.path cellwall-views.service cellwalld@*.socket cellwalld.service\n\
        daemon-reload\ntry-restart httpd.service\ndaemon-reload\n\
        > /etc/cellwall\n> /etc/cellwall/cellwall.toml.rpmsave\n> /etc/cellwall/sites.d\n\
        > /etc/cellwall/sites.d/shop.toml\n> /var/lib/cellwall\n> /var/lib/cellwall/apply.lock\n\
        > /var/lib/cellwall/policy\n> /var/lib/cellwall/private\n> /var/lib/cellwall/staged\n\
        > /var/log/cellwall\n> /var/log/cellwall/cellwall.log\n";
    assert_eq!(said, expected);
}

/// Their own compilers read them; what they do on a host that has SELinux or AppArmor is not seen here.
#[test]
fn what_is_shipped_for_selinux_and_apparmor_is_understood() {
    let said = in_a_copy_of_the_host(
        "
        cd $REPOSITORY
        secilc -o /mnt/policy -f /mnt/contexts xtask/tests/selinux/host.cil packaging/selinux/cellwall.cil
        grep -c cellwall_ /mnt/contexts
        (echo 'profile apache2 /usr/sbin/apache2 {'; cat packaging/apparmor/cellwall; echo '}') > /mnt/profile
        apparmor_parser --skip-kernel-load --skip-cache --quiet /mnt/profile && echo understood
        ",
    );
    assert_eq!(said, "5\nunderstood\n");
}
