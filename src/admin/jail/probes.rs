//! What programs of the host's are asked inside a cell: each language that the site has says for itself what works.
//!
//! A script prints findings in the form of [`super::look`]; one that does not come to its last line has found a fault.
//! No module of the site's may be what answers: each runs as [`super::super::cell::probed`] has it, and without the places in
//! a home where its language looks for modules.

/// One program and what it is given on standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    /// The piece that brings it.
    pub(super) piece: &'static str,
    /// The program and its words.
    pub(super) words: &'static [&'static str],
    /// Its script.
    pub(super) script: &'static str,
    /// The same language asked to open a TLS connection to @HOST@, port @PORT@; empty: it cannot be relied on to.
    pub(super) tls: &'static str,
}

/// In this order.
pub(super) const PROBES: &[Probe] = &[
    Probe { piece: "php", words: PHP_CGI, script: PHP, tls: PHP_TLS },
    Probe { piece: "python", words: &["/usr/bin/python3", "-I", "-"], script: PYTHON, tls: PYTHON_TLS },
    Probe { piece: "perl", words: &["/usr/bin/perl", "-"], script: PERL, tls: "" },
    Probe { piece: "ruby", words: &["/usr/bin/ruby", "--disable=gems,rubyopt", "-"], script: RUBY, tls: "" },
    Probe { piece: "node", words: &["/usr/bin/node", "-"], script: NODE, tls: "" },
    Probe { piece: "sh", words: &["/bin/sh"], script: SH, tls: SH_TLS },
];

/// The site's settings count, and what they name to be run before a page or behind it is the site's own.
const PHP_CGI: &[&str] = &["/usr/bin/php-cgi", "-d", "auto_prepend_file=", "-d", "auto_append_file="];

const PHP: &str = r#"<?php
ob_start(); // a session begins before any output; -q would count as output
$said = ''; set_error_handler(function ($kind, $text) use (&$said) { $said = $text; return true; });
function tell($good, $name, $text, $piece = '') {
    echo $good ? 'good' : 'bad', "\t", $name, "\t", strtr((string)$text, "\n\t", '  '), "\t", $piece, "\n";
}
$ini = php_ini_loaded_file();
tell($ini, 'php settings', $ini ?: 'php.ini cannot be read: PHP runs without its restrictions and its extensions', 'php');
$all = array_map('strtolower', get_loaded_extensions()); sort($all);
tell(true, 'php extensions', implode(' ', $all));
$wanted = [];
foreach (explode(',', (string)php_ini_scanned_files()) as $file)
    if (preg_match_all('/^\s*extension\s*=\s*"?([\w.-]+?)(\.so)?"?\s*$/m', (string)@file_get_contents(trim($file)), $found))
        $wanted = array_merge($wanted, $found[1]);
$lost = array_diff(array_map('strtolower', $wanted), $all);
if ($lost) tell(false, 'php extensions', 'not loaded: ' . implode(' ', $lost), 'php');
$zone = (new DateTime('2026-01-15', new DateTimeZone('Europe/Athens')))->format('T');
tell($zone === 'EET', 'php time zone', $zone, 'tz');
$file = tempnam(sys_get_temp_dir(), 'cellwall');
tell($file && dirname($file) === sys_get_temp_dir(), 'php uploads', sys_get_temp_dir()); @unlink($file);
ini_set('session.use_cookies', '0'); ini_set('session.cache_limiter', ''); $said = '';
$good = session_start(); $_SESSION['x'] = 1; $good = session_write_close() && $good && $said === '';
tell($good, 'php session', $said ?: session_save_path()); @unlink(session_save_path() . '/sess_' . session_id());
if (function_exists('openssl_get_cert_locations')) {
    $at = openssl_get_cert_locations();
    tell(is_readable($at['default_cert_file']) || is_readable($at['default_cert_dir']), 'php certificates', $at['default_cert_dir'], 'tls');
}
tell(strlen(random_bytes(8)) === 8, 'php', PHP_VERSION . ', ' . PHP_SAPI);
"#;

const PHP_TLS: &str = r#"<?php
$open = @stream_socket_client('ssl://@HOST@:@PORT@', $number, $text, 20);
echo $open ? 'good' : 'bad', "\tTLS by php\t@HOST@:@PORT@ ", $open ? 'is trusted' : strtr($text . ' ' . error_get_last()['message'], "\n\t", '  '), "\ttls\n";
"#;

const PYTHON: &str = r#"
import datetime, locale, socket, sqlite3, ssl, subprocess, sys, tempfile, zoneinfo
def tell(good, name, text, piece=''): print('good' if good else 'bad', name, text, piece, sep='\t', flush=True)
def tried(name, piece, work):
    try: tell(True, name, work(), piece)
    except Exception as why: tell(False, name, repr(why), piece)
tried('python time zone', 'tz', lambda: datetime.datetime(2026, 1, 15, tzinfo=zoneinfo.ZoneInfo('Europe/Athens')).tzname())
tried('python temporary', '', lambda: tempfile.NamedTemporaryFile().name.rsplit('/', 1)[0])
tried('python locale', 'locale', lambda: locale.setlocale(locale.LC_ALL, 'C.UTF-8'))
tried('python names', 'dns', lambda: socket.gethostbyname('localhost'))
tried('python programs', 'base', lambda: subprocess.run(['/bin/sh', '-c', 'echo sh'], capture_output=True, text=True).stdout.strip())
count = ssl.create_default_context().cert_store_stats()['x509_ca']
tell(count > 0, 'python certificates', count, 'tls')
tell(True, 'python', sys.version.split()[0])
"#;

const PYTHON_TLS: &str = r#"
import socket, ssl
try:
    ssl.create_default_context().wrap_socket(socket.create_connection(('@HOST@', @PORT@), 20), server_hostname='@HOST@')
    print('good', 'TLS by python', '@HOST@:@PORT@ is trusted', 'tls', sep='\t')
except Exception as why:
    print('bad', 'TLS by python', '@HOST@:@PORT@ ' + repr(why), 'tls', sep='\t')
"#;

const PERL: &str = r#"
use strict; use warnings; $| = 1;
sub tell_ { my ($good, $name, $text, $piece) = @_; print join("\t", $good ? 'good' : 'bad', $name, $text // '', $piece // ''), "\n"; }
sub tried { my ($name, $piece, $work) = @_; my $text = eval { $work->() }; (my $why = $@) =~ s/\s+/ /g; tell_(!$why, $name, $why || $text, $piece); }
tried('perl modules', 'perl', sub { require POSIX; require File::Temp; require Socket; require Encode; require JSON::PP; require Digest::SHA; 'POSIX File::Temp Socket Encode JSON::PP Digest::SHA' });
tried('perl time zone', 'tz', sub { local $ENV{TZ} = 'Europe/Athens'; POSIX::tzset(); my $zone = POSIX::strftime('%Z', localtime(0)); $zone eq 'EET' or die "$zone, not EET"; $zone });
tried('perl temporary', '', sub { my (undef, $name) = File::Temp::tempfile(UNLINK => 1); $name =~ s{/[^/]*$}{}r });
tried('perl names', 'dns', sub { Socket::inet_ntoa(Socket::inet_aton('localhost') // die "localhost is not found") });
tried('perl programs', 'base', sub { my $said = `echo sh`; $said eq "sh\n" or die 'no shell'; '/bin/sh' });
tell_(1, 'perl', $^V);
"#;

const RUBY: &str = r#"
def tell(good, name, text, piece = '') puts [good ? 'good' : 'bad', name, text.to_s.tr("\n\t", '  '), piece].join("\t"); $stdout.flush end
def tried(name, piece) tell(true, name, yield, piece) rescue tell(false, name, $!, piece) end
tried('ruby modules', 'ruby') { require 'json'; require 'tempfile'; require 'openssl'; require 'socket'; 'json tempfile openssl socket' }
tried('ruby time zone', 'tz') { ENV['TZ'] = 'Europe/Athens'; zone = Time.at(0).zone; raise zone if zone != 'EET'; zone }
tried('ruby temporary', '') { File.dirname(Tempfile.new('cellwall').path) }
tried('ruby names', 'dns') { Addrinfo.tcp('localhost', 80).ip_address }
tell(true, 'ruby', RUBY_VERSION)
"#;

const NODE: &str = r#"
const tell = (good, name, text, piece = '') => console.log([good ? 'good' : 'bad', name, text, piece].join('\t'));
const tried = (name, piece, work) => { try { tell(true, name, work(), piece); } catch (why) { tell(false, name, why.message, piece); } };
tried('node time zone', 'tz', () => new Date(0).toLocaleString('en-GB', { timeZone: 'Europe/Athens', timeZoneName: 'short' }));
tried('node temporary', '', () => { const fs = require('fs'), made = fs.mkdtempSync(require('os').tmpdir() + '/cellwall'); fs.rmdirSync(made); return require('os').tmpdir(); });
tried('node programs', 'base', () => require('child_process').execSync('echo sh').toString().trim());
require('dns').lookup('localhost', (why, address) => { tell(!why, 'node names', why ? why.message : address, 'dns'); tell(true, 'node', process.version); });
"#;

const SH: &str = r#"
tell() { printf '%s\t%s\t%s\t%s\n' "$@"; }
zone=$(TZ=Europe/Athens date -d 2026-01-15 +%Z 2>&1); [ "$zone" = EET ] && tell good 'sh time zone' "$zone" tz || tell bad 'sh time zone' "$zone, not EET" tz
made=$(mktemp 2>&1) && { tell good 'sh temporary' "${made%/*}" ''; rm "$made"; } || tell bad 'sh temporary' "$made" ''
charset=$(LC_ALL=C.UTF-8 locale charmap 2>/dev/null); [ "$charset" = UTF-8 ] && tell good 'sh locale' "$charset" locale || tell bad 'sh locale' "C.UTF-8 is ${charset:-not there}" locale
tell good sh "$(command -v sed awk grep tar gzip 2>/dev/null | tr '\n' ' ')" ''
"#;

const SH_TLS: &str = r#"
said=$(openssl s_client -verify_return_error -verify_hostname @HOST@ -brief -connect @HOST@:@PORT@ </dev/null 2>&1) && state=good || state=bad
printf '%s\t%s\t%s\t%s\n' $state 'TLS by openssl' "@HOST@:@PORT@ $(echo "$said" | tr '\n\t' '  ' | tail -c 200)" tls
"#;
