//! The programs that are launched, from nothing to PHP.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

/// A program of every site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) file: &'static str,
    pub(crate) what: &'static str,
    /// Every so many rounds are measured: PHP alone takes 20 ms.
    pub(crate) slowness: usize,
}

pub(crate) const TINY: Payload = Payload { file: "tiny", what: "tiny (no library)", slowness: 1 };
pub(crate) const PERL: Payload = Payload { file: "hello.pl", what: "perl", slowness: 1 };
pub(crate) const PHP: Payload = Payload { file: "page.php", what: "php-cgi", slowness: 5 };
pub(crate) const ALL: [Payload; 5] = [
    TINY,
    Payload { file: "static", what: "C, static", slowness: 1 },
    Payload { file: "hello.sh", what: "sh", slowness: 1 },
    PERL,
    PHP,
];

const HELLO: &str = "Content-Type: text/plain\\n\\nhello\\n";

/// Two system calls and no library: what is measured is the launch alone.
const TINY_SOURCE: &str = r#"
static long call(long n, long a, long b, long c) {
    long r;
#if defined(__x86_64__)
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    r = x0;
#endif
    return r;
}
#if defined(__x86_64__)
enum { WRITE = 1, EXIT = 231 };
#else
enum { WRITE = 64, EXIT = 94 };
#endif
static const char text[] = HELLO;
void _start(void) { call(WRITE, 1, (long)text, sizeof text - 1); for (;;) call(EXIT, 0, 0, 0); }
"#;

const STATIC_SOURCE: &str = "#include <stdio.h>\nint main(void) { fputs(HELLO, stdout); return 0; }\n";

/// Compiles what must be compiled, into `place`.
pub(crate) fn make(place: &Path) {
    compile(place, "tiny", TINY_SOURCE, &["-nostdlib", "-static", "-fno-stack-protector"]);
    compile(place, "static", STATIC_SOURCE, &["-static"]);
    write(place, "hello.sh", &format!("#!/bin/sh\nprintf '{HELLO}'\n"));
    write(place, "hello.pl", &format!("#!/usr/bin/perl\nprint \"{HELLO}\";\n"));
    write(place, "page.php", "#!/usr/bin/php-cgi\n<?php echo \"hello\\n\";\n");
}

/// Copies all of them into a site.
pub(crate) fn furnish(from: &Path, docroot: &Path, owner: u32) {
    for payload in ALL {
        let path = docroot.join(payload.file);
        fs::copy(from.join(payload.file), &path).unwrap();
        chown(&path, Some(owner), Some(owner)).unwrap();
    }
}

fn compile(place: &Path, name: &str, source: &str, flags: &[&str]) {
    let text = place.join(format!("{name}.c"));
    fs::write(&text, format!("#define HELLO \"{HELLO}\"\n{source}")).unwrap();
    let said = Command::new("cc")
        .args(["-O2", "-o"])
        .arg(place.join(name))
        .args(flags)
        .arg(&text)
        .output()
        .unwrap_or_else(|why| panic!("cc: {why}; install it with: sudo apt-get install gcc libc6-dev"));
    assert!(said.status.success(), "cc: {}", String::from_utf8_lossy(&said.stderr));
}

fn write(place: &Path, name: &str, text: &str) {
    let path = place.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}
