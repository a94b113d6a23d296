//! One test for each interpreter. Each prints `name: value` lines; a missing file, library or right shows as another
//! value than the expected one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::{Launcher, Outcome, World, make_directory, put, world};

const SH: &str = r#"#!/bin/sh
echo Content-Type: text/plain
echo
t=$(mktemp) && echo one two >"$t"
echo "tools: $(sed s/one/1/ "$t" | awk '{print $1 + NF}' | sort | uniq | wc -l | tr -d ' ')"
echo "grep: $(grep -c two "$t") $(cut -c1-3 "$t") $(md5sum </dev/null | head -c 6)"
echo "archive: $(tar cf - -C "$(dirname "$t")" "$(basename "$t")" | gzip | gunzip | tar tf - | wc -l)"
rm "$t"
echo "zone: $(TZ=Europe/Athens date +%Z -d 2026-01-15)"
echo "who: $(id -un) $(id -gn) $HOME"
echo "charset: $(locale charmap)"
echo "hosts: $(getent hosts localhost | awk '{print $2}') $(getent services http/tcp | awk '{print $2}')"
echo "temporary: $(dirname "$t")"
seen() { for path; do [ -e "$path" ] && printf '%s ' "$path"; done; }
echo "host: $(seen /home /root /proc /sys /boot /etc/shadow /etc/ssh /var/log /var/www/bob /run /usr/sbin/apache2)"
touch x 2>/dev/null || echo "docroot: read-only"
"#;

const PERL: &str = r#"#!/usr/bin/perl
use strict; use warnings;
use POSIX qw(strftime setlocale LC_ALL); use File::Temp qw(tempfile); use Time::Local; use Socket; use Encode;
use JSON::PP; use Digest::SHA qw(sha1_hex); use List::Util qw(sum); use Storable qw(dclone); use Data::Dumper; use Sys::Hostname;
print "Content-Type: text/plain\n\n";
my ($handle, $name) = tempfile(UNLINK => 1); print $handle "x"; print "temporary: ", $name =~ m{^(/\w+)/}, "\n";
$ENV{TZ} = 'Europe/Athens'; POSIX::tzset(); print "zone: ", strftime('%H %Z', localtime(0)), "\n";
print "locale: ", setlocale(LC_ALL, 'C.UTF-8') || 'none', "\n";
print "time: ", timegm(0, 0, 0, 1, 0, 100), "\n";
print "json: ", encode_json({ a => [1, 2] }), " ", sha1_hex('a'), " ", sum(@{ dclone([1, 2]) }), "\n";
print "names: ", scalar getpwuid($<), " ", inet_ntoa(inet_aton('localhost')), " ", scalar getservbyname('http', 'tcp'), "\n";
print "system: "; $| = 1; system('printf "%s\n" "$(id -un)"'); print "pipe: ", `echo a | tr a b`;
print "neighbours: ", (-e '/var/www/bob' ? 'yes' : 'no'), "\n";
print "write: ", (open(my $o, '>', 'x') ? 'yes' : 'no'), " shadow: ", (-e '/etc/shadow' ? 'yes' : 'no'), "\n";
"#;

const PYTHON: &str = r#"#!/usr/bin/python3
import asyncio, concurrent.futures, csv, ctypes, datetime, decimal, email, hashlib, json, locale, mimetypes, multiprocessing
import os, pwd, random, secrets, socket, sqlite3, ssl, subprocess, tempfile, threading, urllib.request, uuid, zoneinfo
print('Content-Type: text/plain\n')
print('tls:', ssl.create_default_context().cert_store_stats()['x509_ca'] > 0)
print('sqlite:', sqlite3.connect(':memory:').execute('select 6 * 7').fetchone()[0])
print('subprocess:', subprocess.run(['id', '-un'], capture_output=True, text=True).stdout.strip(), subprocess.getoutput('echo x'))
print('json:', json.dumps({'a': 1}), hashlib.sha256(b'').hexdigest()[:6])
print('zone:', datetime.datetime(2026, 1, 15, tzinfo=zoneinfo.ZoneInfo('Europe/Athens')).tzname())
print('names:', pwd.getpwuid(os.getuid()).pw_name, socket.gethostbyname('localhost'), socket.getservbyname('http'))
print('temporary:', os.path.dirname(tempfile.NamedTemporaryFile().name))
print('threads:', list(concurrent.futures.ThreadPoolExecutor().map(int, '12')), asyncio.run(asyncio.sleep(0)))
with multiprocessing.Pool(2) as pool: print('processes:', pool.map(abs, [-1, -2]))
print('locale:', locale.setlocale(locale.LC_ALL, 'C.UTF-8'))
print('neighbours:', os.path.exists('/var/www/bob'))
print('write:', os.access('.', os.W_OK), 'shadow:', os.path.exists('/etc/shadow'))
"#;

const PHP: &str = r#"<?php
session_start(); $_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1;
echo 'session: ', $_SESSION['count'], "\n"; $id = session_id(); session_write_close();
echo 'id: ', $id, "\n";
echo 'where: ', dirname(glob(session_save_path() . '/sess_*')[0] ?? session_save_path() . '/sess'), "\n";
echo 'ini: ', strpos(php_ini_loaded_file(), '/etc/php') === 0 ? 'read' : 'none', ' ', extension_loaded('Zend OPcache') ? 'opcache' : '', "\n";
$date = new DateTime('2026-01-15', new DateTimeZone('Europe/Athens')); echo 'zone: ', $date->format('T'), "\n";
echo 'locale: ', setlocale(LC_ALL, 'C.UTF-8'), "\n";
$file = tempnam(sys_get_temp_dir(), 't'); echo 'temporary: ', dirname($file), "\n"; unlink($file);
echo 'names: ', posix_getpwuid(posix_getuid())['name'], ' ', gethostbyname('localhost'), "\n";
echo 'shell: ', trim(shell_exec('echo $(id -un) $(echo a | tr a b | awk "{print \$1 1}")') ?? 'none'), "\n";
echo 'type: ', mime_content_type(__FILE__), ' ', strlen(random_bytes(8)), ' ', json_encode(['a' => 1]), "\n";
echo 'limits: ', getenv('PHP_FCGI_MAX_REQUESTS'), ' ', var_export(getenv('OTHER'), true), "\n";
echo 'neighbours: ', file_exists('/var/www/bob') ? 'yes' : 'no', "\n";
echo 'write: ', is_writable('.') ? 'yes' : 'no', ' shadow: ', file_exists('/etc/shadow') ? 'yes' : 'no', "\n";
"#;

/// Runs alice's program under a profile, and returns its `name: value` lines.
fn lines(world: &World, outcome: &Outcome) -> BTreeMap<String, String> {
    assert!(outcome.status.success() && outcome.err.is_empty(), "{}", outcome.story());
    let text = outcome.out_text();
    let (head, body) = text.replace("\r\n", "\n").split_once("\n\n").map_or_else(
        || panic!("no header: {}", outcome.story()),
        |(head, body)| (head.to_owned(), body.to_owned()),
    );
    assert!(head.to_ascii_lowercase().contains("content-type"), "{}", outcome.story());
    assert!(!world.records().is_empty());
    body.lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn expect(found: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(found.get(*name).map(String::as_str), Some(*value), "{name} in {found:#?}");
    }
}

fn site(world: &World, profile: &str) {
    world.site("alice", &format!("profile = \"{profile}\"\n"));
    world.apply();
}

/// A cell has the host's programs: where it has not what an administrator wrote to keep one in bounds, the program runs without.
#[test]
fn the_hosts_policy_of_imagemagick_is_in_every_cell_with_the_hosts_programs() {
    world(Launcher::Cellwall, |world| {
        make_directory("/etc/ImageMagick-6", 0, 0o755);
        put("/etc/ImageMagick-6/policy.xml", b"<policymap/>", 0, 0o644);
        fs::create_dir_all("/usr/share/misc").unwrap();
        put("/usr/share/misc/kinds", b"0 string x x\n", 0, 0o644);
        world.script(
            &world.alice,
            "a.cgi",
            "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\ncat /etc/ImageMagick-6/policy.xml /usr/share/misc/kinds\n",
        );
        for profile in ["sh", "perl", "python", "php", "ruby", "node"] {
            site(world, profile);
            let outcome = world.call(&world.alice, "a.cgi").run();
            assert!(
                outcome.out_text().ends_with("<policymap/>0 string x x\n"),
                "{profile}: {}",
                outcome.story()
            );
        }
    });
}

#[test]
fn shell_scripts_have_their_tools() {
    world(Launcher::Cellwall, |world| {
        site(world, "sh");
        world.script(&world.alice, "a.cgi", SH);
        let found = lines(world, &world.call(&world.alice, "a.cgi").run());
        expect(
            &found,
            &[
                ("tools", "1"),
                ("grep", "1 one d41d8c"),
                ("archive", "1"),
                ("zone", "EET"),
                ("who", "alice alice /home/alice"),
                ("charset", "ANSI_X3.4-1968"),
                ("hosts", "localhost 80/tcp"),
                ("temporary", "/tmp"),
                ("host", ""),
                ("docroot", "read-only"),
            ],
        );
    });
}

#[test]
fn perl_scripts_have_their_modules() {
    world(Launcher::Cellwall, |world| {
        site(world, "perl");
        world.script(&world.alice, "a.pl", PERL);
        let found = lines(world, &world.call(&world.alice, "a.pl").run());
        expect(
            &found,
            &[
                ("temporary", "/tmp"),
                ("zone", "02 EET"),
                ("locale", "C.UTF-8"),
                ("time", "946684800"),
                ("json", "{\"a\":[1,2]} 86f7e437faa5a7fce15d1ddcb9eaeaea377667b8 3"),
                ("names", "alice 127.0.0.1 80"),
                ("system", "alice"),
                ("pipe", "b"),
                ("neighbours", "no"),
                ("write", "no shadow: no"),
            ],
        );
    });
}

#[test]
fn python_scripts_have_their_modules() {
    world(Launcher::Cellwall, |world| {
        site(world, "python");
        world.script(&world.alice, "a.py", PYTHON);
        let found = lines(world, &world.call(&world.alice, "a.py").run());
        expect(
            &found,
            &[
                ("tls", "True"),
                ("sqlite", "42"),
                ("subprocess", "alice x"),
                ("json", "{\"a\": 1} e3b0c4"),
                ("zone", "EET"),
                ("names", "alice 127.0.0.1 80"),
                ("temporary", "/tmp"),
                ("threads", "[1, 2] None"),
                ("processes", "[1, 2]"),
                ("locale", "C.UTF-8"),
                ("neighbours", "False"),
                ("write", "False shadow: False"),
            ],
        );
    });
}

/// npm, psql and pg_dump are links to scripts in /usr/share on Debian: deploys and backups start them by `cellwall run`.
#[test]
fn tools_that_debian_keeps_beside_the_libraries_are_started() {
    let npm = "#!/usr/bin/env node\nconsole.log('npm runs')\n";
    let psql = "#!/usr/bin/perl\nuse PgCommon; print 'psql ', PgCommon::runs(), \"\\n\";\n";
    world(Launcher::Cellwall, |world| {
        for (name, place, text) in
            [("npm", "/usr/share/nodejs/npm", npm), ("psql", "/usr/share/postgresql-common", psql)]
        {
            fs::create_dir_all(place).unwrap();
            put(format!("{place}/tool"), text.as_bytes(), 0, 0o755);
            let link = format!("/usr/bin/{name}");
            drop(fs::remove_file(&link));
            symlink(format!("..{}/tool", place.strip_prefix("/usr").unwrap()), link).unwrap();
        }
        put("/usr/share/perl5/PgCommon.pm", b"package PgCommon; sub runs { 'runs' } 1;\n", 0, 0o644);
        for (rules, tool) in
            [("profile = \"node\"\n", "npm"), ("profile = \"php\"\npieces = [\"postgresql\"]\n", "psql")]
        {
            world.site("alice", rules);
            world.apply();
            let said = world.cellwall(&["run", "alice", "--", tool]);
            assert_eq!(String::from_utf8_lossy(&said.stdout), format!("{tool} runs\n"), "{said:?}");
        }
    });
}

/// Their own libraries are in /usr/share, which `sh` has not.
#[test]
fn scripts_in_tcl_and_lua_have_their_modules() {
    const TCL: &str = "#!/usr/bin/tclsh\npackage require http\nputs \"Content-Type: text/plain\\n\"\n\
                       puts \"escaped: [http::formatQuery a \\u00e4]\"\nputs \"zone: [clock format 0 -format %Z -timezone :Europe/Athens]\"\n";
    const LUA: &str = "#!/usr/bin/lua5.4\nlocal cells = require('cells')\nprint('Content-Type: text/plain\\n')\n\
                       print('module: ' .. cells.name)\nos.remove(os.tmpname())\n";
    world(Launcher::Cellwall, |world| {
        world.site("alice", "profile = \"sh\"\npieces = [\"tcl\", \"lua\"]\n");
        fs::create_dir_all("/usr/share/lua/5.4").unwrap();
        put("/usr/share/lua/5.4/cells.lua", b"return { name = 'cork' }\n", 0, 0o644);
        world.apply();
        world.script(&world.alice, "a.tcl", TCL);
        world.script(&world.alice, "a.lua", LUA);
        let found = lines(world, &world.call(&world.alice, "a.tcl").run());
        expect(&found, &[("escaped", "a=%C3%A4"), ("zone", "EET")]);
        let found = lines(world, &world.call(&world.alice, "a.lua").run());
        expect(&found, &[("module", "cork")]);
    });
}

#[test]
fn php_has_its_settings_sessions_and_zones() {
    world(Launcher::Cellwall, |world| {
        site(world, "php");
        let path = world.script(&world.alice, "a.php", PHP);
        // Neither #! nor x bit: the profile's handler runs it.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let ask = |cookie: &str| {
            let outcome = world
                .call(&world.alice, "a.php")
                .env("PHP_FCGI_MAX_REQUESTS=77")
                .env("OTHER=x")
                .env(format!("HTTP_COOKIE={cookie}"))
                .run();
            lines(world, &outcome)
        };
        let first = ask("");
        expect(
            &first,
            &[
                ("session", "1"),
                ("where", "/var/lib/php/sessions"),
                ("ini", "read opcache"),
                ("zone", "EET"),
                ("locale", "C.UTF-8"),
                ("temporary", "/tmp"),
                ("names", "alice 127.0.0.1"),
                ("shell", "alice b1"),
                ("type", "text/x-php 8 {\"a\":1}"),
                ("limits", "77 false"),
                ("neighbours", "no"),
                ("write", "no shadow: no"),
            ],
        );
        let second = ask(&format!("PHPSESSID={}", first["id"]));
        expect(&second, &[("session", "2")]);
        let own = format!("/var/lib/cellwall/private/{}/alice/var-lib-php-sessions", world.alice.id);
        assert!(Path::new(&own).join(format!("sess_{}", first["id"])).exists(), "{own}");
    });
}

#[test]
fn a_static_program_sees_no_other_program() {
    world(Launcher::Cellwall, |world| {
        site(world, "static");
        world.probe(&world.alice, "probe.cgi");
        world.call(&world.alice, "probe.cgi").run().ran();
        // There is no interpreter in this cell, so a script cannot run.
        world.script(&world.alice, "a.cgi", SH);
        let outcome = world.call(&world.alice, "a.cgi").run();
        assert!(!outcome.status.success() && outcome.records[0].verb == "refuse", "{}", outcome.story());
    });
}
